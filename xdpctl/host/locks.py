"""Locks: flock(2) on directories, waited for with patience, their holders named.

The kernel drops such a lock with the process that holds it, however that ends. Who holds one is
read from /proc/locks (proc_locks(5)), so that there is no note of it which could be wrong.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable

from ..errors import LockTimeoutError
from ..value import Value
from .text import decoded, printable

DEFAULT_TIMEOUT = 60.0
"""Seconds."""

_QUIET = 0.5
"""Seconds of waiting that are not worth a word."""


def _say_nothing(_text: str) -> None:
    pass


class Patience(Value):
    """How long to wait for a lock, in seconds, and whom to tell that one waits."""

    seconds: float = DEFAULT_TIMEOUT
    tell: Callable[[str], None] = _say_nothing


def take(fd: int, what: str, patience: Patience) -> None:
    """Lock a descriptor. `what` is said to be locked; raises LockTimeoutError."""
    begin = time.monotonic()
    told = False
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waited = time.monotonic() - begin
        else:
            return
        if waited >= patience.seconds:
            raise LockTimeoutError(
                f"{what} is locked",
                why=f"{holder(fd)} holds the lock; waited {patience.seconds:g} s",
                hint="try again when it is done, or wait longer with --lock-timeout SECONDS",
            )
        if not told and waited > _QUIET:
            patience.tell(f"waiting for {what}, locked by {holder(fd)}")
            told = True
        time.sleep(min(0.005 + waited / 20, 0.05))


def drop(fd: int) -> None:
    """Unlock and close a descriptor.

    To close it is not enough: a child that another thread forked meanwhile would keep the lock.
    """
    with contextlib.suppress(OSError):
        fcntl.flock(fd, fcntl.LOCK_UN)
    os.close(fd)


def is_free(fd: int) -> bool:
    """Whether the lock is ours, or can be ours without waiting; it is then taken."""
    with contextlib.suppress(OSError):
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


def is_held(fd: int) -> bool:
    """Whether a process that can be seen holds the lock. Takes no lock itself."""
    return _holder_pid(fd) is not None


def holder(fd: int) -> str:
    """Who holds the lock, in words: ``process 4711 (xdpctl load eth0 a.o)``."""
    pid = _holder_pid(fd)
    if pid is None:
        return "a process that cannot be seen"
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = [decoded(word) for word in file.read().rstrip(b"\0").split(b"\0")]
    except OSError:
        return f"process {pid}"
    command = printable(" ".join(words))
    if not command:
        return f"process {pid}"
    return f"process {pid} ({command if len(command) <= 80 else command[:77] + '...'})"


def _holder_pid(fd: int) -> int | None:
    status = os.fstat(fd)
    device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}"
    wanted = f"{device}:{status.st_ino}"
    with open("/proc/locks", encoding="ascii") as locks:
        for line in locks:
            # 1: FLOCK  ADVISORY  WRITE 4711 00:2f:1234 0 EOF; those who wait have -> behind 1:
            fields = line.split()
            if fields[1] == "FLOCK" and fields[5] == wanted:
                return int(fields[4])
    return None
