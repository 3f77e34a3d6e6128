"""xdpctl.change.watch, as far as it goes without BPF: what wakes it, and what it tells whom."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from tests.unit.samples import needs_root
from xdpctl.bpffs.mount import Bpffs
from xdpctl.change import watch
from xdpctl.change.sweep import Event
from xdpctl.errors import Interrupted, KernelError
from xdpctl.host import interfaces, service, signals
from xdpctl.kernel import libbpf, libc
from xdpctl.observe.reading import Views


def is_ready(fd: int, seconds: float = 0) -> bool:
    return bool(select.select([fd], [], [], seconds)[0])


# --- what wakes it ------------------------------------------------------------------------------


@pytest.fixture
def changes(
    nothing_is_left: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[watch._Changes]:
    """What wakes it, with no interface of this machine's and a place for namespaces of its own."""
    monkeypatch.setattr(interfaces, "NAMED", str(tmp_path / "netns"))
    monkeypatch.setattr(watch, "_RTMGRP_LINK", 0)
    with contextlib.ExitStack() as closing:
        yield watch._Changes(closing)


def test_the_end_of_an_owner_is_seen(changes: watch._Changes) -> None:
    with contextlib.ExitStack() as ending:
        first, second = (
            ending.enter_context(subprocess.Popen(["sleep", "60"])) for _number in range(2)
        )
        ending.callback(first.kill)
        ending.callback(second.kill)
        both = {first.pid, second.pid}
        changes.follow(both)
        fd = changes._processes[first.pid]
        changes.follow(both)
        assert changes._processes[first.pid] == fd  # held, not opened again
        assert not changes.wait(0)
        first.kill()
        assert changes.wait(30)
        assert changes._processes.keys() == {second.pid}
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)
        # Told once, for as long as it is named: it may stay a zombie, or in a record, for long.
        changes.follow(both)
        assert changes._processes.keys() == {second.pid}
        assert not changes.wait(0)
        changes.follow({second.pid})
        changes.follow(both)  # named anew: not reaped yet, so it is told again
        assert changes.wait(30)
        changes.follow(set())
        assert changes._processes == {}


def message(kind: int, number: int, more: bytes = b"") -> bytes:
    """A message of rtnetlink(7): its header, a struct ifinfomsg, attributes."""
    body = struct.pack("=BxHiII", 0, 1, number, 0, 0) + more
    data = struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 0) + body
    return data + bytes(-len(data) % 4)


@pytest.mark.parametrize(
    ("data", "numbers"),
    [
        (b"", []),
        (message(16, 7), [7]),
        (message(16, 7, b"attr!") + message(16, 9), [7, 9]),
        (message(17, 7) + message(16, 9), [9]),
        (message(16, 7)[:23], []),
        (bytes(64), []),
        (message(16, 7).replace(b"\x20", b"\xff", 1), [7]),
    ],
)
def test_the_numbers_of_interfaces(data: bytes, numbers: list[int]) -> None:
    assert list(watch._numbers(data)) == numbers


def test_of_which_interfaces_the_kernel_told(changes: watch._Changes) -> None:
    """Of all at first and when messages were lost, else of those in its messages, once each."""
    assert changes.told() is None
    assert changes.told() == set()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with theirs:
        ours.setblocking(False)
        changes._links.close()
        changes._links = ours
        assert not changes.hear()
        theirs.send(message(16, 7))
        theirs.send(message(16, 9) + message(16, 7))
        assert changes.hear()
        assert changes.told() == {7, 9}
        assert changes.wait(60)  # it was heard before the wait began
        assert not changes.wait(0)
        assert changes.told() == set()
    ours.close()


def test_messages_that_were_lost(changes: watch._Changes) -> None:
    class Full:
        """A socket with too little room, once."""

        errors: ClassVar = [OSError(errno.ENOBUFS, "no room"), BlockingIOError()]

        def recv(self, _size: int) -> bytes:
            raise self.errors.pop(0)

    changes.told()
    links, changes._links = changes._links, Full()  # type: ignore[assignment]
    assert changes.hear()
    changes._links = links
    assert changes.told() is None


