"""The XDP hook of an interface: how a root gets onto it, is exchanged and leaves.

Each of the three is one system call, the commit point of a change, and names the root that it
expects to find. What it needs is opened before.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from typing import Protocol

from ..bpffs import directory, pin
from ..errors import KernelError, VanishedError
from ..host.interfaces import Interface
from ..kernel import uapi, xdp
from ..kernel.link import Link
from ..kernel.program import Program
from ..model.labels import Attach
from ..model.plan import Plan
from ..model.request import AskedMode
from ..model.state import Root
from ..value import Value
from . import refusal

MODE_FLAGS: dict[AskedMode, int] = {
    "unspecified": 0,
    "native": uapi.XDP_FLAGS_DRV_MODE,
    "skb": uapi.XDP_FLAGS_SKB_MODE,
    "hw": uapi.XDP_FLAGS_HW_MODE,
}

Done = tuple[str, str, dict[str, int]]
"""A step: its number, its text, the ids that it used."""


_CHANGED = frozenset({errno.EBUSY, errno.EEXIST, errno.ENOENT, errno.ENOLINK})
"""What the kernel answers if the hook is not as it was observed, however a root is attached."""


class LostRace(Exception):  # noqa: N818 - not an error: observe again
    """The interface is not as it was observed."""


class NewRoot(Value):
    """A root that is attached nowhere yet."""

    program: Program
    id: int


class Way(Protocol):
    """How a root is attached: by a bpf_link, or over netlink.

    Each of `attach`, `update` and `detach` is one system call. They tell what they did in words, if
    these differ, and the ids that they used, and raise KernelError.
    """

    changed: frozenset[int]
    """The errnos that say, beside those of `_CHANGED`, that the hook is not as expected."""

    def open(self, old: Root, *, adopts: bool) -> None:
        """Open what attaches the root that is there."""

    def note_adopted(self, undo: contextlib.ExitStack) -> None:
        """Note that what attaches the root is another's, for a crash before it is pinned or let go.

        It is told apart by that from a link of ours that somebody gave a program.
        """

    def adopt(self, undo: contextlib.ExitStack) -> None:
        """Keep what attaches another's program: without that the chain would go with its owner."""

    def attach(self, root: Program, flags: int) -> dict[str, int]: ...

    def update(
        self, root: Program, expected: Program, flags: int
    ) -> tuple[str, dict[str, int]]: ...

    def detach(self, expected: Program, flags: int) -> dict[str, int]: ...


class ByLink:
    """The root hangs on a bpf_link, which is pinned."""

    changed = frozenset({errno.EPERM})  # not the program that was expected

    def __init__(
        self, ifindex: int, paths: directory.InterfacePins, closing: contextlib.ExitStack
    ) -> None:
        self.ifindex, self.paths, self.closing = ifindex, paths, closing
        self.opened: Link | None = None
        self.link_id = 0

    @property
    def link(self) -> Link:
        """That of the root that is there."""
        assert self.opened is not None
        return self.opened

    def open(self, old: Root, *, adopts: bool) -> None:
        adopted = adopts and old.link_id
        link = Link.by_id(adopted) if adopted else Link.pinned(self.paths.root_link)
        self.opened, self.link_id = self.closing.enter_context(link), old.link_id

    def adopt(self, undo: contextlib.ExitStack) -> None:
        self.note_adopted(undo)
        with pin.failing("pin the root link at", self.paths.root_link):
            undo.callback(pin.remove, self.paths.root_link)
            self.link.pin(self.paths.root_link)

    def note_adopted(self, undo: contextlib.ExitStack) -> None:
        with pin.failing("make a record in", self.paths.bpffs.path):
            undo.callback(pin.remove, self.paths.adopting)
            os.symlink(str(self.link.info.id), self.paths.adopting)

    def attach(self, root: Program, flags: int) -> dict[str, int]:
        link = self.closing.enter_context(Link.xdp(root, self.ifindex, flags))
        link_id = link.info.id
        # Not pinned, it falls with this process, and the interface is as before.
        with pin.failing("pin the root link at", self.paths.root_link):
            link.pin(self.paths.root_link)
        return {"root_link": link_id}

    def update(self, root: Program, expected: Program, _flags: int) -> tuple[str, dict[str, int]]:
        self.link.update(root, expected)
        return "updated the root link X → Y", {"root_link": self.link_id}

    def detach(self, _expected: Program, _flags: int) -> dict[str, int]:
        self.link.detach()
        return {"root_link": self.link_id}


