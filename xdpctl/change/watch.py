"""Chains kept true for as long as this runs: `xdpctl watch`, fit for a systemd service."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
from collections.abc import Callable, Iterable

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

_RTMGRP_LINK = 1
_EAGER = (0.05, 0.2, 0.5, 1.0)
"""Seconds between looks after an event: the kernel takes a while to let go of what is gone."""


def watch(
    bpffs: Bpffs,
    interval: float,
    tell: Callable[[Event], None],
    keep: Callable[[], Iterable[Event]] = lambda: (),
) -> None:
    """Tend all chains, at once after an event and else each `interval` seconds; ends by a signal.

    Before each time `keep` is called, which may change chains. An event that stays the same, such
    as a failure, is told once.
    """
    with contextlib.ExitStack() as closing:
        changes = _Changes(closing)
        last: set[Event] = set()
        eager: list[float] = []
        ready = False
        with contextlib.suppress(Interrupted):
            while True:
                signals.release()
                kept = list(keep())
                # Before the look: what has ended by then it sees, what ends later is an event.
                views = Views()
                changes.follow(_owners(bpffs, views))
                if not ready:
                    notify("READY=1")
                    ready = True
                events = [*kept, *tend(bpffs, views)]
                for event in events:
                    if event not in last:
                        tell(event)
                last = set(events)
                signals.release()
                if changes.wait(min([interval, *eager[:1]])):
                    eager = list(_EAGER)
                else:
                    del eager[:1]
        notify("STOPPING=1")


class _Changes:
    """What tells that something may have changed: interfaces, named namespaces, processes."""

    def __init__(self, closing: contextlib.ExitStack) -> None:
        self._closing = closing
        links = closing.enter_context(
            socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK)
        )
        links.bind((0, _RTMGRP_LINK))
        self._readable = [links.fileno(), _signals(closing)]
        self._namespaces = False
        self._processes: dict[int, int] = {}
        self._ended: set[int] = set()
        closing.callback(self.follow, set())

    def follow(self, pids: set[int]) -> None:
        """Hear of the end of some processes, and of no others."""
        self._ended &= pids
        for pid in set(self._processes) - pids:
            os.close(self._processes.pop(pid))
        for pid in pids - set(self._processes) - self._ended:
            with contextlib.suppress(OSError):
                self._processes[pid] = os.pidfd_open(pid)

    def wait(self, seconds: float) -> bool:
        """Wait until something happens; whether it did within a time."""
        if not self._namespaces and os.path.isdir(interfaces.NAMED):
            # Made by the first `ip netns add`; there is a limit to inotify instances.
            with contextlib.suppress(KernelError):
                self._readable.append(libc.inotify([interfaces.NAMED]))
                self._closing.callback(os.close, self._readable[-1])
            self._namespaces = True
        waiting = select.poll()
        for fd in (*self._readable, *self._processes.values()):
            waiting.register(fd, select.POLLIN)
        ready = [fd for fd, _event in waiting.poll(seconds * 1000)]
        for fd in self._readable:
            if fd in ready:
                with contextlib.suppress(OSError):  # it is enough that there was something
                    os.read(fd, 1 << 20)
        for pid, fd in list(self._processes.items()):
            if fd in ready:
                os.close(self._processes.pop(pid))
                self._ended.add(pid)
        return bool(ready)


def _signals(closing: contextlib.ExitStack) -> int:
    """A descriptor that tells of a signal, also of one that comes just before a wait begins."""
    reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    closing.callback(os.close, reading)
    closing.callback(os.close, writing)
    with contextlib.suppress(ValueError):  # not the main thread, which no signal interrupts
        before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        closing.callback(signal.set_wakeup_fd, before)
    return reading


def _owners(bpffs: Bpffs, views: Views) -> set[int]:
    """The processes whose end changes a chain."""
    pids: set[int] = set()
    unpinned: list[Handle] = []
    for interface in interfaces_of(bpffs):
        with contextlib.suppress(VanishedError, RaceError, KernelError):
            state: State = observe(interface, bpffs, view=views.of(interface))
            for slot in state.root.slots if state.root else ():
                if slot.origin:
                    pids.add(slot.origin.pid)
                elif slot.handle and not slot.pin:
                    unpinned.append(slot.handle)
    if unpinned:
        pids.update(one.pid for found in holders(unpinned).values() for one in found)
    return pids - {0}
