"""Chains kept true for as long as this runs: `xdpctl watch`, fit for a systemd service."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import socket
import struct
from collections.abc import Callable, Collection, Iterable, Iterator

from ..bpffs.homes import interfaces_of
from ..bpffs.mount import Bpffs
from ..errors import Interrupted, KernelError, RaceError, VanishedError
from ..host import interfaces, signals
from ..host.holders import holders
from ..host.service import notify
from ..kernel import libc
from ..kernel.records import Handle
from ..model.state import State
from ..observe.reading import Views, observe
from .sweep import Event, tend

_RTMGRP_LINK, _RTM_NEWLINK = 1, 16
_TOLD = struct.Struct("=IH14xi")
"""The length and type in a struct nlmsghdr, and the number in the struct ifinfomsg behind it."""
_EAGER = (0.05, 0.2, 0.5, 1.0)
"""Seconds between looks after an event: the kernel takes a while to let go of what is gone."""


Keep = Callable[[Collection[int] | None], Iterable[Event]]
"""What changes chains besides: called with the numbers of the interfaces of this namespace that the
kernel told of since the last time, or None where it may have told of others."""


def watch(
    bpffs: Bpffs,
    interval: float,
    tell: Callable[[Event], None],
    keep: Keep = lambda _told: (),
) -> None:
    """Tend all chains, at once after an event and else each `interval` seconds; ends by a signal.

    Before each time `keep` is called, and while chains are tended, if the kernel tells of
    interfaces. An event that stays the same, such as a failure, is told once.
    """
    with contextlib.ExitStack() as closing:
        watched = _Watch(bpffs, tell, keep, _Changes(closing))
        eager: list[float] = []
        ready = False
        with contextlib.suppress(Interrupted):
            while True:
                signals.release()
                watched.look()
                if not ready:
                    notify("READY=1")
                    ready = True
                signals.release()
                if watched.changes.wait(min([interval, *eager[:1]])):
                    eager = list(_EAGER)
                else:
                    del eager[:1]
        notify("STOPPING=1")


class _Watch:
    """One look after another."""

    def __init__(
        self, bpffs: Bpffs, tell: Callable[[Event], None], keep: Keep, changes: _Changes
    ) -> None:
        self.changes = changes
        self._bpffs, self._tell, self._keep = bpffs, tell, keep
        self._start = interfaces.current()
        self._last: set[Event] = set()
        self._events: set[Event] = set()

    def look(self) -> None:
        self._last, self._events = self._events, set()
        self._note(self._keep(self.changes.told()))
        # Before the look: what has ended by then it sees, what ends later is an event.
        views = Views()
        self.changes.follow(self._owners(views))
        self._note(tend(self._bpffs, views, self._catch_up))

    def _note(self, found: Iterable[Event]) -> None:
        for event in found:
            if event not in self._last | self._events:
                self._tell(event)
            self._events.add(event)

    def _catch_up(self) -> None:
        """What appears while many interfaces are looked at does not wait for the end of that."""
        if self.changes.hear() and interfaces.current() == self._start:
            self._note(self._keep(self.changes.told()))

    def _owners(self, views: Views) -> set[int]:
        """The processes whose end changes a chain."""
        pids: set[int] = set()
        unpinned: list[Handle] = []
        for interface in interfaces_of(self._bpffs):
            self._catch_up()
            with contextlib.suppress(VanishedError, RaceError, KernelError):
                state: State = observe(interface, self._bpffs, view=views.of(interface))
                for slot in state.root.slots if state.root else ():
                    if slot.origin:
                        pids.add(slot.origin.pid)
                    elif slot.handle and not slot.pin:
                        unpinned.append(slot.handle)
        if unpinned:
            pids.update(one.pid for found in holders(unpinned).values() for one in found)
        return pids - {0}


class _Changes:
    """What tells that something may have changed: interfaces, named namespaces, processes."""

    def __init__(self, closing: contextlib.ExitStack) -> None:
        self._closing = closing
        self._links = closing.enter_context(
            socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK)
        )
        self._links.bind((0, _RTMGRP_LINK))
        self._numbers: set[int] | None = None
        self._heard = False
        self._readable = [_signals(closing)]
        self._namespaces = False
        self._processes: dict[int, int] = {}
        self._ended: set[int] = set()
        closing.callback(self.follow, set())

    def told(self) -> set[int] | None:
        """The numbers of the interfaces that the kernel told of since; None at first, and if it
        told of more than there was room for.
        """
        self.hear()
        numbers, self._numbers = self._numbers, set()
        return numbers

    def hear(self) -> bool:
        """Read what the kernel tells of interfaces; whether there is something that told() has."""
        with contextlib.suppress(BlockingIOError):
            while True:
                try:
                    found = set(_numbers(self._links.recv(1 << 16)))
                except OSError as error:
                    if error.errno != errno.ENOBUFS:
                        raise
                    self._numbers, self._heard = None, True
                else:
                    self._heard = True
                    if self._numbers is not None:
                        self._numbers |= found
        return self._numbers is None or bool(self._numbers)

    def follow(self, pids: set[int]) -> None:
        """Hear of the end of some processes, and of no others."""
        self._ended &= pids
        for pid in set(self._processes) - pids:
            os.close(self._processes.pop(pid))
        for pid in pids - set(self._processes) - self._ended:
            with contextlib.suppress(OSError):
                self._processes[pid] = os.pidfd_open(pid)

    def wait(self, seconds: float) -> bool:
        """Wait until something happens; whether it did within a time, or since the last wait."""
        self.hear()
        if not self._namespaces and os.path.isdir(interfaces.NAMED):
            # Made by the first `ip netns add`; there is a limit to inotify instances.
            with contextlib.suppress(KernelError):
                self._readable.append(libc.inotify([interfaces.NAMED]))
                self._closing.callback(os.close, self._readable[-1])
            self._namespaces = True
        waiting = select.poll()
        for fd in (self._links.fileno(), *self._readable, *self._processes.values()):
            waiting.register(fd, select.POLLIN)
        ready = [fd for fd, _event in waiting.poll(0 if self._heard else seconds * 1000)]
        for fd in self._readable:
            if fd in ready:
                with contextlib.suppress(OSError):  # it is enough that there was something
                    os.read(fd, 1 << 20)
        for pid, fd in list(self._processes.items()):
            if fd in ready:
                os.close(self._processes.pop(pid))
                self._ended.add(pid)
        heard, self._heard = self._heard, False
        return bool(ready) or heard


def _numbers(data: bytes) -> Iterator[int]:
    """The numbers of the interfaces that messages of rtnetlink(7) tell of as being there."""
    place = 0
    while place + _TOLD.size <= len(data):
        length, kind, number = _TOLD.unpack_from(data, place)
        if kind == _RTM_NEWLINK:
            yield number
        place += max(length + 3 & ~3, _TOLD.size)


def _signals(closing: contextlib.ExitStack) -> int:
    """A descriptor that tells of a signal, also of one that comes just before a wait begins."""
    reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    closing.callback(os.close, reading)
    closing.callback(os.close, writing)
    with contextlib.suppress(ValueError):  # not the main thread, which no signal interrupts
        before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        closing.callback(signal.set_wakeup_fd, before)
    return reading
