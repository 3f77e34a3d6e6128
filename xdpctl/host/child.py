"""Work that may crash or leave things behind, in a process of its own.

What it answers and the descriptors that it makes come back over a socket.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
from collections.abc import Callable
from typing import NoReturn

from .. import errors
from ..errors import BadObjectError, Interrupted, KernelError, XdpctlError
from ..kernel import libc
from . import signals
from .text import Json

_CPU_SECONDS = 120


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
    ours, theirs = socket.socketpair()
    pid = forked(lambda: _child(ours, theirs, work))
    theirs.close()
    with ours:
        ours.settimeout(limit)  # it answers at its end, and then at once
        fds: list[int] = []
        try:
            answer, fds, flags, _address = socket.recv_fds(ours, 65536, 250)
            if flags & socket.MSG_CTRUNC:  # the kernel drops what has no number here
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            for fd in fds:
                os.set_inheritable(fd, False)
            while chunk := ours.recv(65536):
                answer += chunk
        except BaseException:
            for fd in fds:
                os.close(fd)
            os.kill(pid, signal.SIGKILL)  # nobody waits for what it is at
            raise
        finally:
            _pid, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        raise BadObjectError(
            f"{path} is corrupt",
            why=f"{library} died on it by {signal.Signals(os.WTERMSIG(status)).name} "
            "(in a process of its own: nothing else was harmed)",
        )
    if not answer:
        raise XdpctlError(f"cannot handle {path}", why="the process that loads it gave no answer")
    try:
        message = json.loads(answer)
    except ValueError as error:
        raise XdpctlError(
            f"cannot handle {path}", why="the process that loads it could not give its answer"
        ) from error
    if "errno" in message:
        raise KernelError(message["call"], message["errno"], message["log"])
    if "failed" in message:
        raise getattr(errors, message["failed"])(**message["told"])
    if "unexpected" in message:
        raise XdpctlError(f"cannot handle {path}", why=message["unexpected"])
    return message["answer"], fds


def _child(
    parents: socket.socket, out: socket.socket, work: Callable[[], tuple[Json, list[int]]]
) -> None:
    import resource

    parents.close()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (_CPU_SECONDS, _CPU_SECONDS))
    fds: list[int] = []
    message: Json
    try:
        answer, fds = work()
        message = {"answer": answer}
    except KernelError as error:
        message = {"call": error.call, "errno": error.errno, "log": error.log[-(1 << 20) :]}
    except XdpctlError as error:
        told = {name: getattr(error, name) for name in ("what", "why", "hint", "details", "number")}
        message = {"failed": type(error).__name__, "told": told}
    except Exception as error:
        message = {"unexpected": f"{type(error).__name__}: {error}"}
    data = json.dumps(message).encode()
    # A descriptor travels with at least one byte of data.
    socket.send_fds(out, [data[:1]], fds)
    out.sendall(data[1:])
    os._exit(0)
