"""xdpctl.host.locks: locks that other processes hold, for a while, for long and to their death."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.samples import locked_by_another
from xdpctl.errors import LockTimeoutError
from xdpctl.host import locks
from xdpctl.kernel import libbpf


@contextlib.contextmanager
def opened(directory: Path) -> Iterator[int]:
    with libbpf.owned(os.open(directory, os.O_RDONLY | os.O_CLOEXEC)) as fd:
        yield fd


def is_free(directory: Path) -> bool:
    """Whether somebody could take the lock now."""
    with opened(directory) as fd:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def test_a_free_lock_is_taken_at_once(tmp_path: Path) -> None:
    said: list[str] = []
    with opened(tmp_path) as fd:
        locks.take(fd, "eth0", locks.Patience(0, said.append))
        assert not is_free(tmp_path)
    assert is_free(tmp_path)
    assert said == []


@pytest.mark.parametrize("seconds", [0, 0.3])
def test_patience_ends_with_the_name_of_the_holder(tmp_path: Path, seconds: float) -> None:
    with locked_by_another(tmp_path) as holder, opened(tmp_path) as fd:
        begin = time.monotonic()
        with pytest.raises(LockTimeoutError) as caught:
            locks.take(fd, "eth0", locks.Patience(seconds))
        assert time.monotonic() - begin >= seconds
    error = caught.value
    assert error.exit_code == 13
    assert error.what == "eth0 is locked"
    command = " ".join([sys.executable, "-ISc"])
    assert error.why.startswith(f"process {holder.pid} ({command} ")
    assert error.why.endswith(f") holds the lock; waited {seconds} s")
    assert "--lock-timeout" in error.hint


def test_a_long_command_line_is_cut(tmp_path: Path) -> None:
    with locked_by_another(tmp_path), opened(tmp_path) as fd:
        command = locks.holder(fd).partition(" (")[2].removesuffix(")")
    assert len(command) == 80
    assert command.endswith("...")


def test_a_long_wait_is_told_once(tmp_path: Path) -> None:
    said: list[str] = []

    def tell(text: str) -> None:
        said.append(text)
        assert holder.stdin is not None
        threading.Timer(0.2, holder.stdin.close).start()

    with locked_by_another(tmp_path) as holder, opened(tmp_path) as fd:
        locks.take(fd, "eth0", locks.Patience(60, tell))
    (text,) = said
    assert text.startswith(f"waiting for eth0, locked by process {holder.pid} (")


def test_a_short_wait_is_not_worth_a_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "_QUIET", 30)
    said: list[str] = []
    with locked_by_another(tmp_path) as holder, opened(tmp_path) as fd:
        assert holder.stdin is not None
        end = threading.Timer(0.1, holder.stdin.close)
        end.start()
        locks.take(fd, "eth0", locks.Patience(60, said.append))
        end.join()
    assert said == []


def test_a_killed_holder_holds_no_longer(tmp_path: Path) -> None:
    with locked_by_another(tmp_path) as holder, opened(tmp_path) as fd:
        assert locks.is_held(fd)
        holder.kill()
        locks.take(fd, "eth0", locks.Patience(60))
        holder.wait()
        assert locks.holder(fd).startswith(f"process {os.getpid()} (")


def test_a_lock_is_seen_and_not_taken(tmp_path: Path) -> None:
    with opened(tmp_path) as fd:
        assert not locks.is_held(fd)
        assert is_free(tmp_path)
        with locked_by_another(tmp_path):
            assert locks.is_held(fd)
            assert locks.is_held(fd)
        assert not locks.is_held(fd)
        assert is_free(tmp_path)
        # Another directory's lock is another lock.
        (tmp_path / "other").mkdir()
        with locked_by_another(tmp_path / "other"):
            assert not locks.is_held(fd)


def test_who_waits_does_not_hold(tmp_path: Path) -> None:
    """/proc/locks lists those who wait beside the one who holds."""
    waiting = f"import fcntl, os; fcntl.flock(os.open({str(tmp_path)!r}, 0), fcntl.LOCK_EX)"
    with contextlib.ExitStack() as ending, opened(tmp_path) as fd:
        holder = ending.enter_context(locked_by_another(tmp_path))
        waiter = ending.enter_context(subprocess.Popen([sys.executable, "-ISc", waiting]))
        ending.callback(waiter.kill)
        for _ in range(3000):
            if re.search(rf"-> FLOCK .* {waiter.pid} ", Path("/proc/locks").read_text()):
                break
            time.sleep(0.01)
        else:
            pytest.fail("nobody waits")
        assert locks.holder(fd).startswith(f"process {holder.pid} (")


def test_a_holder_that_cannot_be_seen(tmp_path: Path) -> None:
    with opened(tmp_path) as fd:
        assert locks.holder(fd) == "a process that cannot be seen"


def test_all_who_wait_get_it_one_after_the_other(tmp_path: Path) -> None:
    turns: list[str] = []

    def wait(name: str) -> None:
        with opened(tmp_path) as fd:
            locks.take(fd, "eth0", locks.Patience(60))
            turns.append(name)
            time.sleep(0.05)
            turns.append(name)

    waiters = [threading.Thread(target=wait, args=(name,)) for name in ("one", "two")]
    with locked_by_another(tmp_path):
        for waiter in waiters:
            waiter.start()
        time.sleep(0.1)
        assert turns == []
    for waiter in waiters:
        waiter.join()
    assert sorted(turns) == ["one", "one", "two", "two"]
    assert turns[0] == turns[1]
