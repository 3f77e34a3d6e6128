"""A program that a Python process holds in a chain.

The process has the only lasting hold on the program's link: when it ends, however it ends, the
kernel takes the program out. A change of the chain by somebody else hooks the program onto the new
root and notes whose it is; the process then takes the new link over under the number of the old
one (dup2), so that the descriptor stays valid and means the new place.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
import weakref
from types import TracebackType
from typing import Self

from ..bpffs import homes, pin
from ..bpffs.directory import InterfacePins
from ..bpffs.mount import Bpffs
from ..change.transact import transact
from ..errors import KernelError, LockTimeoutError, NotFoundError, VanishedError, XdpctlError
from ..host.interfaces import Interface
from ..kernel import libbpf, libc, records, xdp
from ..kernel.descriptor import Descriptor
from ..kernel.link import Link
from ..kernel.program import Program
from ..model import labels
from ..model.request import Request
from ..model.terms import Terms
from ..observe.elsewhere import may_run_elsewhere
from ..observe.members import config_of
from ..observe.reading import observe
from . import maps

_LOOK_MS = 2000
"""No event tells that an interface is gone, so that one looks now and then."""


class Attachment:
    """A program's place in a chain, held by this process; made by `attach`.

    A context manager that detaches at its end. It ends when nobody refers to it any more, as a
    `bcc.BPF` does whose program it is: that one's `remove_xdp` detaches it. A forked child has no
    part in it: there the descriptor's number stays taken and means nothing.
    """

    def __init__(
        self, bpffs: Bpffs, interface: Interface, program_id: int, what: Descriptor
    ) -> None:
        self.interface = interface.name
        self.program_id = program_id
        self._bpffs, self._interface = bpffs, interface
        self._fd = what.handed_over()  # its number is the user's as well, who may close it
        self._mutex = threading.RLock()
        self._ended = threading.Event()
        self._null = False
        self._stop: int | None
        self._stop = stop = os.eventfd(0, os.EFD_CLOEXEC)
        _all.add(self)
        self._follower = threading.Thread(
            target=_follow_for_ever,
            args=(weakref.ref(self), stop, homes.of(bpffs, interface).directory),
            name=f"xdpctl-{program_id}",
            daemon=True,
        )
        self._follower.start()

    def __repr__(self) -> str:
        state = "" if self.attached else " (ended)"
        return f"<Attachment of program {self.program_id} to {self.interface}{state}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.detach()

    @property
    def attached(self) -> bool:
        """Whether the program is still in the chain."""
        self.follow()
        return not self._ended.is_set()

    @property
    def fd(self) -> int:
        """The descriptor of the link; its number never changes. Closing it ends the attachment.

        On a fused root there is no link: it is that of the program array which the root calls.
        """
        self.follow()
        return self._fd

    @property
    def slot(self) -> int | None:
        """The place of the program in the chain, from 0; None when it is not in it any more."""
        if not self.attached:
            return None
        try:
            state = observe(self._interface, self._bpffs)
        except VanishedError:
            return None
        for slot in state.root.slots if state.root else ():
            if slot.member and slot.member.id == self.program_id:
                return slot.number
        return None

    @property
    def maps(self) -> dict[str, maps.Map]:
        """The program's maps by name; raises NotFoundError when it is gone."""
        return maps.of_program(self.program_id)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until somebody takes the program out, or the interface goes; False after `timeout`.

        In seconds. Re-hooks are followed meanwhile.
        """
        return self._ended.wait(timeout)

    def detach(self) -> None:
        """Take the program out of the chain and close the descriptor; may be called again.

        Raises XdpctlError where the chain cannot be rebuilt without it. It is out all the same:
        packets pass by its slot until the next change closes the gap.
        """
        with self._mutex:
            try:
                if not self._ended.is_set():
                    with contextlib.suppress(NotFoundError, VanishedError):
                        transact(
                            self._bpffs,
                            self._interface,
                            lambda state: state.chain.without([self.program_id]),
                            Request(terms=Terms("detach")),
                        )
            finally:
                self._end()
                self._close()

    def __del__(self) -> None:
        self._close()

    # --- following ------------------------------------------------------------------------------

    def follow(self) -> None:
        """Take over a new link, if a change of the chain has made one."""
        with self._mutex:
            if self._ended.is_set() or not self._is_ours():
                self._ended.set()  # its user has closed the descriptor
                return
            with contextlib.suppress(LockTimeoutError):  # else at the next event
                self._follow()

    def _is_ours(self) -> bool:
        """Whether the descriptor is what it was, and nothing that its user put in its place."""
        return self._link() is not None

    def _follow(self) -> None:
        link = self._link()
        if link is None or self._live(link) == link.target:
            return
        home = self._home(link)
        # Nobody is in the middle of a change then, and nobody begins one.
        with home.locked():
            live = self._live(link)
            if live == link.target:
                return
            if live is None or not self._take_over(home, live, link):
                self._end()

    def _home(self, link: records.LinkInfo) -> InterfacePins:
        """Where the root's pins are; an interface that moves takes them along."""
        own = homes.of(self._bpffs, self._interface)
        for home in (own, *homes.every(self._bpffs)):
            for ifindex in home.ifindexes():
                found = home.with_ifindex(ifindex)
                roots = found.recorded()
                if link.target in roots:
                    return found
                for root_id in roots:
                    if any(one.link_id == link.id for one in found.borrowed(root_id).values()):
                        return found
        return own

    def _live(self, link: records.LinkInfo) -> int | None:
        """The root that the interface runs now, if there is one."""
        pinned = pin.pinned_link(self._home(link).root_link)
        if pinned:
            return pinned.prog_id if pinned.ifindex else None
        if self._interface.exists():
            return xdp.query(self._interface.ifindex)[0] or None
        return link.target if may_run_elsewhere(self._bpffs, link.target) else None

    def _take_over(self, home: InterfacePins, live: int, link: records.LinkInfo) -> bool:
        """Make the descriptor mean the link onto the live root; False where there is none."""
        for slot, origin in home.borrowed(live).items():
            new = pin.opened(home.link(live, slot), Link) if origin.link_id == link.id else None
            if new is None:
                continue
            with new:
                # A CPU may be in the old root still, if the change was cut short.
                libc.grace_period()
                # In this order: at each instant a holder is left, and no pin without an owner.
                with self._bpffs.pins_locked():
                    pin.remove(home.link(live, slot))
                if self._link():  # else its user has closed the descriptor meanwhile
                    os.dup2(new.fd, self._fd, inheritable=False)
            with self._bpffs.pins_locked():
                home.give_back(live, slot)
            return True
        return False

    def _link(self) -> records.LinkInfo | None:
        """The link behind the descriptor; None where that is something else by now."""
        try:
            link = libbpf.link_info(self._fd)
        except KernelError:
            return None
        return link if link.is_ext and link.prog_id == self.program_id else None

    def _end(self) -> None:
        """Let the link go; the number stays taken, as its user may still use it."""
        if self._is_ours():
            null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
            with libbpf.owned(null):
                os.dup2(null, self._fd, inheritable=False)
            self._null = True
        self._ended.set()

    def _close(self) -> None:
        # Once: then the number is anybody's, who may hold the same link or array by it.
        if self._null or (self._stop is not None and self._is_ours()):
            self._null = False
            os.close(self._fd)
        self._ended.set()
        if self._stop is not None:
            os.eventfd_write(self._stop, 1)
            self._stop = None

    def _forked(self) -> None:
        """In a child: the parent holds the program, and the parent alone."""
        self._mutex = threading.RLock()
        self._ended = threading.Event()
        self._end()
        if self._stop is not None:
            os.close(self._stop)
            self._stop = None


