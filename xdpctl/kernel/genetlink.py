"""A family of generic netlink that is asked, through pyroute2, which has classes for few of them.

Numbers and names of a family stand in the module that asks it: the oldest pyroute2 that serves
knows fewer of them. The import takes 0.2 s: only where it is used.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from typing import Any

from pyroute2.netlink import NLM_F_REQUEST, genlmsg
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.generic import GenericNetlinkSocket

from ..errors import KernelError
from .masks import heard


class Family:
    """A family, open: it is asked by messages of one class."""

    def __init__(self, bound: GenericNetlinkSocket, version: int, message: type[genlmsg]) -> None:
        self._bound, self._version, self._message = bound, version, message

    def ask(self, command: int, *attributes: tuple[str, Any], flags: int = 0) -> list[Any]:
        """The answers to a command with these attributes. Raises NetlinkError."""
        message = self._message()
        message["cmd"] = command
        message["version"] = self._version
        message["attrs"].extend(attributes)
        asked = NLM_F_REQUEST | flags
        return list(self._bound.nlm_request(message, msg_type=self._bound.prid, msg_flags=asked))


@contextlib.contextmanager
def family(name: str, version: int, message: type[genlmsg], call: str) -> Iterator[Family]:
    """Open a family; `call` names in errors what it is asked.

    Raises KernelError for what is refused in the block as well: ENOENT if there is no such family.
    """
    try:
        with heard(), GenericNetlinkSocket() as bound:
            bound.bind(name, message)
            yield Family(bound, version, message)
    except NetlinkError as error:
        raise KernelError(call, error.code or errno.EIO) from error
