"""Python programs in processes of their own, without the seconds that Python takes to start.

In an emulated guest `python -m xdpctl` spends most of its time on imports. There a server that has
imported everything, and has done nothing else, forks for each such program. The process that
results is one of its own in all that a test can see: its arguments, environment, directory, umask,
limits, namespaces, signals, standard descriptors (it has no others), process id and exit status.
It is no child of the test process, though: only its Popen can wait for it.

`Program` is subprocess.Popen for such programs. It starts them as ever where there is no server:
on the machine's own kernel, with XDPCTL_SERVER=no, and whenever a command is not `python -m …`
or `python -c …`, as one behind strace, or needs something done between fork and exec.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import io
import json
import os
import pkgutil
import resource
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
import traceback
from typing import Any, NoReturn

NAMESPACES = ("net", "mnt")
LIMITS = (resource.RLIMIT_NOFILE, resource.RLIMIT_MEMLOCK, resource.RLIMIT_CORE, resource.RLIMIT_AS)
_server: list[str] = []
"""The server's address, once there is one."""


# --- the test's side ----------------------------------------------------------------------------


class Program(subprocess.Popen[Any]):
    """subprocess.Popen; `python -m …` and `-c …` come from the server if there is one."""

    _status: socket.socket | None = None

    def _execute_child(
        self, args: Any, executable: Any, preexec_fn: Any, close_fds: bool, pass_fds: Any,
        cwd: Any, env: Any, startupinfo: Any, creationflags: Any, shell: bool, *fds_and_more: Any,
    ) -> None:  # fmt: skip
        ours = args[0] == sys.executable and args[1] in ("-m", "-c")
        if not (_server and ours) or shell or preexec_fn or pass_fds:
            super()._execute_child(  # type: ignore[misc]
                args, executable, preexec_fn, close_fds, pass_fds, cwd, env, startupinfo,
                creationflags, shell, *fds_and_more,
            )  # fmt: skip
            return
        p2cread, _p2cwrite, _c2pread, c2pwrite, _errread, errwrite = fds_and_more[:6]
        self._status, self.pid = _ask(
            [str(word) for word in args[1:]],
            os.fspath(cwd or os.getcwd()),
            dict(os.environ if env is None else env),
            [p2cread if p2cread != -1 else 0, c2pwrite if c2pwrite != -1 else 1,
             errwrite if errwrite != -1 else 2],
        )  # fmt: skip
        self._child_created = True
        self._close_pipe_fds(*fds_and_more[:6])  # type: ignore[attr-defined]

    def _internal_poll(self, *args: Any, **options: Any) -> int | None:
        if self._status is None:
            result: int | None = super()._internal_poll(*args, **options)  # type: ignore[misc]
            return result
        if self.returncode is None and select.select([self._status], [], [], 0)[0]:
            self._take()
        return self.returncode

    def _wait(self, timeout: float | None) -> int:
        if self._status is None:
            result: int = super()._wait(timeout)  # type: ignore[misc]
            return result
        if self.returncode is None:
            if not select.select([self._status], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            self._take()
        return self.returncode

    def _take(self) -> None:
        assert self._status is not None
        self.returncode = os.waitstatus_to_exitcode(_number(self._status))
        self._status.close()


def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
    """subprocess.run() with captured text."""
    with Program(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    ) as program:
        out, err = program.communicate()
    return subprocess.CompletedProcess(command, program.returncode, out, err)


def _ask(
    words: list[str], cwd: str, env: dict[str, str], standard: list[int]
) -> tuple[socket.socket, int]:
    """Have the server start `python WORDS`; what its status comes over, and its process id."""
    request: dict[str, Any] = {"words": words, "cwd": cwd, "env": env}
    os.umask(umask := os.umask(0o77))
    request["umask"] = umask
    request["limits"] = [resource.getrlimit(limit) for limit in LIMITS]
    # As exec(2) has it: what is ignored stays so, but for what Popen restores.
    restored = {signal.SIGPIPE, signal.SIGXFSZ}
    ignored = [number for number in signal.valid_signals() - restored if _is_ignored(number)]
    request["ignored"] = [int(number) for number in ignored]
    request["blocked"] = [int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, ())]
    with contextlib.ExitStack() as stack:
        fds = list(standard)
        for name in NAMESPACES:
            fds.append(os.open(f"/proc/thread-self/ns/{name}", os.O_RDONLY))
            stack.callback(os.close, fds[-1])
        status = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        status.connect(_server[0])
        socket.send_fds(status, [b"x"], fds)
        status.sendall(json.dumps(request).encode())
        status.shutdown(socket.SHUT_WR)
        return status, _number(status)


def _is_ignored(number: int) -> bool:
    return signal.getsignal(number) == signal.SIG_IGN


def _number(status: socket.socket) -> int:
    told = status.recv(4, socket.MSG_WAITALL)
    assert len(told) == 4, "the server of tests/kernel/served.py has failed: see its traceback"
    return int.from_bytes(told, "little")


