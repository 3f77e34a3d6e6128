"""The few system calls that Python lacks, through ctypes and libc."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable
from ctypes import c_char_p, c_size_t, c_void_p
from functools import cache

from ..errors import KernelError

MEMBARRIER_CMD_QUERY, MEMBARRIER_CMD_GLOBAL = 0, 1
CLONE_NEWNET = 0x40000000
PR_SET_PDEATHSIG, PR_SET_NAME = 1, 15
AT_FDCWD, RENAME_EXCHANGE = -100, 1 << 1
IN_MOVED_FROM, IN_MOVED_TO, IN_CREATE, IN_DELETE = 0x40, 0x80, 0x100, 0x200
IN_CHANGES = IN_MOVED_FROM | IN_MOVED_TO | IN_CREATE | IN_DELETE
SYS_MEMBARRIER = {"x86_64": 324, "aarch64": 283}


@cache
def lib() -> ctypes.CDLL:
    """libc, whose calls set the error number that ctypes keeps."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.vsnprintf.argtypes = [c_char_p, c_size_t, c_void_p, c_void_p]
    libc.syscall.restype = ctypes.c_long
    libc.fdopen.argtypes, libc.fdopen.restype = [ctypes.c_int, c_char_p], c_void_p
    libc.fclose.argtypes = [c_void_p]
    return libc


def grace_period() -> None:
    """Return when every CPU has left the BPF programs that it ran when this was called.

    membarrier(2) MEMBARRIER_CMD_GLOBAL waits for an RCU grace period; it is missing on kernels
    booted with nohz_full, where there is nothing as good and a generous sleep has to serve.
    """
    number = SYS_MEMBARRIER.get(os.uname().machine)
    if number is None or lib().syscall(number, MEMBARRIER_CMD_GLOBAL, 0, 0) < 0:
        import time

        time.sleep(0.25)


def membarrier_commands() -> int:
    """The commands that membarrier(2) knows here, a mask; 0 where it is missing."""
    number = SYS_MEMBARRIER.get(os.uname().machine)
    return 0 if number is None else max(lib().syscall(number, MEMBARRIER_CMD_QUERY, 0, 0), 0)


def exchange(one: str, other: str) -> None:
    """Exchange two files atomically; ENOENT where one of them is not there (renameat2(2))."""
    paths = os.fsencode(one), os.fsencode(other)
    if lib().renameat2(AT_FDCWD, paths[0], AT_FDCWD, paths[1], RENAME_EXCHANGE) < 0:
        raise KernelError("renameat2", ctypes.get_errno())


def inotify(paths: Iterable[str]) -> int:
    """A descriptor that tells of entries made, moved and removed in directories (inotify(7))."""
    fd: int = lib().inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
    for path in paths:
        if fd < 0 or lib().inotify_add_watch(fd, os.fsencode(path), IN_CHANGES) < 0:
            number = ctypes.get_errno()
            if fd >= 0:
                os.close(fd)
            raise KernelError("inotify", number)
    return fd


def mount(source: str, target: str, kind: str) -> None:
    """mount(2), without flags."""
    if lib().mount(source.encode(), os.fsencode(target), kind.encode(), 0, None) < 0:
        raise KernelError("mount", ctypes.get_errno())


def unmount(target: str) -> None:
    """umount(2)."""
    if lib().umount2(os.fsencode(target), 0) < 0:
        raise KernelError("umount2", ctypes.get_errno())


def unshare(flags: int) -> None:
    """unshare(2)."""
    if lib().unshare(flags) < 0:
        raise KernelError("unshare", ctypes.get_errno())


def die_with_parent() -> None:
    """Have the kernel kill this process when the thread that forked it ends (prctl(2))."""
    lib().prctl(PR_SET_PDEATHSIG, 9, 0, 0, 0)


def set_name(name: str) -> None:
    """What this process is called in /proc (prctl(2))."""
    lib().prctl(PR_SET_NAME, name.encode(), 0, 0, 0)
