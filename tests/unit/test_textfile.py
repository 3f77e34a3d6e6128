"""xdpctl metrics --textfile: the file is there whole, or as it was."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from xdpctl.cli.commands.metrics import _write
from xdpctl.errors import NotFoundError, UsageError, XdpctlError


def test_everybody_may_read_it(tmp_path: Path) -> None:
    path = tmp_path / "xdpctl.prom"
    before = os.umask(0o077)
    try:
        _write(str(path), "a 1\n")
    finally:
        os.umask(before)
    assert path.read_text() == "a 1\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert os.listdir(tmp_path) == ["xdpctl.prom"]


def test_a_name_alone_is_of_the_present_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    _write("one.prom", "a 1\n")
    assert (tmp_path / "one.prom").read_text() == "a 1\n"


def test_who_reads_sees_one_or_the_other(tmp_path: Path) -> None:
    path, texts = tmp_path / "xdpctl.prom", [f"{digit}" * 200_000 for digit in range(2)]
    _write(str(path), texts[0])
    over = threading.Event()

    def write() -> None:
        for number in range(40):
            _write(str(path), texts[number % 2])
        over.set()

    writer = threading.Thread(target=write)
    writer.start()
    while not over.is_set():
        assert path.read_text() in texts
        # node_exporter reads all that is called so.
        assert [one.name for one in tmp_path.glob("*.prom")] == ["xdpctl.prom"]
    writer.join()


def test_what_is_refused_leaves_all_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "xdpctl.prom"
    _write(str(path), "a 1\n")

    def full(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(XdpctlError, match="cannot be written") as caught:
        _write(str(path), "a 2\n")
    assert caught.value.why == "No space left on device"
    assert path.read_text() == "a 1\n"
    assert os.listdir(tmp_path) == ["xdpctl.prom"]


@pytest.mark.parametrize("what", ["link", "dangling", "pipe", "directory", "device"])
def test_what_is_no_file_is_not_replaced(tmp_path: Path, what: str) -> None:
    path, file = tmp_path / "xdpctl.prom", tmp_path / "file"
    file.write_text("here")
    if what == "device":
        path = Path("/dev/null")
    elif what == "pipe":
        os.mkfifo(path)
    elif what == "directory":
        path.mkdir()
    else:
        path.symlink_to(file if what == "link" else tmp_path / "away")
    before = path.lstat()
    with pytest.raises(UsageError, match="is no regular file"):
        _write(str(path), "a 1\n")
    assert path.lstat().st_ino == before.st_ino
    assert file.read_text() == "here"
    assert not (tmp_path / "away").exists()


@pytest.mark.parametrize("name", ["away/xdpctl.prom", "file/xdpctl.prom", "", "away/"])
def test_where_nothing_can_be_written(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("here")
    path = f"{tmp_path}/{name}" if name else ""
    with pytest.raises(XdpctlError) as caught:
        _write(path, "a 1\n")
    assert isinstance(caught.value, NotFoundError) == (name == "away/xdpctl.prom")
    assert os.listdir(tmp_path) == ["file"]