class ArrayAttachment(Attachment):
    """A program's place on a fused root: what is held is the program array that the root calls.

    Nothing is to be taken over in a change: the next root calls the same array.
    """

    def __init__(
        self, bpffs: Bpffs, interface: Interface, program_id: int, what: Descriptor
    ) -> None:
        self._array_id = libbpf.map_info(what.fd).id
        super().__init__(bpffs, interface, program_id, what)

    def _is_ours(self) -> bool:
        try:
            return libbpf.map_info(self._fd).id == self._array_id
        except KernelError:
            return False

    def _follow(self) -> None:
        if not self._is_called():
            with homes.of(self._bpffs, self._interface).locked():
                if not self._is_called():  # nor was a change under way while one looked
                    self._end()

    def _is_called(self) -> bool:
        """Whether a root that some interface runs calls the array."""
        for home in (homes.of(self._bpffs, self._interface), *homes.every(self._bpffs)):
            for root_id, attach in home.roots().items():
                if self._calls(root_id) and self._runs(home, root_id, attach):
                    return True
        return False

    def _calls(self, root_id: int) -> bool:
        with libbpf.absent_is_fine(), Program.by_id(root_id) as root:
            config = config_of(root.info)
            return config is not None and self._array_id in config.arrays
        return False

    def _runs(self, home: InterfacePins, root_id: int, attach: labels.Attach) -> bool:
        if attach == "link":
            link = pin.pinned_link(home.root_link)
            return link is not None and link.prog_id == root_id and link.ifindex != 0
        if self._interface.exists() and xdp.query(self._interface.ifindex)[0] == root_id:
            return True
        return may_run_elsewhere(self._bpffs, root_id)


_all: weakref.WeakSet[Attachment] = weakref.WeakSet()


def _after_fork() -> None:
    for attachment in _all:
        attachment._forked()


os.register_at_fork(after_in_child=_after_fork)


def _follow_for_ever(attachment: weakref.ref[Attachment], stop: int, directory: str) -> None:
    """The follower's thread: look whenever the interface's directory changes."""
    waiting = select.poll()
    waiting.register(stop, select.POLLIN)
    events = None  # there is a limit to them; without, one looks now and then
    with contextlib.suppress(KernelError):
        events = libc.inotify([directory])
        waiting.register(events, select.POLLIN)
    with (
        libbpf.owned(stop),
        libbpf.owned(events) if events is not None else contextlib.nullcontext(),
    ):
        while True:
            ready = [fd for fd, _event in waiting.poll(_LOOK_MS)]
            one = attachment()
            if one is None or stop in ready:
                break
            if events is not None and events in ready:
                os.read(events, 65536)
            with contextlib.suppress(XdpctlError, KernelError, OSError):
                one.follow()
            del one