class OverNetlink:
    """The root is attached over netlink: nothing is pinned, and others may replace it."""

    changed = frozenset[int]()

    def __init__(
        self, ifindex: int, _paths: directory.InterfacePins, _closing: contextlib.ExitStack
    ) -> None:
        self.ifindex = ifindex

    def open(self, _old: Root, *, adopts: bool) -> None:
        pass

    def adopt(self, _undo: contextlib.ExitStack) -> None:
        pass

    def note_adopted(self, _undo: contextlib.ExitStack) -> None:
        pass

    def attach(self, root: Program, flags: int) -> dict[str, int]:
        xdp.attach(self.ifindex, root, flags)
        return {}

    def update(self, root: Program, expected: Program, flags: int) -> tuple[str, dict[str, int]]:
        xdp.attach(self.ifindex, root, flags, expected)
        return "replaced the root X → Y", {}

    def detach(self, expected: Program, flags: int) -> dict[str, int]:
        xdp.detach(self.ifindex, flags, expected)
        return {}


WAYS: dict[Attach, type[ByLink | OverNetlink]] = {"link": ByLink, "netlink": OverNetlink}


class Hook:
    """The hook of one interface, for one change."""

    def __init__(
        self,
        interface: Interface,
        plan: Plan,
        paths: directory.InterfacePins,
        old: Root | None,
        closing: contextlib.ExitStack,
    ) -> None:
        self.interface, self.plan = interface, plan
        self.flags = MODE_FLAGS[plan.mode]
        self.way: Way = WAYS[plan.attach](interface.ifindex, paths, closing)
        self.old: NewRoot | None = None
        if old is not None:
            try:
                self.way.open(old, adopts=plan.adopts)
                self.old = NewRoot(closing.enter_context(Program.by_id(old.id)), old.id)
            except KernelError as error:
                raise LostRace from error

    def adopt(self, undo: contextlib.ExitStack) -> None:
        """Keep what attaches another's program, which a chain of ours is about to replace."""
        self.way.adopt(undo)

    def note_adopted(self, undo: contextlib.ExitStack) -> None:
        """Note that what attaches the root is about to be another's again."""
        self.way.note_adopted(undo)

    def flip(self, new: NewRoot | None) -> Done:
        """Do what the plan says. Raises LostRace, or why the kernel refuses."""
        with self._refusals(self.plan.flip):
            if new is None:
                return self.detach()
            return self.attach(new) if self.plan.flip == "attach" else self.update(new)

    def attach(self, new: NewRoot) -> Done:
        """Attach the first root; in generic mode if the driver refuses and no mode was asked."""
        try:
            return self._attach(new)
        except KernelError as error:
            if self.plan.mode != "unspecified" or error.errno not in refusal.DRIVERS:
                raise
            self.flags = MODE_FLAGS["skb"]
            try:
                return self._attach(new)
            except KernelError:
                raise error from None  # the driver's is the one to be told

    def _attach(self, new: NewRoot) -> Done:
        ids = {"root": new.id, **self.way.attach(new.program, self.flags)}
        return "1'", f"attached X to {self.interface.name}", ids

    def update(self, new: NewRoot) -> Done:
        assert self.old is not None
        text, ids = self.way.update(new.program, self.old.program, self.flags)
        return "6", f"{text}: packets now run through Y", {**ids, "X": self.old.id, "Y": new.id}

    def detach(self) -> Done:
        assert self.old is not None
        ids = {"X": self.old.id, **self.way.detach(self.old.program, self.flags)}
        return "6", f"detached X from {self.interface.name}: packets pass", ids

    @contextlib.contextmanager
    def _refusals(self, what: str) -> Iterator[None]:
        """What it means when the kernel does not flip."""
        name = self.interface.name
        try:
            yield
        except KernelError as error:
            reason = error.log.strip() or str(error)
            if not self.interface.exists():
                raise VanishedError(f"{name} went away meanwhile", why=reason) from error
            if error.errno in _CHANGED | self.way.changed:
                if what == "attach":
                    refusal.check_relatives(self.interface, error)
                # Observed and planned anew: a program of another tool's is then named.
                raise LostRace from error
            raise refusal.explained(self.interface, self.plan, what, error) from error
