"""xdpctl.traffic.pcap: files that are written here by hand, whole and broken."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from xdpctl.errors import BadObjectError, NotFoundError, UsageError
from xdpctl.traffic import pcap
from xdpctl.traffic.pcap import Packet

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