def start() -> None:
    """Start the server; it ends with this process."""
    address = f"\0xdpctl-served-{os.getpid()}"
    alive, held = os.pipe()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(address)
        listener.listen(64)
        fds = (listener.fileno(), alive)
        # It returns as soon as the server proper, no child of this process, has imported all.
        command = [sys.executable, "-m", "tests.kernel.served", *map(str, fds)]
        subprocess.run(command, pass_fds=fds, check=True)
    os.close(alive)
    os.set_inheritable(held, False)
    _server.append(address)


# --- the server ---------------------------------------------------------------------------------


def serve(listener: socket.socket, alive: int) -> None:
    """Fork for whoever connects, until the other end of `alive` is closed.

    Who connected is told the process id of its program, and in the end its status.
    """
    running: dict[int, tuple[int, socket.socket]] = {}  # by pidfd
    sources = select.poll()
    sources.register(listener, select.POLLIN)
    sources.register(alive, select.POLLHUP)
    while True:
        ready = [fd for fd, _events in sources.poll()]
        if alive in ready:
            return
        for fd in running.keys() & ready:
            sources.unregister(fd)
            pid, connection = running.pop(fd)
            os.close(fd)
            _tell(connection, os.waitpid(pid, 0)[1])
            connection.close()
        if listener.fileno() in ready:
            connection, _address = listener.accept()
            if not (pid := os.fork()):
                _become(connection)
            _tell(connection, pid)
            fd = os.pidfd_open(pid)
            running[fd] = pid, connection
            sources.register(fd, select.POLLIN)


def _tell(connection: socket.socket, number: int) -> None:
    # A test that was ended waits for no program of its own.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        connection.sendall(number.to_bytes(4, "little"))


def _become(connection: socket.socket) -> NoReturn:
    """Be the program that is asked for, as if it had just been started."""
    code = 1
    try:
        _x, fds, _flags, _address = socket.recv_fds(connection, 1, 8)
        request = json.loads(b"".join(iter(lambda: connection.recv(1 << 16), b"")))
        _arrange(request, fds)
        code = _run(request["words"])
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _arrange(request: dict[str, Any], fds: list[int]) -> None:
    for name, fd in zip(NAMESPACES, fds[3:], strict=True):
        if not os.path.samestat(os.fstat(fd), os.stat(f"/proc/self/ns/{name}")):
            _setns(fd)
    for number, fd in enumerate([os.dup(fd) for fd in fds[:3]]):
        os.dup2(fd, number)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    os.chdir(request["cwd"])
    os.umask(request["umask"])
    for limit, values in zip(LIMITS, request["limits"], strict=True):
        resource.setrlimit(limit, tuple(values))
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        if number in request["ignored"] or number in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_IGN)  # Python itself ignores the two
        elif number == signal.SIGINT:
            signal.signal(number, signal.default_int_handler)
        else:
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, request["blocked"])
    os.environ.clear()
    os.environ.update(request["env"])
    sys.path[0] = request["cwd"] if request["words"][0] == "-m" else ""
    names = (request["env"].get(name) for name in ("LC_ALL", "LC_CTYPE", "LANG"))
    plain = next(filter(None, names), "C") in ("C", "POSIX", "C.UTF-8")
    errors = "surrogateescape" if plain else "strict"
    sys.stdin = open(0, encoding="utf-8", errors=errors, closefd=False)  # noqa: SIM115
    at_once = bool(request["env"].get("PYTHONUNBUFFERED"))
    sys.stdout = io.TextIOWrapper(
        open(1, "wb", 0 if at_once else -1, closefd=False),  # noqa: SIM115
        encoding="utf-8",
        errors=errors,
        write_through=at_once,
    )
    sys.stderr = io.TextIOWrapper(
        open(2, "wb", 0, closefd=False),  # noqa: SIM115
        encoding="utf-8",
        errors="backslashreplace",
        write_through=True,
    )


def _setns(fd: int) -> None:
    import ctypes

    if ctypes.CDLL(None, use_errno=True).setns(fd, 0):
        raise OSError(ctypes.get_errno(), "setns")


def _run(words: list[str]) -> int:
    """Run a module as -m does, or text as -c does; the exit code."""
    sys.argv = words[1:] if words[0] == "-m" else ["-c", *words[2:]]
    code = 0
    try:
        if words[0] == "-m":
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        else:
            exec(compile(words[1], "<string>", "exec"), {"__name__": "__main__"})
    except SystemExit as end:
        if isinstance(end.code, int):
            code = end.code
        elif end.code is not None:
            print(end.code, file=sys.stderr)
            code = 1
    except KeyboardInterrupt:
        traceback.print_exc()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    except BaseException:
        traceback.print_exc()
        code = 1
    threading._shutdown()  # type: ignore[attr-defined] # wait for threads, as Python does at its end
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
    except (OSError, ValueError) as error:
        print(f"Exception ignored in: {sys.stdout!r}\n{error}", file=sys.stderr)
        code = 120
    return code & 0xFF


def main(listener: int, alive: int) -> None:
    import tests.kernel.api_holder
    import tests.kernel.foreign_holder  # noqa: F401
    import xdpctl

    for module in pkgutil.walk_packages(xdpctl.__path__, "xdpctl."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    if os.fork():
        os._exit(0)  # it is ready
    # What a collection looked at would be copied for each program.
    gc.collect()
    gc.freeze()
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    serve(socket.socket(fileno=listener), alive)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
