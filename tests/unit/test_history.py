"""xdpctl.bpffs.history: chains of before, on a plain directory."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from tests.unit.samples import INTERFACE, running, state_of
from xdpctl.bpffs import homes
from xdpctl.bpffs.history import LIMIT, History
from xdpctl.bpffs.mount import Bpffs
from xdpctl.cli.numbers import seconds
from xdpctl.errors import UsageError
from xdpctl.model.chain import Chain, Member, Rules
from xdpctl.model.difference import differences
from xdpctl.model.generation import Generation, WentBack
from xdpctl.model.plan import make_plan
from xdpctl.model.state import Foreign, Live
from xdpctl.model.terms import Pending, Terms

A = running("a", 9, tag="", priority=7, actions=12, frags=True)
B = running("b", 10, tag="", label="fw", before=("a", "c"), after=("d",), array_id=5)


@pytest.fixture
def chains(tmp_path: Path) -> History:
    paths = homes.of(Bpffs(str(tmp_path)), INTERFACE)
    os.makedirs(paths.directory)
    return History(paths)


def change(
    chains: History, before: int | None, after: int | None, *, keeps: bool = False
) -> Generation:
    """Record that one root took the place of another."""
    state = state_of([A, B])
    plan = replace(make_plan(state, Chain()), current=Chain((A, B), Rules(1, 2)))
    number = chains.next_number()
    one = Generation.of(number, state, plan, after, Terms("load", keeps=keeps))
    one = replace(one, before=before)
    chains.record(one)
    return one


def left(chains: History, live: Live) -> list[str]:
    return sorted(path.rpartition("/")[2] for path in chains.left_over(live))


def keep(chains: History, name: str) -> None:
    Path(f"{chains.paths.directory}/{name}").touch()


def test_a_record_gives_back_what_was_recorded(chains: History) -> None:
    one = change(chains, 500, 600, keeps=True)
    assert chains.recorded() == [one]
    assert chains.generations(600) == [one]
    assert one.words == "a, fw"


def test_a_long_chain_is_in_parts(chains: History) -> None:
    members = tuple(running(f"program_number_{n}", 1000 + n, tag="") for n in range(200))
    one = replace(change(chains, None, 500), number=2, chain=Chain(members))
    chains.record(one)
    assert chains.recorded()[1] == one
    texts = [os.readlink(path) for path in Path(chains.paths.directory).glob("was-2-*")]
    assert len(texts) > 1
    assert max(map(len, texts)) < 4096


@pytest.mark.parametrize("text", ["", "1 2", "1 2 3 4 5 6 7 8 9", "a b c d e f g h i j k"])
def test_a_record_that_cannot_be_read_is_none(chains: History, text: str) -> None:
    os.symlink(text or " ", f"{chains.paths.directory}/was-1")
    assert chains.recorded() == []
    assert left(chains, 600) == ["was-1"]


def test_a_change_without_its_flip_is_left_over(chains: History) -> None:
    """The root that runs tells."""
    first = change(chains, 400, 500)
    change(chains, 500, 600)
    keep(chains, "kept-2-9")
    chains.note(chains.confirm, Pending(2, 0, 1))
    assert chains.pending(500) is None
    assert chains.generations(500) == [first]
    assert left(chains, 500) == ["confirm", "kept-2-9", "was-2", "was-2-0"]
    assert chains.pending(600) == Pending(2, 0, 1)
    assert left(chains, 600) == []
    chains.tidy(500)
    assert chains.recorded() == [first]


def test_programs_are_kept_for_the_latest_alone(chains: History) -> None:
    change(chains, 400, 500, keeps=True)
    keep(chains, "kept-1-9")
    assert left(chains, 500) == []
    assert left(chains, 777) == []  # a swap of the root alone
    change(chains, 500, 600)
    keep(chains, "kept-2-10")
    assert left(chains, 600) == ["kept-1-9", "kept-2-10"]
    chains.note(chains.confirm, Pending(2, 0, 1))
    assert left(chains, 600) == ["kept-1-9"]
    chains.confirmed(600)
    assert left(chains, 600) == []
    assert not list(Path(chains.paths.directory).glob("kept-*"))


def test_nothing_is_remembered_without_a_chain(chains: History) -> None:
    """Unless it may have to come back."""
    change(chains, None, 500)
    assert chains.generations(None) == []
    last = change(chains, 500, None)
    assert chains.generations(None) == []
    chains.note(chains.confirm, Pending(last.number, 0, 1))
    assert len(chains.generations(None)) == 2
    assert chains.pending(None) == Pending(2, 0, 1)
    assert left(chains, Foreign()) == ["confirm", "was-1", "was-1-0", "was-2", "was-2-0"]
    chains.confirmed(None)
    assert os.listdir(chains.paths.directory) == []
    change(chains, 500, 0, keeps=True)
    assert chains.generations(None) == []
    keep(chains, "kept-1-9")
    assert len(chains.generations(None)) == 1


def test_what_was_gone_back_to_is_used_up(chains: History) -> None:
    first, *_ = (change(chains, n, n + 1) for n in (500, 501, 502))
    chains.note(chains.back, "2 600")
    assert len(chains.generations(503)) == 3
    assert left(chains, 503) == ["back"]
    assert chains.generations(600) == [first]
    assert left(chains, 600) == ["back", "was-2", "was-2-0", "was-3", "was-3-0"]


def back(chains: History, root: int, went: WentBack) -> None:
    """Record that a root takes the interface back, as a command does before its flip."""
    number, _blank, rest = went.text().partition(" ")
    chains.note(chains.back, f"{number} {root} {rest}")


def test_what_went_back_is_told(chains: History) -> None:
    """From the flip on, once, and as long as a chain runs."""
    change(chains, 500, 501)
    went = WentBack(1, 1_700_000_000, "late", "load", "removed a, b: priority 1 to 2", 1000)
    back(chains, 600, went)
    assert chains.went_back(501) == []
    assert chains.went_back(600) == [went]
    for _again in range(2):
        chains.tidy(600)
        assert chains.went_back(600) == [went]
    assert os.listdir(chains.paths.directory) == ["went-1"]
    later = replace(went, reason="asked", command="", what="", user=None)
    back(chains, 700, later)
    assert left(chains, 600) == ["back"]  # its flip did not come
    chains.tidy(600)
    assert chains.went_back(600) == [went]
    for root in range(700, 700 + LIMIT):
        back(chains, root, later)
        History(chains.paths.listed()).tidy(root)
        assert left(chains, root) == []
        later = replace(later, time=later.time + 1)
    assert len(chains.went_back(800)) == LIMIT
    assert went not in chains.went_back(800)
    chains.tidy(None)
    assert os.listdir(chains.paths.directory) == []


@pytest.mark.parametrize(
    "text",
    ["", "1", "1 2", "x 2 - late load", "1 2 - never load ", "1 -2 - late load "],
)
def test_a_record_of_going_back_that_cannot_be_read_is_none(chains: History, text: str) -> None:
    os.symlink(text or " ", f"{chains.paths.directory}/went-3")
    keep(chains, "went-4")  # no record at all
    assert chains.went_back(600) == []
    assert WentBack.parse(text) is None


def test_a_long_account_is_cut() -> None:
    state = state_of([])
    members = tuple(running(f"program_number_{n}", 1000 + n) for n in range(200))
    plan = replace(make_plan(state, Chain()), current=Chain(members))
    one = WentBack.of(None, plan, Terms(back=3), None)
    assert one.what.startswith("removed program_number_0; removed")
    assert len(one.text()) < 1100
    assert WentBack.parse(one.text()) == one


def test_who_changed_a_chain_is_recorded(chains: History) -> None:
    one = replace(change(chains, 500, 600), number=2, user=1000)
    chains.record(one)
    assert chains.recorded() == [replace(one, number=1, user=None), one]


@pytest.mark.parametrize(
    ("before", "after", "found"),
    [
        ([A, B], [A, B], []),
        ([A], [A, B], ["added fw"]),
        ([A, B], [B], ["removed a"]),
        ([A], [replace(A, id=99)], ["replaced a"]),
        ([A, B], [B, A], ["order: fw, a"]),
        ([A], [replace(A, priority=8)], ["a: priority 8"]),
        ([A], [replace(A, actions=4)], ["a: goes on at XDP_PASS"]),
        ([A], [replace(A, label="x")], ["a: label x"]),
        ([A], [replace(A, before=("b",))], ["a: runs before b"]),
        ([B], [replace(B, after=())], ["fw: runs after none"]),
    ],
)
def test_what_turns_one_chain_into_another(
    before: list[Member], after: list[Member], found: list[str]
) -> None:
    assert differences(Chain(tuple(before)), Chain(tuple(after))) == found


def test_an_empty_root_comes_and_goes() -> None:
    none, empty, full = Chain(), Chain(kept=True), Chain((A,))
    assert differences(none, empty) == ["added an empty root"]
    assert differences(empty, full) == ["added a"]
    assert differences(full, empty) == ["removed a", "left an empty root"]
    assert differences(empty, none) == ["removed the empty root"]
    assert differences(empty, empty) == differences(none, none) == []


def test_rules_that_changed() -> None:
    assert differences(Chain(rules=Rules(2, 2, 0)), Chain(rules=Rules(1, 1, 1))) == [
        "on end XDP_DROP",
        "on vacant XDP_DROP",
        "packets are counted",
    ]


def test_so_many_and_no_more(chains: History) -> None:
    for number in range(500, 500 + LIMIT + 2):
        change(chains, number, number + 1)
    assert len(chains.generations(501 + LIMIT + 1)) == LIMIT
    assert left(chains, 501 + LIMIT + 1) == ["was-1", "was-1-0", "was-2", "was-2-0"]


def test_a_chain_is_restored_of_what_there_is() -> None:
    there = {9}
    gone = running("gone", 11, tag="")
    held = running("held", 12, tag="", array_id=70)
    state = state_of([running("b", 10, priority=99), running("new", 13)])
    plan = replace(make_plan(state, Chain()), current=Chain((gone, B, A, held), Rules(0, 1)))
    one = Generation.of(1, state, plan, None, Terms("load"))
    chain, missing = one.restored(state, there.__contains__)
    assert [member.id for member in chain.members] == [10, 9]
    assert (chain.members[0].priority, chain.members[0].label) == (50, "fw")
    assert chain.members[0].array_id == 0  # what holds it now counts
    assert chain.rules == Rules(0, 1)
    assert missing == [gone, held]


@pytest.mark.parametrize(
    ("text", "found"), [("1 2 3", Pending(1, 2, 3)), ("1 2", None), ("1 2 x", None), ("", None)]
)
def test_the_record_of_a_confirmation(text: str, found: Pending | None) -> None:
    assert Pending.parse(text) == found
    assert found is None or str(found) == text


@pytest.mark.parametrize(
    ("text", "found"),
    [("30", 30), ("30s", 30), ("2m", 120), ("1h", 3600), ("0.5", 0.5), ("24h", 86400)],
)
def test_times(text: str, found: float) -> None:
    assert seconds(text) == found


@pytest.mark.parametrize(
    "text", ["", "0", "0s", "-1", "s", "1d", "1 m", "86401", "1e3", "٣", "inf"]
)
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(UsageError, match="is not a time"):
        seconds(text)


def test_a_member_s_record_holds_all_that_a_load_needs() -> None:
    """A field that is new in Member has to be recorded, too, or be found out."""
    found = {"tag", "size", "load_time", "source", "held", "replaces"}
    kept = set(Member.__dataclass_fields__) - found
    assert kept == {
        *("name", "priority", "actions", "frags", "id", "array_id", "devbound"),
        *("label", "before", "after", "image"),
    }


def test_an_empty_root_comes_back_as_one(chains: History) -> None:
    """And is told from an interface without a root; earlier records know no empty ones."""
    plan = make_plan(state_of([]), Chain((A,)))
    empty = Generation.of(1, state_of([]), plan, 600, Terms("load", keeps=True))
    none = Generation.of(2, state_of(None), make_plan(state_of(None), Chain((A,))), 600, Terms())
    for one, kept, words in ((empty, True, "an empty root"), (none, False, "no program")):
        assert Generation.parse(one.number, one.head(), "") == one
        assert one.chain.kept is kept
        assert one.words == words
        assert one.restored(state_of([A]), lambda _number: True) == (Chain(kept=kept), [])
    head = empty.head().split(" ")
    assert head[4] == "3"
    assert change(chains, 1, 2, keeps=True).head().split(" ")[4] == "1"
