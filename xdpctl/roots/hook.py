"""The XDP hook of an interface: how a root gets onto it, is exchanged and leaves.

Each of the three is one system call, the commit point of a change, and names the root that it
expects to find. What it needs is opened before.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator

from ..bpffs import directory, pin
from ..errors import KernelError, VanishedError
from ..host.interfaces import Interface
from ..kernel import libbpf, uapi
from ..model.plan import Plan
from ..model.request import AskedMode
from ..model.state import Root
from . import refusal

MODE_FLAGS: dict[AskedMode, int] = {
    "unspecified": 0,
    "native": uapi.XDP_FLAGS_DRV_MODE,
    "skb": uapi.XDP_FLAGS_SKB_MODE,
    "hw": uapi.XDP_FLAGS_HW_MODE,
}

Done = tuple[str, str, dict[str, int]]
"""A step: its number, its text, the ids that it used."""


class LostRace(Exception):  # noqa: N818 - not an error: observe again
    """The interface is not as it was observed."""


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
        self.interface, self.plan, self.paths = interface, plan, paths
        self.old, self.closing = old, closing
        self.flags = MODE_FLAGS[plan.mode]
        self.link = self.expected = 0
        if old is not None:
            try:
                if plan.attach == "link":
                    adopted = plan.adopts and old.link_id
                    self.link = libbpf.link_fd(adopted) if adopted else libbpf.get(paths.root_link)
                    closing.callback(os.close, self.link)
                self.expected = libbpf.prog_fd(old.id)
                closing.callback(os.close, self.expected)
            except KernelError as error:
                raise LostRace from error

    def adopt(self, undo: contextlib.ExitStack) -> None:
        """Pin the link of another's program: without a pin the chain would go with its owner."""
        self.note_adopted(undo)
        with pin.failing("pin the root link at", self.paths.root_link):
            undo.callback(pin.remove, self.paths.root_link)
            libbpf.pin(self.link, self.paths.root_link)

    def note_adopted(self, undo: contextlib.ExitStack) -> None:
        """Note that the link is another's, for a crash before it is pinned or let go.

        It is told apart by that from a link of ours that somebody gave a program.
        """
        with pin.failing("make a record in", self.paths.bpffs.path):
            undo.callback(pin.remove, self.paths.adopting)
            os.symlink(str(libbpf.link_info(self.link).id), self.paths.adopting)

    def flip(self, root_fd: int, root_id: int) -> Done:
        """Do what the plan says. Raises LostRace, or why the kernel refuses."""
        flips: dict[str, Callable[[int, int], Done]] = {
            "attach": self.attach,
            "update": self.update,
            "detach": self.detach,
        }
        with self._refusals(self.plan.flip):
            return flips[self.plan.flip](root_fd, root_id)

    def attach(self, root_fd: int, root_id: int) -> Done:
        """Attach the first root; in generic mode if the driver refuses and no mode was asked."""
        try:
            return self._attach(root_fd, root_id)
        except KernelError as error:
            if self.plan.mode != "unspecified" or error.errno not in refusal.DRIVERS:
                raise
            self.flags = MODE_FLAGS["skb"]
            try:
                return self._attach(root_fd, root_id)
            except KernelError:
                raise error from None  # the driver's is the one to be told

    def _attach(self, root_fd: int, root_id: int) -> Done:
        ids = {"root": root_id}
        if self.plan.attach == "link":
            link = libbpf.link_xdp(root_fd, self.interface.ifindex, self.flags)
            self.closing.callback(os.close, link)
            ids["root_link"] = libbpf.link_info(link).id
            # Not pinned, it falls with this process, and the interface is as before.
            with pin.failing("pin the root link at", self.paths.root_link):
                libbpf.pin(link, self.paths.root_link)
        else:
            libbpf.xdp_attach(self.interface.ifindex, root_fd, self.flags)
        return "1'", f"attached X to {self.interface.name}", ids

    def update(self, root_fd: int, root_id: int) -> Done:
        assert self.old is not None
        if self.plan.attach == "link":
            libbpf.link_update(self.link, root_fd, self.expected)
            text, ids = "updated the root link X → Y", {"root_link": self.old.link_id}
        else:
            libbpf.xdp_attach(self.interface.ifindex, root_fd, self.flags, self.expected)
            text, ids = "replaced the root X → Y", {}
        return "6", f"{text}: packets now run through Y", {**ids, "X": self.old.id, "Y": root_id}

    def detach(self, _root_fd: int, _root_id: int) -> Done:
        assert self.old is not None
        ids = {"X": self.old.id}
        if self.plan.attach == "link":
            libbpf.link_detach(self.link)
            ids["root_link"] = self.old.link_id
        else:
            libbpf.xdp_detach(self.interface.ifindex, self.flags, self.expected)
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
            changed = {errno.EBUSY, errno.EEXIST, errno.ENOENT, errno.ENOLINK}
            if self.plan.attach == "link":
                changed.add(errno.EPERM)  # not the program that was expected
            if error.errno in changed:
                if what == "attach":
                    refusal.check_relatives(self.interface, error)
                # Observed and planned anew: a program of another tool's is then named.
                raise LostRace from error
            raise refusal.explained(self.interface, self.plan, what, error) from error
