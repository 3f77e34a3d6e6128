"""The server of served.py: what it starts is as if Python had been started, in all that is seen."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel import net, served
from tests.kernel.conftest import one_guest

pytestmark = [one_guest, pytest.mark.usefixtures("server")]
LOOK = """if True:
    import json, os, resource, signal, sys
    umask = os.umask(0)
    print(json.dumps({
        "argv": sys.argv,
        "cwd": os.getcwd(),
        "path": sys.path[0],
        "env": dict(os.environ),
        "fds": sorted(os.listdir("/proc/self/fd"), key=int)[:4],
        "umask": umask,
        "limit": resource.getrlimit(resource.RLIMIT_NOFILE),
        "net": os.stat("/proc/self/ns/net").st_ino,
        "mnt": os.stat("/proc/self/ns/mnt").st_ino,
        "signals": [str(signal.getsignal(one)) for one in sorted(signal.valid_signals())],
        "blocked": sorted(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, ()))),
        "tty": [os.isatty(one) for one in range(3)],
        "name": open("/proc/self/comm").read(),
        "streams": [(one.encoding, one.errors) for one in (sys.stdout, sys.stderr)],
        "loaded": "pytest" in sys.modules,
    }))
"""


@pytest.fixture(scope="module")
def server() -> Iterator[None]:
    """The server: that of the guest, or one for this module."""
    own = not served._server
    if own:
        served.start()
    yield
    if own:
        served._server.clear()


def both(command: list[str], **options: object) -> tuple[tuple[int, str, str], ...]:
    """What a command gives that Python runs, and one that the server forks."""
    found = []
    for program in (subprocess.Popen, served.Program):
        with program(  # type: ignore[call-overload]
            [sys.executable, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **options,
        ) as child:
            out, err = child.communicate("words")
        found.append((child.returncode, out, err))
    return tuple(found)


def test_it_is_like_one_that_was_started(tmp_path: Path) -> None:
    """Also in another namespace, with other limits, and with signals ignored and blocked."""
    command = ["-c", LOOK, "one", "tw o"]
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
    umask = os.umask(0o27)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (200, limits[1]))
        with net.NetNs() as there, there:
            started, forked = both(command, cwd=tmp_path, env={"A": "b", "LANG": "C.UTF-8"})
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        os.umask(umask)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGHUP, before)
    assert (started[0], started[2]) == (forked[0], forked[2]) == (0, "")
    assert json.loads(started[1]) == json.loads(forked[1])
    assert json.loads(forked[1])["umask"] == 0o27


@pytest.mark.parametrize(
    "text",
    [
        "import sys; sys.exit(7)",
        "import sys; sys.exit('why')",
        "import os, signal; os.kill(os.getpid(), signal.SIGTERM)",
        "import os, signal; os.kill(os.getpid(), signal.SIGINT)",
        "import sys; print(sys.stdin.read())",
        "import atexit; atexit.register(print, 'the end')",
        "import threading, time; threading.Timer(0.2, print, ['later']).start()",
        "print('to nobody'); import os; os.close(1)",
    ],
)
def test_it_ends_as_one_that_was_started(text: str) -> None:
    started, forked = both(["-c", text])
    assert started[:2] == forked[:2]
    assert bool(started[2]) == bool(forked[2])


def test_an_error_is_told() -> None:
    started, forked = both(["-c", "1/0"])
    assert started[0] == forked[0] == 1
    for one in (started, forked):
        assert one[2].endswith("ZeroDivisionError: division by zero\n")


def test_a_module_gets_its_words() -> None:
    started, forked = both(["-m", "xdpctl", "nonsense"], cwd=Path(__file__).parents[2])
    assert started == forked
    assert started[0] == 2


def test_signals_reach_it() -> None:
    """By its process id, which is its own."""
    text = "import os, sys, time; print(os.getpid(), flush=True); time.sleep(60)"
    with served.Program([sys.executable, "-c", text], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout
        assert int(child.stdout.readline()) == child.pid != os.getpid()
        assert child.poll() is None
        with pytest.raises(subprocess.TimeoutExpired):
            child.wait(0.1)
        child.kill()
        assert child.wait(30) == -signal.SIGKILL