def test_what_appears_during_a_look_does_not_wait_for_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is kept between two of the interfaces that are looked at."""
    order: list[object] = []
    told: list[set[int] | None] = [None, {5}]

    def tend(_bpffs: Bpffs, _views: Views, between: Callable[[], object]) -> Iterator[Event]:
        for name in ("eth0", "eth1", "eth2"):
            between()
            order.append(name)
        os.kill(os.getpid(), signal.SIGTERM)
        yield from ()

    def keep(numbers: Collection[int] | None) -> list[Event]:
        order.append(numbers)
        return []

    monkeypatch.setattr(watch, "tend", tend)
    monkeypatch.setattr(watch._Changes, "told", lambda _changes: told.pop(0))
    monkeypatch.setattr(watch._Changes, "hear", lambda _changes: order == [None, "eth0"])
    with signals.handled():
        watch.watch(Bpffs(str(tmp_path)), 60, lambda _event: None, keep)
    assert order == [None, "eth0", {5}, "eth1", "eth2"]


def test_a_wait_ends_by_itself(changes: watch._Changes) -> None:
    begin = time.monotonic()
    assert not changes.wait(0.2)
    assert time.monotonic() - begin >= 0.19


def test_an_owner_that_is_gone_is_not_followed(changes: watch._Changes) -> None:
    with subprocess.Popen(["true"]) as process:
        process.wait()
        changes.follow({process.pid})
        assert changes._processes == {}
        assert not changes.wait(0)


def test_namespaces_are_watched_once_there_is_a_place_for_them(
    changes: watch._Changes, tmp_path: Path
) -> None:
    """The first `ip netns add` makes it."""
    place = tmp_path / "netns"
    assert not changes.wait(0)
    place.mkdir()
    assert not changes.wait(0)
    count = len(os.listdir("/proc/self/fd"))
    for change in ((place / "one").touch, (place / "one").unlink):
        change()
        assert changes.wait(30)
        assert not changes.wait(0)  # read, so that it does not wake again
    assert len(os.listdir("/proc/self/fd")) == count


def test_without_inotify_it_goes_on(
    changes: watch._Changes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is a limit (fs.inotify.max_user_instances); it is asked for once."""
    asked: list[list[str]] = []

    def inotify(paths: list[str]) -> int:
        asked.append(paths)
        raise KernelError("inotify", errno.EMFILE)

    (tmp_path / "netns").mkdir()
    monkeypatch.setattr(libc, "inotify", inotify)
    for _look in range(3):
        assert not changes.wait(0)
    assert asked == [[str(tmp_path / "netns")]]


@pytest.mark.parametrize(
    "change",
    [
        lambda path: (path / "new").mkdir(),
        lambda path: (path / "new").symlink_to("text"),
        lambda path: (path / "old").unlink(),
        lambda path: (path / "old").rename(path / "moved"),
        lambda path: (path / "old").rename(path.parent / "away"),
        lambda path: (path.parent / "outside").rename(path / "in"),
    ],
    ids=["directory", "symlink", "removed", "renamed", "moved away", "moved in"],
)
def test_a_change_of_a_directory_is_seen(tmp_path: Path, change: Callable[[Path], None]) -> None:
    watched = tmp_path / "watched"
    watched.mkdir()
    (watched / "old").touch()
    (tmp_path / "outside").touch()
    with libbpf.owned(libc.inotify([str(watched)])) as fd:
        assert not is_ready(fd)
        change(watched)
        assert is_ready(fd)
        os.read(fd, 1 << 16)
        with pytest.raises(BlockingIOError):
            os.read(fd, 1 << 16)


def test_a_directory_that_is_not_there_is_not_watched(tmp_path: Path) -> None:
    count = len(os.listdir("/proc/self/fd"))
    with pytest.raises(KernelError) as caught:
        libc.inotify([str(tmp_path), str(tmp_path / "absent")])
    assert caught.value.call == "inotify"
    assert len(os.listdir("/proc/self/fd")) == count


