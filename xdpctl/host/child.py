"""Work that may crash or leave things behind, in a process of its own.

What it answers and the descriptors that it makes come back over a socket.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import json
import os
import signal
import socket
import struct
import time
from collections.abc import Callable, Collection, Iterable
from typing import NoReturn, Self

from .. import errors
from ..errors import BadObjectError, Interrupted, KernelError, XdpctlError
from ..kernel import libc
from . import signals
from .text import Json

_CPU_SECONDS = 120
_LENGTH = struct.Struct("=I")
"""What stands before an answer: how many bytes it has."""


def forked(work: Callable[[], object]) -> int:
    """A child process that does some work and ends, with its parent at the latest; its id."""
    parent, pid = os.getpid(), 0
    try:
        # The interpreter drops what a handler raises in the middle of a fork.
        with signals.blocked():
            if not (pid := os.fork()):
                _run(parent, work)
    except Interrupted:
        if pid:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        raise
    return pid


def _run(parent: int, work: Callable[[], object]) -> NoReturn:
    """In the child, whose parent is the one that signals tell of; it never comes back."""
    # Nothing of the parent's clean-up may run here: whatever happens, this process just ends.
    try:
        for number in signals.ENDING:
            signal.signal(number, lambda _number, _frame: None)  # not ignored by what it starts
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        libc.die_with_parent()
        if os.getppid() == parent:
            work()
    finally:
        os._exit(70)


def in_child(
    path: str,
    work: Callable[[], tuple[Json, list[int]]],
    library: str = "libbpf",
    limit: float | None = None,
) -> tuple[Json, list[int]]:
    """Run `work` in a forked process; returns its answer (JSON values) and its descriptors.

    `library` is what works there on the file of a path. Raises KernelError and XdpctlError as
    `work` does, BadObjectError where it crashes, TimeoutError after a `limit` in seconds, else
    XdpctlError.
    """
    with Worker(path, lambda _question: work(), library) as worker:
        return worker.ask(limit=limit)


class Worker:
    """A forked process that works on the file of a path as often as it is asked to.

    One that is `keeping` some descriptors has no others of its parent's, whose locks and links it
    would keep, and none of what it made once that is handed over. As a context it is closed.
    """

    def __init__(
        self,
        path: str,
        work: Callable[[Json], tuple[Json, list[int]]],
        library: str = "libbpf",
        keeping: Collection[int] | None = None,
    ) -> None:
        self._path, self._library = path, library
        self._ours, theirs = socket.socketpair()
        ours = self._ours
        self._pid = forked(lambda: _serve(ours, theirs, work, keeping))
        theirs.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def ask(
        self, question: Json | None = None, limit: float | None = None
    ) -> tuple[Json, list[int]]:
        """Have it work once, as in_child() says. After BadObjectError it is gone."""
        fds: list[int] = []
        try:
            data = self._answer(json.dumps(question or {}).encode(), limit, fds)
        except BaseException:
            _close(fds)
            self._end(signal.SIGKILL)  # nobody waits for what it is at
            raise
        try:
            return self._told(data), fds
        except BaseException:
            _close(fds)
            raise

    def _answer(self, question: bytes, limit: float | None, fds: list[int]) -> bytes:
        """What it answers, and into `fds` the descriptors; nothing if it ends before it is done."""
        self._ours.settimeout(limit)  # it answers at its end, and then at once
        data = b""
        with contextlib.suppress(ConnectionError):
            self._ours.sendall(question + b"\n")
            head, found, flags, _address = socket.recv_fds(self._ours, _LENGTH.size, 250)
            fds += found
            if flags & socket.MSG_CTRUNC:  # the kernel drops what has no number here
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            for fd in fds:
                os.set_inheritable(fd, False)
            if len(head) < _LENGTH.size:
                return b""
            (length,) = _LENGTH.unpack(head)
            while len(data) < length:
                if not (chunk := self._ours.recv(length - len(data))):
                    return b""
                data += chunk
        return data

    def _told(self, data: bytes) -> Json:
        """What an answer says. Raises what it tells of."""
        status = 0 if data else self._end()
        if os.WIFSIGNALED(status):
            raise BadObjectError(
                f"{self._path} is corrupt",
                why=f"{self._library} died on it by {signal.Signals(os.WTERMSIG(status)).name} "
                "(in a process of its own: nothing else was harmed)",
            )
        if not data:
            raise XdpctlError(
                f"cannot handle {self._path}", why="the process that loads it gave no answer"
            )
        try:
            message = json.loads(data)
        except ValueError as error:
            raise XdpctlError(
                f"cannot handle {self._path}",
                why="the process that loads it could not give its answer",
            ) from error
        if "errno" in message:
            raise KernelError(message["call"], message["errno"], message["log"])
        if "failed" in message:
            raise getattr(errors, message["failed"])(**message["told"])
        if "unexpected" in message:
            raise XdpctlError(f"cannot handle {self._path}", why=message["unexpected"])
        answer: Json = message["answer"]
        return answer

    def _end(self, number: int = 0) -> int:
        """Wait for its end, with a signal if it is to be now; returns its status."""
        if not self._pid:
            return 0
        if number:
            os.kill(self._pid, number)
        _pid, status = os.waitpid(self._pid, 0)
        self._pid = 0
        return status

    def close(self) -> None:
        """Have it end; may be called again."""
        self._ours.close()
        self._end()


def _serve(
    parents: socket.socket,
    out: socket.socket,
    work: Callable[[Json], tuple[Json, list[int]]],
    keeping: Collection[int] | None,
) -> None:
    """In the child: an answer to each question, until nobody can ask any more."""
    import resource

    parents.close()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    most = _CPU_SECONDS if keeping is None else 100 * _CPU_SECONDS
    _limit, allowed = resource.getrlimit(resource.RLIMIT_CPU)
    if allowed != resource.RLIM_INFINITY:
        most = min(most, allowed)
    kept = None
    if keeping is not None:
        kept = {0, 1, 2, out.fileno(), *keeping}
        gc.disable()  # garbage of the parent's would close numbers that others have by now
    with out.makefile("rb") as questions:
        while True:
            if kept is not None:
                _close_others(kept)
            # The limit is for one answer, and counts from the beginning.
            enough = min(int(time.process_time()) + _CPU_SECONDS, most)
            resource.setrlimit(resource.RLIMIT_CPU, (enough, most))
            if not (question := questions.readline()):
                os._exit(0)
            message, fds = _answered(work, json.loads(question))
            data = json.dumps(message).encode()
            # A descriptor travels with at least one byte of data.
            socket.send_fds(out, [_LENGTH.pack(len(data))], fds)
            out.sendall(data)


def _answered(
    work: Callable[[Json], tuple[Json, list[int]]], question: Json
) -> tuple[Json, list[int]]:
    try:
        answer, fds = work(question)
        return {"answer": answer}, fds
    except KernelError as error:
        return {"call": error.call, "errno": error.errno, "log": error.log[-(1 << 20) :]}, []
    except XdpctlError as error:
        told = {name: getattr(error, name) for name in ("what", "why", "hint", "details", "number")}
        return {"failed": type(error).__name__, "told": told}, []
    except Exception as error:
        return {"unexpected": f"{type(error).__name__}: {error}"}, []


def _close(fds: Iterable[int]) -> None:
    for fd in fds:
        os.close(fd)


def _close_others(kept: Collection[int]) -> None:
    """Close all descriptors but some."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) not in kept:
            with contextlib.suppress(OSError):  # that of the listing itself
                os.close(int(name))
