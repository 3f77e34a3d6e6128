"""xdpctl.host.cache: nothing but what was written there for this very key is ever used."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import pytest

from xdpctl.host import cache as kept

DATA = bytes(range(256)) * 8
KEY = b"key"

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="a cache is root's")


class Maker:
    """Makes always the same, and counts how often."""

    def __init__(self) -> None:
        self.made = 0

    def __call__(self) -> bytes:
        self.made += 1
        return DATA


def entry(cache: Path) -> Path:
    assert kept.kept("dispatcher", KEY, lambda: DATA) == DATA
    (found,) = cache.iterdir()
    return found


def again(cache: Path, *, heals: bool = True) -> None:
    """It is made anew, once, and whole afterwards."""
    maker = Maker()
    assert kept.kept("dispatcher", KEY, maker) == DATA
    assert maker.made == 1
    assert kept.kept("dispatcher", KEY, maker) == DATA
    assert maker.made == (1 if heals else 2)
    assert kept.bad_entries() == [] or not heals
    assert not [one for one in cache.iterdir() if one.name.startswith(".")]


def test_it_is_made_once(cache: Path) -> None:
    path = entry(cache)
    maker = Maker()
    assert kept.kept("dispatcher", KEY, maker) == DATA
    assert maker.made == 0
    assert path.read_bytes().startswith(DATA)
    assert path.stat().st_mode & 0o777 == 0o600
    assert kept.bad_entries() == []


@pytest.mark.long
def test_a_thousand_mutated_entries(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _fd: None)  # it is about what is read
    path = entry(cache)
    whole, chance, maker = path.read_bytes(), random.Random(5), Maker()
    for number in range(1000):
        data = bytearray(whole)
        match number % 4:
            case 0:
                data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
            case 1:
                del data[chance.randrange(len(data)) :]
            case 2:
                start = chance.randrange(len(data))
                del data[start : start + chance.randint(1, 64)]
            case 3:
                start = chance.randrange(len(data) + 1)
                data[start:start] = chance.randbytes(chance.randint(1, 64))
        path.write_bytes(data)
        if bytes(data) != whole:
            assert kept.bad_entries() == [path.name]
            assert kept.kept("dispatcher", KEY, maker) == DATA
            assert path.read_bytes() == whole
    assert maker.made > 990


def test_one_entry_is_not_taken_for_another(cache: Path) -> None:
    path = entry(cache)
    kept.kept("dispatcher", b"other", lambda: b"other")
    (other,) = set(cache.iterdir()) - {path}
    shutil.copy(other, path)
    path.chmod(0o600)
    assert kept.bad_entries() == [path.name]
    again(cache)


@pytest.mark.parametrize("how", ["owner", "mode", "link", "symlink", "pipe", "directory", "sparse"])
def test_what_is_not_roots_alone_is_not_used(cache: Path, tmp_path: Path, how: str) -> None:
    """Neither is it harmed where it stands elsewhere."""
    path = entry(cache)
    elsewhere = tmp_path / "elsewhere"
    match how:
        case "owner":
            os.chown(path, 65534, -1)
        case "mode":
            path.chmod(0o666)
        case "link":
            os.link(path, elsewhere)
        case "symlink":
            path.rename(elsewhere)
            path.symlink_to(elsewhere)
        case "pipe":
            path.unlink()
            os.mkfifo(path)
        case "directory":
            path.unlink()
            (path / "full").mkdir(parents=True)
        case "sparse":
            os.truncate(path, 20 << 30)
    assert kept.bad_entries() == [path.name]
    again(cache)
    if elsewhere.exists():
        assert elsewhere.read_bytes().startswith(DATA)


def test_what_is_no_entry_is_of_no_interest(cache: Path) -> None:
    entry(cache)
    for name in ("stray", "dispatcher-0123.o", ".1-dispatcher-0123.kept"):
        (cache / name).write_bytes(b"\x7fELF")
    assert kept.bad_entries() == []
    (cache / "dispatcher-0123.kept").write_bytes(b"\x7fELF")
    assert kept.bad_entries() == ["dispatcher-0123.kept"]
