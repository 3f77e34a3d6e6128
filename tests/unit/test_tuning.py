"""xdpctl.programs.tuning: values of an object's global variables and sizes of its maps."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.samples import compiled
from xdpctl.errors import KernelError, UsageError
from xdpctl.kernel import abi
from xdpctl.kernel.object import Object
from xdpctl.model.source import Tuning
from xdpctl.programs import objects, tuning

SOURCE = """
typedef unsigned char u8; typedef unsigned short u16; typedef signed char s8;
enum verdict { ABORT, DROP, PASS = 70000 };
enum __attribute__((packed)) little { NONE, SOME };
enum signs { MINUS = -3, PLUS = 3 };
const volatile u8 byte = 1; const volatile u16 port = 2; const volatile unsigned address;
const volatile unsigned long long big = 4; const volatile int whole = -5; const volatile s8 low;
const volatile _Bool on = 0; const volatile enum verdict verdict = DROP;
const volatile enum little little; const volatile enum signs signs;
static const volatile int own = 7;
const volatile struct { int a; } pair; const volatile int several[4]; int *volatile pointer;
int counter; int started = 9;
const volatile int elsewhere __attribute__((section(".rodata.more"))) = 3;
struct { int (*type)[1]; int (*key_size)[4]; int (*value_size)[8]; } flows __attribute__((
    section(".maps"), used));
SEC("xdp") int f(struct xdp_md *ctx) {
    return byte + port + address + big + whole + low + on + verdict + little + signs + own + pair.a
        + several[1] + (pointer != 0) + counter++ + started++ + elsewhere;
}
"""

pytestmark = pytest.mark.usefixtures("nothing_is_left")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    return compiled(tmp_path_factory.mktemp("tuning"), SOURCE)


def contents(path: str, *words: str, entries: tuple[str, ...] = ()) -> dict[str, bytes]:
    """The data maps of the object, by section, once these values are set."""
    options = abi.ObjectOpenOpts(object_name=b"ours")
    with Object.parsed(Path(path).read_bytes(), options) as parsed:
        tuning.tune(parsed, Tuning.parse(words, entries))
        return {one.name.partition(".")[2]: one.contents for one in parsed.maps}


@pytest.mark.parametrize(
    ("word", "section", "before", "after"),
    [
        ("byte=255", "rodata", b"\x01", b"\xff"),
        ("port=0x1f90", "rodata", b"\x02\0", b"\x90\x1f"),
        ("big=18446744073709551615", "rodata", b"\x04" + bytes(7), b"\xff" * 8),
        ("whole=-2147483648", "rodata", b"\xfb\xff\xff\xff", b"\0\0\0\x80"),
        ("own=8", "rodata", b"\x07\0\0\0", b"\x08\0\0\0"),
        ("verdict=PASS", "rodata", b"\x01\0\0\0", b"\x70\x11\x01\0"),
        ("started=-1", "data", b"\x09\0\0\0", b"\xff\xff\xff\xff"),
        ("elsewhere=4", "rodata.more", b"\x03\0\0\0", b"\x04\0\0\0"),
    ],
)
def test_a_value(path: str, word: str, section: str, before: bytes, after: bytes) -> None:
    """It takes the place of the one of the source, and nothing else changes."""
    old, new = contents(path), contents(path, word)
    places = [
        place
        for place in range(len(old[section]))
        if old[section][:place] + after + old[section][place + len(after) :] == new[section]
    ]
    assert any(old[section][place:].startswith(before) for place in places), new[section]
    assert {name for name in old if old[name] != new[name]} == {section}


@pytest.mark.parametrize(
    "word", ["low=-128", "on=true", "on=0", "little=SOME", "signs=MINUS", "counter=3", "address=0"]
)
def test_values_that_fit(path: str, word: str) -> None:
    contents(path, word)


@pytest.mark.parametrize(
    ("word", "why"),
    [
        ("byte=256", "byte: 256 does not fit: it takes 0 to 255"),
        ("byte=-1", "does not fit"),
        ("low=-129", "it takes -128 to 127"),
        ("on=2", "it takes 0 to 1"),
        ("on=maybe", "'maybe' is no value of it; false, true are"),
        ("verdict=MAYBE", "ABORT, DROP, PASS are"),
        ("port=http", "'http' is no value of it"),
        ("pair=1", "it is no number"),
        ("several=1", "it is no number"),
        ("pointer=1", "it is no number"),
        ("none=1", "there is no variable none; there is"),
        ("LICENSE=1", "there is no variable LICENSE"),
        ("flows=1", "there is no variable flows"),
        ("byte=" + 5000 * "9", "is no value of it"),
    ],
)
def test_values_that_do_not_fit(path: str, word: str, why: str) -> None:
    with pytest.raises(KernelError, match="setting values") as caught:
        contents(path, word)
    assert why in caught.value.log
    with pytest.raises(UsageError, match="cannot be set so") as usage:
        objects.member(path, tuning=Tuning.parse([word], []))
    assert why in usage.value.why


def test_entries_of_a_map(path: str) -> None:
    contents(path, entries=("flows=1024",))
    with pytest.raises(KernelError, match="setting values") as caught:
        contents(path, entries=("none=3", "ours.rodata=3"))
    assert caught.value.log.splitlines() == [
        "there is no map none; there is flows",
        "there is no map ours.rodata; there is flows",
    ]


@pytest.mark.parametrize(
    ("constants", "entries"),
    [
        (["x"], []),
        (["=1"], []),
        (["x="], []),
        (["x=1", "x=2"], []),
        ([], ["m"]),
        ([], ["m=0"]),
        ([], ["m=-1"]),
        ([], ["m=x"]),
        ([], ["m=4294967296"]),
        ([], ["m=1", "m=2"]),
    ],
)
def test_what_says_nothing(constants: list[str], entries: list[str]) -> None:
    with pytest.raises(UsageError):
        Tuning.parse(constants, entries)


def test_without_type_information(tmp_path: Path) -> None:
    path = compiled(tmp_path, 'SEC("xdp") int f(struct xdp_md *ctx) { return 2; }', "-g0")
    with pytest.raises(UsageError, match="cannot be set so") as caught:
        objects.member(path, tuning=Tuning.parse(["x=1"], []))
    assert "clang -g" in caught.value.why


def test_a_directory_for_pins_that_nobody_makes(tmp_path: Path, path: str) -> None:
    pinning = (
        "struct { int (*type)[2]; int (*key_size)[4]; int (*value_size)[8]; int (*max_entries)[1];"
        ' int (*pinning)[1]; } packets SEC(".maps");'
    )
    source = pinning + 'SEC("xdp") int f(struct xdp_md *ctx) { return (long)&packets; }'
    plain, pinned = objects.member(path), objects.member(compiled(tmp_path, source, "-w"))
    objects.check_pinning([plain], None)
    objects.check_pinning([plain, pinned], "/pins")
    with pytest.raises(UsageError, match="nothing is to be pinned in /pins"):
        objects.check_pinning([plain], "/pins")
