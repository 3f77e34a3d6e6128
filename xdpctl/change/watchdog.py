"""A process that takes a change back unless somebody confirms it, whatever becomes of the command.

It is forked before the flip, in a session of its own, without a terminal and without any descriptor
of the command's; it stays in the network namespace. All that it knows stands in bpffs, so that
the next command does its work where it is killed.

Who waits for whom: the command starts the watchdog and dismisses it under the interface's lock, and
waits for it both times. So the watchdog takes no lock before it has answered, nor after it was
dismissed. Only where the command has ended without a word, and its lock with it, does the watchdog
take the lock to see whether the change is live.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import chain

from ..bpffs import homes
from ..bpffs.directory import InterfacePins
from ..bpffs.mount import Bpffs
from ..errors import Interrupted, KernelError, XdpctlError
from ..host import signals
from ..host.interfaces import Interface
from ..kernel import libc
from ..model.terms import Pending
from ..observe.reading import observe

NAME = "xdpctl-watchdog"
_CGROUP = "/sys/fs/cgroup/cgroup.procs"
_LOOK = 1.0
_AGAIN = 0.5
"""Seconds."""
_TRIES = 20
_RELEASED, _DISMISSED = b"!", b"-"
_PATIENCE = 10.0
"""Seconds for a watchdog that was dismissed to end: it may have been stopped (SIGSTOP)."""


TakeBack = Callable[[Bpffs, Interface, Pending], bool]
"""Goes back from a change that was not confirmed; False where it does not wait there any more."""


class Watchdog:
    """The watchdog of one change, as the command sees it."""

    def __init__(
        self, bpffs: Bpffs, interface: Interface, paths: InterfacePins, take_back: TakeBack
    ) -> None:
        """Start it, with the way back that it will go. Raises XdpctlError where that fails."""
        self._socket, theirs = socket.socketpair()
        self.pid = 0
        try:
            with theirs, signals.blocked():
                child = os.fork()
                if not child:
                    _become(theirs, bpffs, interface, paths, take_back)
            with contextlib.suppress(ChildProcessError):  # where SIGCHLD is ignored
                os.waitpid(child, 0)
            answer = self._socket.recv(16)
        except Interrupted:
            self.dismiss()
            raise
        except OSError as error:
            self._socket.close()
            raise XdpctlError(
                "cannot start the process that takes the change back", why=str(error)
            ) from error
        if not answer:
            self._socket.close()
            raise XdpctlError(
                "cannot start the process that takes the change back", why="it ended at once"
            )
        self.pid = int(answer)

    def release(self) -> None:
        """The change is live: from here on it is on its own."""
        with contextlib.suppress(OSError), self._socket:
            self._socket.send(_RELEASED)

    def dismiss(self) -> None:
        """There is no change, whatever is recorded of one: it ends; returns when it has."""
        with contextlib.suppress(OSError), self._socket:
            self._socket.settimeout(_PATIENCE)
            self._socket.send(_DISMISSED)
            self._socket.recv(1)


def _become(
    theirs: socket.socket,
    bpffs: Bpffs,
    interface: Interface,
    paths: InterfacePins,
    take_back: TakeBack,
) -> None:
    """In the child: fork once more, and never come back."""
    try:
        os.setsid()
        if os.fork():
            os._exit(0)
        # What the command had open is closed by number; no object may close such a number again.
        gc.disable()
        libc.set_name(NAME)
        told = os.dup2(theirs.fileno(), 3) if theirs.fileno() != 3 else 3
        null = os.open(os.devnull, os.O_RDWR)
        for number in (0, 1, 2):
            os.dup2(null, number)
        os.closerange(4, os.sysconf("SC_OPEN_MAX"))
        # A service manager that ends a session by its control group is not to find it there.
        with contextlib.suppress(OSError), open(_CGROUP, "w", encoding="ascii") as group:
            group.write("0")
        own = Bpffs(os.path.abspath(bpffs.path), replace(bpffs.patience, tell=lambda _text: None))
        directory = os.path.abspath(paths.directory)
        os.chdir("/")
        _Guard(told, own, interface, directory, take_back).run()
    finally:
        os._exit(0)


class _Guard:
    """The watchdog itself."""

    def __init__(
        self,
        told: int,
        bpffs: Bpffs,
        interface: Interface,
        directory: str,
        take_back: TakeBack,
    ) -> None:
        self.told, self.bpffs, self.interface = told, bpffs, interface
        self.take_it_back = take_back
        self.asked_to_end = signals.deaf()
        # By descriptor: the directory moves along with the interface.
        self.home = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self.changes: int | None = None  # there is a limit to them; without, one looks now and then
        with contextlib.suppress(KernelError):
            self.changes = libc.inotify([directory])
        os.write(told, str(os.getpid()).encode())

    def run(self) -> None:
        word = os.read(self.told, 1)
        if word == _DISMISSED or (not word and not self.is_live()):
            return  # there was no flip
        while pending := self.pending():
            if pending.left <= 0 or self.asked_to_end():
                self.take_back(pending)
                return
            self.wait(min(pending.left, _LOOK))

    def pending(self) -> Pending | None:
        """The record of our change, as long as it is there."""
        with contextlib.suppress(OSError):
            found = Pending.parse(os.readlink("confirm", dir_fd=self.home))
            return found if found and found.pid == os.getpid() else None
        return None

    def is_live(self) -> bool:
        """Whether the change came to its flip; the command is gone, and its lock with it."""
        with contextlib.suppress(XdpctlError, KernelError, OSError):
            with homes.of(self.bpffs, self.interface).locked():
                state = observe(self.interface, self.bpffs, locked=True)
            return state.pending is not None and state.pending == self.pending()
        return True  # cannot be told: look again at the end of the time

    def wait(self, seconds: float) -> None:
        waiting = select.poll()
        if self.changes is not None:
            waiting.register(self.changes, select.POLLIN)
        if waiting.poll(seconds * 1000) and self.changes is not None:
            os.read(self.changes, 65536)

    def take_back(self, pending: Pending) -> None:
        """Go back, and try again for as long as the change waits anywhere."""
        import syslog

        last, nowhere = "", 0
        while self.pending() and nowhere < _TRIES:
            try:
                nowhere += 1  # the interface may be on its way to another namespace, or gone
                for interface in self.candidates():
                    if self.take_it_back(self.bpffs, interface, pending):
                        syslog.syslog(
                            f"xdpctl: {interface.name}: not confirmed, went back to generation "
                            f"{pending.number}"
                        )
                        return
            except (XdpctlError, KernelError, OSError) as error:
                nowhere = nowhere if not os.path.isdir(self.bpffs.xdp) else 0
                if str(error) != last:
                    last = str(error)
                    syslog.syslog(syslog.LOG_ERR, f"xdpctl: {self.interface.name}: {last}")
            time.sleep(_AGAIN)

    def candidates(self) -> Iterator[Interface]:
        """Our interface; where it has moved, all that there are."""
        here = [self.interface] if self.interface.exists() else []
        return chain(here, homes.interfaces_of(self.bpffs))
