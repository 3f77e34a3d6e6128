"""A stepping parent: lets a command run up to any of its system calls, and ends it there.

The command runs in a fork of the test process, whose modules are loaded already, so that its system
calls are the command's own and about the same in each run. What the command forks in its turn is
not traced; it outlives the command as it would anywhere, and every way out of here waits for it.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import platform
import signal
import struct
import sys
import time
import traceback
from collections.abc import Callable, Container, Iterator
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

ENDING = (signal.SIGHUP, signal.SIGTERM, signal.SIGINT)
BLOCKED = 99
"""The exit code of a command that leaves one of the signals blocked."""

# ptrace(2) and prctl(2), under their names in <linux/ptrace.h>, <linux/elf.h> and <linux/prctl.h>
PTRACE_TRACEME, PTRACE_CONT, PTRACE_SYSCALL, PTRACE_SETOPTIONS = 0, 7, 24, 0x4200
PTRACE_GETREGSET, PTRACE_SETREGSET, PTRACE_GET_SYSCALL_INFO = 0x4204, 0x4205, 0x420E
PTRACE_O_TRACESYSGOOD, PTRACE_O_EXITKILL = 1, 1 << 20
PTRACE_SYSCALL_INFO_ENTRY = 1
NT_PRSTATUS, NT_ARM_SYSTEM_CALL = 1, 0x404
PR_SET_CHILD_SUBREAPER = 36

_SYSCALL_STOP = signal.SIGTRAP | 0x80


class Registers(NamedTuple):
    """Where a machine has the number of a system call and its result, each in a set of registers.

    As the set, the offset in it, and a format of struct's.
    """

    number: tuple[int, int, str]
    result: tuple[int, int, str]


_REGISTERS = {
    "x86_64": Registers((NT_PRSTATUS, 15 * 8, "=q"), (NT_PRSTATUS, 10 * 8, "=q")),  # orig_rax, rax
    "aarch64": Registers((NT_ARM_SYSTEM_CALL, 0, "=i"), (NT_PRSTATUS, 0, "=q")),  # x0
}
CAN_FAIL = platform.machine() in _REGISTERS
"""Whether a system call can be made to fail here."""
# What a newer machine has only in a form that takes a directory goes by the old name here.
_NUMBERS = {
    "x86_64": {
        "read": 0,
        "write": 1,
        "close": 3,
        "lseek": 8,
        "mmap": 9,
        "munmap": 11,
        "brk": 12,
        "rt_sigaction": 13,
        "rt_sigprocmask": 14,
        "nanosleep": 35,
        "recvmsg": 47,
        "socketpair": 53,
        "clone": 56,
        "wait4": 61,
        "flock": 73,
        "getcwd": 79,
        "rename": 82,
        "mkdir": 83,
        "rmdir": 84,
        "unlink": 87,
        "symlink": 88,
        "readlink": 89,
        "getdents64": 217,
        "openat": 257,
        "newfstatat": 262,
        "getrandom": 318,
        "bpf": 321,
        "membarrier": 324,
    },
    "aarch64": {
        "getcwd": 17,
        "flock": 32,
        "mkdir": 34,
        "unlink": 35,  # with a flag, of a directory
        "symlink": 36,
        "rename": 38,
        "openat": 56,
        "close": 57,
        "getdents64": 61,
        "lseek": 62,
        "read": 63,
        "write": 64,
        "readlink": 78,
        "newfstatat": 79,
        "nanosleep": 101,
        "rt_sigaction": 134,
        "rt_sigprocmask": 135,
        "socketpair": 199,
        "recvmsg": 212,
        "brk": 214,
        "munmap": 215,
        "clone": 220,
        "mmap": 222,
        "wait4": 260,
        "getrandom": 278,
        "bpf": 280,
        "membarrier": 283,
    },
}
_NAMES = {number: name for name, number in _NUMBERS.get(platform.machine(), {}).items()}
READS = {
    *("read", "lseek", "getcwd", "readlink", "getdents64", "openat", "newfstatat"),
    *("mmap", "munmap", "brk", "getrandom", "nanosleep", "rt_sigaction", "rt_sigprocmask"),
}
"""Calls after which nothing is different for any other process."""

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.restype = ctypes.c_long
_libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)


def _ptrace(request: int, pid: int, address: int | None = None, data: int | None = None) -> int:
    result: int = _libc.ptrace(request, pid, address, data)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"ptrace({request:#x}): {os.strerror(code)}")
    return result


@contextlib.contextmanager
def adopting() -> Iterator[None]:
    """Processes that lose their parent in the block become children of this one; all end in it."""
    _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        # Until the last has ended: one that forks again and ends would lose its child to init.
        with contextlib.suppress(ChildProcessError):
            while True:
                os.waitpid(-1, 0)
        _libc.prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def spawn(action: Callable[[], int], output: Path | None = None, *, traced: bool = False) -> int:
    """Fork a process that does `action` and exits with its result; returns its process id.

    What it says goes to `output`. Outside of a command line, which handles them, the signals that
    end a command do nothing to it.
    """
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        gc.freeze()
        said = os.open(output or os.devnull, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(said, 1)
        os.dup2(said, 2)
        sys.stdout = sys.stderr = open(said, "w")  # noqa: SIM115 - open as long as the process
        for number in ENDING:
            signal.signal(number, lambda _number, _frame: None)
        if traced:
            _ptrace(PTRACE_TRACEME, 0)
            os.kill(os.getpid(), signal.SIGSTOP)
        code = action()
        if signal.pthread_sigmask(signal.SIG_BLOCK, ()):
            code = BLOCKED
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


class Stepped:
    """A process that stops before and after each of its system calls, as a context manager."""

    def __init__(self, action: Callable[[], int], output: Path | None = None) -> None:
        self._stack = contextlib.ExitStack()
        self._stack.enter_context(adopting())
        self.code: int | None = None
        """How it ended: its exit code, or 128 and the signal that killed it."""
        self.boundary = 0
        self.entering = False
        self.number = -1
        """Of the system call that it is at."""
        self.pid = spawn(action, output, traced=True)
        assert self._wait() == signal.SIGSTOP
        _ptrace(PTRACE_SETOPTIONS, self.pid, None, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL)

    def _wait(self) -> int:
        """The signal that it stopped by; 0 if it has ended."""
        _pid, status = os.waitpid(self.pid, 0)
        if os.WIFSTOPPED(status):
            return os.WSTOPSIG(status)
        code = os.waitstatus_to_exitcode(status)
        self.code = code if code >= 0 else 128 - code
        return 0

    def _resume(self, request: int) -> int:
        """Let it go on to a boundary or its end; signals on the way reach it."""
        stopped = 0
        while True:
            _ptrace(request, self.pid, None, stopped)
            stopped = self._wait()
            if stopped in (0, _SYSCALL_STOP):
                return stopped

    def step(self) -> bool:
        """Go on to the next boundary; False if it ended before."""
        if self.code is not None or not self._resume(PTRACE_SYSCALL):
            return False
        self.boundary += 1
        info = ctypes.create_string_buffer(88)  # struct ptrace_syscall_info
        _ptrace(PTRACE_GET_SYSCALL_INFO, self.pid, len(info), ctypes.addressof(info))
        self.entering = info.raw[0] == PTRACE_SYSCALL_INFO_ENTRY
        if self.entering:
            (self.number,) = struct.unpack_from("=q", info.raw, 24)
        return True

    def run_to_call(self, names: Container[str], nth: int) -> bool:
        """Go on to the entry of the nth call with one of these names; False if it ended before."""
        while nth and self.step():
            nth -= self.entering and self.call in names
        return not nth

    def run_to(self, boundary: int) -> bool:
        """Go on to the boundary of this number, counted from 1; False if it ended before."""
        while self.boundary < boundary:
            if not self.step():
                return False
        return True

    def finish(self) -> int:
        """Let it run to its end; how that was."""
        if self.code is None:
            self._resume(PTRACE_CONT)
        assert self.code is not None
        return self.code

    def send(self, *numbers: int) -> None:
        """Send signals, to be taken as it goes on."""
        for number in numbers:
            os.kill(self.pid, number)

    def fail(self, error: int) -> None:
        """Let the system call that is about to begin not happen, and give this error."""
        assert self.entering
        registers = _REGISTERS[platform.machine()]
        self._set(*registers.number, -1)
        assert self.step()
        self._set(*registers.result, -error)

    def _set(self, which: int, offset: int, form: str, value: int) -> None:
        """Set one register in a set of them."""
        buffer = ctypes.create_string_buffer(1024)
        vector = (ctypes.c_size_t * 2)(ctypes.addressof(buffer), len(buffer))  # struct iovec
        _ptrace(PTRACE_GETREGSET, self.pid, which, ctypes.addressof(vector))
        struct.pack_into(form, buffer, offset, value)
        _ptrace(PTRACE_SETREGSET, self.pid, which, ctypes.addressof(vector))

    @property
    def call(self) -> str:
        """The name of the system call that it is at, as far as names are known here."""
        return _NAMES.get(self.number, f"call {self.number}")

    @property
    def where(self) -> str:
        """The boundary in words."""
        return f"boundary {self.boundary}, {'before' if self.entering else 'after'} {self.call}"

    def kill(self) -> None:
        """SIGKILL; returns when it and what it forked are gone."""
        if self.code is None:
            os.kill(self.pid, signal.SIGKILL)
            while self._wait():
                pass
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.kill()


def boundaries(action: Callable[[], int]) -> list[tuple[str, bool]]:
    """What a command does: at each boundary the name of the call, and whether it is before it."""
    found = []
    with Stepped(action) as child:
        while child.step():
            found.append((child.call, child.entering))
        assert child.code == 0
    return found


def killed_after(action: Callable[[], int], seconds: float) -> bool:
    """SIGKILL a command after some time; whether it still ran."""
    with adopting():
        pid = spawn(action)
        time.sleep(seconds)
        os.kill(pid, signal.SIGKILL)
        _pid, status = os.waitpid(pid, 0)
        return os.WIFSIGNALED(status)


@contextlib.contextmanager
def workers(path: Path, *actions: Callable[[], int]) -> Iterator[list[int]]:
    """Run each action in a process of its own, all from the same moment on; yields their pids.

    At the end of the block it waits for them, and all that have not been killed have to succeed.
    """
    gate, opening = os.pipe()

    def waiting(action: Callable[[], int]) -> Callable[[], int]:
        def wait() -> int:
            os.close(opening)
            os.read(gate, 1)
            return action()

        return wait

    with adopting():
        logs = [path / f"worker{number}" for number in range(len(actions))]
        pids = [spawn(waiting(action), log) for action, log in zip(actions, logs, strict=True)]
        os.close(opening)
        os.close(gate)
        yield pids
        for pid, log in zip(pids, logs, strict=True):
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            assert code in (0, -signal.SIGKILL), log.read_text()