@needs_root
def test_a_change_of_an_interface_is_seen() -> None:
    """In a namespace of the test's own."""
    script = """
import contextlib, subprocess
from xdpctl.change import watch
watch.interfaces.NAMED = "/nonexistent"
with contextlib.ExitStack() as closing:
    changes = watch._Changes(closing)
    assert not changes.wait(0)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    assert changes.wait(30)
    while changes.wait(0.2):
        pass
    subprocess.run(["ip", "link", "set", "lo", "down"], check=True)
    assert changes.wait(30)
"""
    command = ["unshare", "--net", sys.executable, "-c", script]
    subprocess.run(command, check=True)


# --- what it tells ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_the_service_manager_is_told(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"{tmp_path}/notify" if kind == "path" else f"@xdpctl-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(name.replace("@", "\0"))
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        service.notify("READY=1")
        assert manager.recv(100, socket.MSG_DONTWAIT) == b"READY=1"


@pytest.mark.parametrize("address", ["", "/nonexistent/notify"])
def test_nobody_to_tell(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    service.notify("READY=1")


def test_what_stays_the_same_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failure, until it is over; then it would be news again."""
    failure, other = Event("eth0", "failed", "so"), Event("eth1", "removed", "gone")
    rounds = [[failure], [failure, other], [failure], [], [failure]]
    told: list[Event] = []

    def tend(_bpffs: Bpffs, _views: Views, _between: object) -> list[Event]:
        if not rounds:
            os.kill(os.getpid(), signal.SIGTERM)
        return rounds.pop(0)

    monkeypatch.setattr(watch, "tend", tend)
    count = len(os.listdir("/proc/self/fd"))
    with signals.handled():
        watch.watch(Bpffs(str(tmp_path)), 0.1, told.append)
    assert told == [failure, other, failure]
    assert len(os.listdir("/proc/self/fd")) == count


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param(False, id="nothing"),
        pytest.param(
            True,
            id="a chain",
        ),
    ],
)
def test_a_signal_ends_it_at_once(
    changed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long the interval is, whatever it has just changed."""

    def tend(_bpffs: Bpffs, _views: Views, _between: object) -> list[Event]:
        signals.release()
        if changed:
            signals.hold()  # as a change does from its flip on
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()
        return []

    monkeypatch.setattr(watch, "tend", tend)
    begin = time.monotonic()
    with signals.handled():
        watch.watch(Bpffs(str(tmp_path)), 60, lambda _event: None)
    assert time.monotonic() - begin < 30


def test_a_signal_during_a_change_ends_it_after_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told what was changed; the next look does not begin."""
    event = Event("eth0", "closed slot 1", "it was vacant")
    told: list[Event] = []

    def tend(_bpffs: Bpffs, _views: Views, _between: object) -> list[Event]:
        signals.hold()
        os.kill(os.getpid(), signal.SIGTERM)
        return [event]

    monkeypatch.setattr(watch, "tend", tend)
    with signals.handled():
        watch.watch(Bpffs(str(tmp_path)), 0.05, told.append)
    assert told == [event]


def test_after_an_event_it_looks_eagerly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel takes a while to let go of what is gone; an interval that is shorter holds."""
    answers = [False, True, False, False, True, False, False, False, False, False]
    waited: list[float] = []

    class Changes:
        def __init__(self, _closing: contextlib.ExitStack) -> None:
            pass

        def follow(self, pids: set[int]) -> None:
            assert pids == set()

        def told(self) -> set[int]:
            return set()

        def wait(self, seconds: float) -> bool:
            waited.append(seconds)
            if len(waited) > len(answers):
                raise Interrupted(signal.SIGTERM)
            return answers[len(waited) - 1]

    monkeypatch.setattr(watch, "_Changes", Changes)
    monkeypatch.setattr(watch, "tend", lambda _bpffs, _views, _between: [])
    watch.watch(Bpffs(str(tmp_path)), 0.7, lambda _event: None)
    first, second, third, last = watch._EAGER
    assert last > 0.7
    assert waited == [
        *(0.7, 0.7),
        *(first, second, third),
        *(first, second, third, 0.7),
        *(0.7, 0.7),
    ]
