"""Guests of `make test` share tests and take turns: nothing is left out, however turns fall."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.kernel import turns
from tests.kernel.turns import Place, Traits

NATIVE = frozenset({"frags", "xdp_link"})
GUESTS = [Place("", number, 2, NATIVE, 2) for number in range(2)]
EXT = Traits(0, "ext", True, frozenset(), False, False)
FUSED = replace(EXT, kind="fused")
NUMBERS = [number * 0x9E3779B1 % 2**32 for number in range(1, 40)]
FIRST = 20786


def at(monkeypatch: pytest.MonkeyPatch, turn: int) -> None:
    monkeypatch.setattr(turns, "TURN", FIRST + turn)


@pytest.mark.parametrize(
    "test",
    [
        EXT,
        replace(EXT, one_guest=True, other_kind=False),
        replace(EXT, one_guest=True, needs=frozenset({"vlan"})),
        replace(FUSED, needs=frozenset({"frags", "vlan"})),
        replace(FUSED, every_kernel=True),
        replace(EXT, kind=None),
    ],
)
def test_what_nothing_stands_in_for_is_run_each_turn(test: Traits) -> None:
    for number in NUMBERS:
        for place in GUESTS:
            assert turns.has_turn(replace(test, number=number), place)


@pytest.mark.parametrize("test", [EXT, FUSED, replace(EXT, one_guest=True)])
def test_without_an_own_kernel_nothing_takes_turns(test: Traits) -> None:
    for number in NUMBERS:
        assert turns.has_turn(replace(test, number=number), Place("", 0, 1, None))


@pytest.mark.parametrize(
    ("test", "every", "span"),
    [
        (FUSED, turns.FUSED, 1),
        (replace(FUSED, needs=frozenset({"frags"})), turns.FUSED, 1),
        (replace(EXT, one_guest=True), turns.TWIN, turns.CASES),
    ],
)
def test_what_runs_on_the_own_kernel_has_its_turn(
    monkeypatch: pytest.MonkeyPatch, test: Traits, every: int, span: int
) -> None:
    """So often in so many turns; `span` turns one after the other, for cases within the test."""
    for number in NUMBERS:
        had = []
        for turn in range(2 * every * span):
            at(monkeypatch, turn)
            had.append(turns.has_turn(replace(test, number=number), GUESTS[0]))
        assert sum(had[: every * span]) == span
        assert had[: every * span] == had[every * span :]


def test_a_test_goes_to_the_other_guest_in_the_next_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    for number in NUMBERS:
        ranks = []
        for turn in range(2):
            at(monkeypatch, turn)
            ranks.append([turns.rank(replace(EXT, number=number), place) for place in GUESTS])
        assert sorted(ranks) == [[1, 2], [2, 1]]
    assert {turns.rank(replace(EXT, every_kernel=True), place) for place in GUESTS} == {0}


def test_a_test_that_comes_rarely_goes_to_the_other_guest_as_well(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for number in NUMBERS:
        reached = set()
        for turn in range(2 * turns.FUSED):
            at(monkeypatch, turn)
            for guest, place in enumerate(GUESTS):
                test = replace(FUSED, number=number)
                if turns.has_turn(test, place) and turns.rank(test, place) == 1:
                    reached.add(guest)
        assert reached == {0, 1}


def test_a_part_of_a_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it, but in a guest that shares; there all of it in a week."""
    cases = [*range(11)]
    assert turns.part(cases, "ext") == cases
    monkeypatch.setenv("XDPCTL_SHARED", "")
    assert turns.part(cases[:3], "ext") == cases[:3]
    parts = []
    for turn in range(7):
        at(monkeypatch, turn)
        parts.append(turns.part(cases, "ext"))
    assert {one for some in parts for one in some} == {*cases}
    assert {len(one) for one in parts} == {2, 3}


def test_more_guests_than_run_at_once_leave_each_other_their_parts() -> None:
    """The first ones would run everything. What one's kernel lacks, a later one takes."""
    guests = [Place("", number, 5, NATIVE, 2) for number in range(5)]
    for number in NUMBERS:
        ranks = [turns.rank(replace(EXT, number=number), place) for place in guests]
        whose = ranks.index(1)
        assert ranks == [
            *[3] * max(whose - 1, 0),
            *[2] * min(whose, 1),
            1,
            *[2] * (4 - whose),
        ]


@pytest.mark.parametrize("test", [FUSED, replace(EXT, one_guest=True)])
def test_a_sweep_comes_to_all_its_cases_in_all_phases(
    monkeypatch: pytest.MonkeyPatch, test: Traits
) -> None:
    """test_crash.py: in the turns that it has itself."""
    monkeypatch.setenv("XDPCTL_SHARED", "")
    for number in range(turns.FUSED):
        reached = set()
        for turn in range(turns.FUSED * turns.CASES * (turns.PHASES + 1)):
            at(monkeypatch, turn)
            if turns.has_turn(replace(test, number=number), GUESTS[0]):
                reached.add((turns.case(test.kind), turns.phase()))
        assert len(reached) == turns.CASES * turns.PHASES


@pytest.mark.parametrize("test", [EXT, replace(EXT, one_guest=True), FUSED])
def test_each_case_of_a_sweep_comes_to_both_guests(
    monkeypatch: pytest.MonkeyPatch, test: Traits
) -> None:
    reached = set()
    for turn in range(4 * turns.FUSED * turns.CASES):
        at(monkeypatch, turn)
        for guest, place in enumerate(GUESTS):
            if turns.has_turn(test, place) and turns.rank(test, place) == 1:
                reached.add((guest, turns.case(test.kind)))
    assert len(reached) == 2 * turns.CASES


def test_the_order_in_which_guests_begin() -> None:
    class Item:
        """A test, as far as its place goes."""

    items = [Item() for _ in range(7)]
    got = turns.arranged(items, [2, 1, 0, 2, 1, 2, 3])
    assert [items.index(one) for one in got] == [2, 1, 4, 5, 3, 0]
