"""xdpctl.programs.tails: places of program arrays, as they are written and as objects have them."""

from __future__ import annotations

import pytest

from tests.unit.samples import built
from xdpctl.errors import UsageError
from xdpctl.kernel import libbpf, maps, records, uapi
from xdpctl.model.source import Tail, Tuning
from xdpctl.programs import objects, tails

pytestmark = pytest.mark.usefixtures("nothing_is_left")


def test_places_and_programs() -> None:
    assert Tail.parse("jumps[1]=dropper") == Tail("jumps", 1, "dropper")
    assert Tail.parse("a.b[0]=f=g") == Tail("a.b", 0, "f=g")
    assert Tuning.parse([], [], ["a[1]=f", "a[2]=f", "b[1]=f"]).tails[2].where == "b[1]"


@pytest.mark.parametrize(
    "word",
    [
        *("", "jumps", "jumps=f", "jumps[]=f", "jumps[1]", "jumps[1]=", "[1]=f", "jumps[1]x=f"),
        *("jumps[-1]=f", "jumps[x]=f", "jumps[0x1]=f", "jumps[1][2]=f"),
        *(
            "jumps[4294967295]=f",
            f"jumps[{'9' * 5000}]=f",
            "jumps[1]\n=f",
            "jumps[\N{ARABIC-INDIC DIGIT ONE}]=f",
        ),
    ],
)
def test_what_is_no_place(word: str) -> None:
    with pytest.raises(UsageError):
        Tuning.parse([], [], [word])


def test_a_place_that_is_named_twice() -> None:
    with pytest.raises(UsageError, match=r"said twice: a\[1\]"):
        Tuning.parse([], [], ["a[1]=f", "a[01]=g"])


@pytest.mark.parametrize(
    ("word", "why"),
    [
        ("leaps[0]=dropper", "there is no program array leaps; there is fixed, jumps"),
        ("packets[0]=dropper", "there is no program array packets; there is fixed, jumps"),
        ("jumps[4]=dropper", "jumps has no place 4: its last place is jumps[3]"),
        ("jumps[0]=leaper", "there is no program leaper; there is passer, hops, dropper, aborter"),
        pytest.param(
            "jumps[0]=classifier",
            "classifier (section tc) is no XDP program, and an array has programs of one type; "
            "there is passer, hops, dropper, aborter, fragments",
            id="classifier",  # pytest shortens a long text, or not
        ),
        ("jumps[0]=aborter", ""),
        ("jumps[3]=hops", ""),
    ],
)
def test_places_of_an_object(word: str, why: str) -> None:
    """What it has is named; a program whose section tells nothing is taken as it is meant."""
    if why:
        with pytest.raises(UsageError, match=r"hops\.o cannot be set so") as caught:
            objects.member(built("hops"), program="hops", tuning=Tuning.parse([], [], [word]))
        assert caught.value.why.startswith(why)
    else:
        objects.member(built("hops"), program="hops", tuning=Tuning.parse([], [], [word]))


def test_what_is_in_an_array(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only of a program array it is said that it is empty."""
    kind, there = uapi.BPF_MAP_TYPE_PROG_ARRAY, [bytes(4)]
    monkeypatch.setattr(libbpf, "map_info", lambda _fd: records.MapInfo(31, kind, "jumps", 4))
    monkeypatch.setattr(maps, "entries", lambda _fd, _info: iter((key, bytes(4)) for key in there))
    assert not tails.is_empty(9)
    there.clear()
    assert tails.is_empty(9)
    kind = uapi.BPF_MAP_TYPE_ARRAY
    assert not tails.is_empty(9)
