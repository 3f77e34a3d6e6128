"""xdpctl.host.files: what is no file that ends is refused at once, and signals are heard."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from xdpctl.errors import BadObjectError, Interrupted, NotFoundError, XdpctlError
from xdpctl.host import files, signals
from xdpctl.programs import chainfile, objects
from xdpctl.traffic import pcap


def odd_files(where: Path) -> list[Path]:
    """A pipe, a socket, a directory, devices, a link to one, and a sparse file of 20 GB."""
    os.mkfifo(where / "pipe")
    (where / "directory").mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(where / "socket"))
    (where / "link").symlink_to("/dev/zero")
    with (where / "sparse").open("wb") as file:
        file.truncate(20 << 30)
    names = ("pipe", "directory", "socket", "link", "sparse")
    return [*(where / name for name in names), Path("/dev/zero"), Path("/dev/urandom")]


def chain_file(path: str) -> None:
    with chainfile.read(path).opened("/sys/fs/bpf"):
        pass


READERS: dict[str, Callable[[str], object]] = {
    "object": lambda path: objects.member(path),
    "capture": lambda path: list(pcap.packets(path)),
    "chain": chain_file,
}


@pytest.mark.parametrize("kind", [*READERS, "source"])
def test_what_does_not_end_is_refused(tmp_path: Path, kind: str) -> None:
    for path in odd_files(tmp_path):
        named = path
        if kind == "source":
            named = tmp_path / f"{path.name}.c"
            named.symlink_to(path)
        begun = time.monotonic()
        with pytest.raises(XdpctlError) as caught:
            READERS.get(kind, objects.member)(str(named))
        assert isinstance(caught.value, BadObjectError)
        assert time.monotonic() - begun < 1
        assert path.name == "sparse" or caught.value.hint


def test_what_is_refused_is_named(tmp_path: Path) -> None:
    whys = dict[str, str]()
    for path in odd_files(tmp_path):
        with pytest.raises(BadObjectError) as caught:
            files.read(str(path), 1 << 20)
        whys[path.name] = caught.value.why
    assert whys["pipe"] == "it is a pipe, and not a regular file"
    assert whys["directory"] == "it is a directory, and not a regular file"
    assert whys["zero"] == whys["link"] == "it is a device, and not a regular file"
    assert whys["sparse"] == f"it has {20 << 30} bytes, and a file of its kind has at most 1048576"
    with pytest.raises(NotFoundError):
        files.read(str(tmp_path / "missing"), 1)
    with pytest.raises(BadObjectError):
        files.read("a\0b", 1)


def test_limits(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 100)
    assert files.read(str(path), 100) == b"x" * 100
    assert files.read(str(path), 10, most=7) == b"x" * 7
    with pytest.raises(BadObjectError) as caught:
        files.read(str(path), 99, number=4001)
    assert caught.value.number == 4001
    with pytest.raises(BadObjectError):
        files.read("/proc/self/environ", 0)  # such files say that they have no byte


def test_a_file_that_grows_is_read_to_its_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x")
    monkeypatch.setattr(os, "read", lambda _fd, size: b"x" * size)
    with pytest.raises(BadObjectError) as caught:
        files.read(str(path), 64 << 20)
    assert "it has more" in caught.value.why


def test_signals_are_heard(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Between two pieces of a file that never ends."""
    path = tmp_path / "file"
    path.write_bytes(b"x")
    monkeypatch.setattr(os, "read", lambda _fd, _size: b"x")
    killer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM))
    killer.start()
    with pytest.raises(Interrupted), signals.handled():
        files.read(str(path), 1 << 60)
    killer.join()


def test_standard_input_is_a_stream() -> None:
    code = "from xdpctl.host import files\n"
    code += "with files.opened('-', or_input=True) as file:\n print(len(file.read()))\n"
    done = subprocess.run(
        [sys.executable, "-c", code], input=b"x" * 70000, capture_output=True, check=True
    )
    assert done.stdout.split() == [b"70000"]
