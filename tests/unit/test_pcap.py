"""xdpctl.traffic.pcap: files that are written here by hand, whole and broken."""

from __future__ import annotations

import contextlib
import io
import random
import struct
import time
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

from tests.unit.samples import some
from xdpctl.cli.run import run
from xdpctl.errors import BadObjectError, NotFoundError, UsageError
from xdpctl.traffic import pcap
from xdpctl.traffic.pcap import Packet

pytestmark = pytest.mark.heavy

FRAMES = [bytes(range(60)), b"", b"x" * 1514]
TIME = 1_700_000_000_123_456_789


def classic(order: str, magic: int, unit: int, link: int = 1) -> bytes:
    head = struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, 65535, link)
    seconds, rest = divmod(TIME, 10**9)
    return head + b"".join(
        struct.pack(order + "4I", seconds, rest // unit, len(one), len(one) + number) + one
        for number, one in enumerate(FRAMES)
    )


def block(order: str, kind: int, body: bytes) -> bytes:
    body += bytes(-len(body) % 4)
    size = struct.pack(order + "I", 12 + len(body))
    return struct.pack(order + "I", kind) + size + body + size


def next_generation(order: str, resolution: bytes = b"", link: int = 1) -> bytes:
    """A section with a comment, an interface, an enhanced, an unknown and a simple block."""
    section = struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1)
    options = struct.pack(order + "HH", 2, 3) + b"eth\0"
    if resolution:
        options += struct.pack(order + "HH", 9, 1) + resolution + bytes(3)
    units = 10**6 if not resolution else 10 ** resolution[0] if resolution[0] < 128 else 2**10
    time = TIME * units // 10**9
    first = struct.pack(order + "5I", 0, time >> 32, time & 0xFFFFFFFF, 60, 61) + FRAMES[0]
    return b"".join(
        (
            block(order, 0x0A0D0D0A, section),
            block(order, 1, struct.pack(order + "HHI", link, 0, 0) + options),
            block(order, 6, first),
            block(order, 0xBAD, b"whatever"),
            block(order, 3, struct.pack(order + "I", 1514) + FRAMES[2]),
        )
    )


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(("magic", "unit"), [(0xA1B2C3D4, 1000), (0xA1B23C4D, 1)])
def test_classic(tmp_path: Path, order: str, magic: int, unit: int) -> None:
    path = tmp_path / "sample.pcap"
    path.write_bytes(classic(order, magic, unit))
    found = pcap.read(str(path))
    assert [one.data for one in found] == FRAMES
    assert [one.name for one in found] == [f"{path}:{number}" for number in (1, 2, 3)]
    assert {one.time for one in found} == {TIME // unit * unit}
    assert [one.is_cut for one in found] == [False, True, True]


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(
    ("resolution", "unit"), [(b"", 1000), (b"\x09", 1), (b"\x8a", 10**9 // 2**10)]
)
def test_next_generation(tmp_path: Path, order: str, resolution: bytes, unit: int) -> None:
    path = tmp_path / "sample.pcapng"
    path.write_bytes(next_generation(order, resolution))
    found = pcap.read(str(path))
    assert [one.data for one in found] == [FRAMES[0], FRAMES[2]]
    assert abs(found[0].time - TIME) <= unit
    assert [one.is_cut for one in found] == [True, False]


@pytest.mark.parametrize("whole", [classic("<", 0xA1B2C3D4, 1000), next_generation(">")])
def test_files_that_end_early(tmp_path: Path, whole: bytes) -> None:
    """Wherever they do: between two packets it is a shorter file, else an error that says where."""
    path = tmp_path / "cut"
    counts, errors = set[int](), list[BadObjectError]()
    for end in [*range(0, 160), *range(len(whole) - 40, len(whole))]:
        path.write_bytes(whole[:end])
        try:
            counts.add(len(pcap.read(str(path))))
        except BadObjectError as error:
            errors.append(error)
    assert counts == {0, 1, 2} or counts == {0, 1}
    assert len(errors) > 150
    assert all(error.why and error.hint for error in errors)


HEAD = classic("<", 0xA1B2C3D4, 1000)[:24]
BROKEN = [
    (b"", "empty"),
    (b"\x7fELF" + bytes(60), "magic"),
    (HEAD[:20], "header"),
    (classic("<", 0xA1B2C3D4, 1000, link=113), "link type is 113"),
    (HEAD + struct.pack("<4I", 0, 0, 1 << 30, 60), "claims to have"),
    (HEAD + struct.pack("<4I", 0, 0, 60, 60) + bytes(59), "within packet 1"),
    (next_generation("<", link=113), "link type is 113"),
    (block("<", 0x0A0D0D0A, bytes(16)), "byte order"),
    (next_generation("<")[:28] + struct.pack("<3I", 1, 13, 13), "claims to have 13"),
    (next_generation("<")[:28] + block("<", 6, bytes(20)), "not described"),
    (next_generation("<")[:56] + block("<", 6, struct.pack("<5I", 0, 0, 0, 99, 99)), "within"),
]


@pytest.mark.parametrize(("data", "why"), BROKEN, ids=[why for _data, why in BROKEN])
def test_broken_files(tmp_path: Path, data: bytes, why: str) -> None:
    path = tmp_path / "broken"
    path.write_bytes(data)
    with pytest.raises(BadObjectError) as caught:
        pcap.read(str(path))
    assert why in caught.value.why


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        pcap.read(str(tmp_path / "missing"))
    with pytest.raises(BadObjectError):
        pcap.read(str(tmp_path))
    with pytest.raises(UsageError):
        pcap.write(str(tmp_path / "missing/file"), [])


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = str(tmp_path / "own.pcap")
    pcap.write(path, [Packet("", one, TIME) for one in FRAMES])
    found = pcap.read(path)
    assert [one.data for one in found] == FRAMES
    assert {one.time for one in found} == {TIME}
    assert not any(one.is_cut for one in found)


class Growing(io.RawIOBase):
    """A capture of many packets that is made as it is read."""

    def __init__(self, head: bytes, packet: bytes, count: int) -> None:
        self.left, self.packet, self.count = head, packet * 1000, count // 1000

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self.left and self.count:
            self.left, self.count = self.packet, self.count - 1
        size = min(len(buffer), len(self.left))
        buffer[:size], self.left = self.left[:size], self.left[size:]
        return size


@pytest.mark.parametrize("kind", some(1, ["pcapng", "classic"]))
def test_a_large_file_takes_little_time_and_memory(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """A file is read as a stream: what is read for one packet does not depend on its size."""
    frame, count = bytes(1500), 10_000
    if kind == "classic":
        head, packet = HEAD, struct.pack("<4I", 0, 0, 1500, 1500) + frame
    else:
        head = next_generation("<")[: 28 + 28]
        packet = block("<", 6, struct.pack("<5I", 0, 0, 0, 1500, 1500) + frame)

    @contextlib.contextmanager
    def opened(_path: str, **_options: bool) -> Iterator[io.BufferedReader]:
        yield io.BufferedReader(Growing(head, packet, count))

    monkeypatch.setattr("xdpctl.host.files.opened", opened)
    tracemalloc.start()
    begun, seen = time.process_time(), 0
    for one in pcap.packets("large"):
        assert len(one.data) == 1500
        seen += 1
    taken = time.process_time() - begun
    _now, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert seen == count
    assert peak < 8 << 20
    assert taken < 5  # 15 MB; it were minutes if the time grew with the square


def test_what_a_trial_keeps_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "sample.pcap"
    path.write_bytes(classic("<", 0xA1B2C3D4, 1000))
    monkeypatch.setattr("xdpctl.cli.commands.test.MOST_PACKETS", 5)
    words = ["test", "--pcap", str(path), "--pcap", str(path), "lo", "load", "x.o"]
    assert run(words) == UsageError.exit_code
    assert "too many packets for a trial" in capsys.readouterr().err


def mutated(whole: bytes, chance: random.Random) -> bytes:
    """A capture with something in it that should not be there."""
    data = bytearray(whole)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(data) or 1)
        match chance.randrange(5):
            case 0:
                data[at : at + 1] = chance.randbytes(1)
            case 1:
                del data[at:]
            case 2:
                del data[at : at + chance.randint(1, 40)]
            case 3:
                data[at:at] = chance.randbytes(chance.randint(1, 40))
            case 4:  # a length or a number
                value = chance.choice([0, 1, 0x7FFFFFFF, 0xFFFFFFFF, len(data), 12, 16])
                at -= at % 4
                data[at : at + 4] = struct.pack(chance.choice("<>") + "I", value)
    return bytes(data)


@pytest.mark.long
def test_two_thousand_mutated_captures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through the command line: a packet is tried or an error told, at once and in clean text."""
    chance, path, codes = random.Random(14), tmp_path / "mutated", Counter[int]()
    wholes = [
        *(classic(order, magic, 1000) for order in "<>" for magic in (0xA1B2C3D4, 0xA1B23C4D)),
        *(next_generation(order, b"\x09") for order in "<>"),
    ]

    def settled(*_arguments: object, **_options: object) -> NoReturn:
        raise NotFoundError("the packets are there")

    monkeypatch.setattr("xdpctl.cli.settings.Settings.enter", settled)
    for number in range(2000):
        path.write_bytes(mutated(wholes[number % len(wholes)], chance))
        begun = time.monotonic()
        code = run(["test", "--pcap", str(path), "lo", "load", "x.o"])
        assert time.monotonic() - begun < 10
        said = capsys.readouterr()
        codes[code] += 1
        assert "Traceback" not in said.err
        assert all(one.isprintable() or one == "\n" for one in said.out + said.err)
    assert set(codes) == {NotFoundError.exit_code, BadObjectError.exit_code}
    assert min(codes.values()) > 200
