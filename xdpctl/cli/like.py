"""The chain of another interface, for those that are to run the same one."""

from __future__ import annotations

from dataclasses import replace

from ..bpffs.mount import Bpffs
from ..errors import NotFoundError, UnsupportedError
from ..host.interfaces import Interface
from ..model.chain import Chain
from ..model.kinds import TRAITS
from ..model.request import Request
from ..model.state import Root, State
from ..observe.reading import observe
from ..roots.peers import own_reason
from .many import Wanted


class Like:
    """What an interface runs, looked up each time that another one is to run it."""

    def __init__(self, bpffs: Bpffs, other: Interface, request: Request) -> None:
        self.bpffs, self.other, self.request = bpffs, other, request

    def wanted(self, one: Interface) -> Wanted:
        """What an interface is to run. Raises what `look` does."""
        _chain, root = self.look()
        here = observe(one, self.bpffs)
        protocol = root.config.libxdp if root.config else 0
        asked = replace(
            self.request,
            kind=self.request.kind or root.kind,
            protocol=self.request.protocol or protocol or None,
            shared=True,
            unless_same=here.root is not None and here.root.id == root.id,
        )
        return Wanted(self.target, asked, [self.other])

    def target(self, _state: State) -> Chain:
        return self.look()[0]

    def look(self) -> tuple[Chain, Root]:
        """The chain as it is now, and its root.

        Raises NotFoundError if there is none, UnsupportedError if it can run on no other interface.
        """
        state = observe(self.other, self.bpffs)
        root, name = state.root, self.other.name
        if root is None or root.owner != "xdpctl" or TRAITS[root.kind].alone:
            raise NotFoundError(
                f"{name} runs no chain of xdpctl's",
                hint=f"xdpctl status {name} shows what it runs",
            )
        if why := own_reason(state.chain, root.slots):
            raise UnsupportedError(f"no other interface can run the chain of {name}", why=why)
        return state.chain, root
