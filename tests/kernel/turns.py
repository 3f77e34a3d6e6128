"""Which kernel tests `make test` runs in which guest, in which turn. A turn is a day.

A guest emulates its processor, and takes ten to thirty times as long as the machine's own kernel.
So guests share: each test runs in one of them, and comes to the other in the next turn. Those
marked every_kernel run in all of them every time. A test that another one of the same run stands in
for has its turn more rarely, as `period` says; `make test-matrix` and `make soak` know no turns.

tests/run sets what this reads: XDPCTL_QUICK, by `make test`; XDPCTL_SHARED, the directory in which
guests claim tests; XDPCTL_GUEST, "0/5/2" in the first guest of five, of which two run at a time;
XDPCTL_OWN, what of the tests' capabilities the machine's own kernel has, if it runs the tests on
fused roots.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import pytest

_T = TypeVar("_T")
TURN = int(os.environ.get("XDPCTL_TURN") or time.time() // 86400)
"""All that is tested in one run has the same."""
FUSED, TWIN, CASES = 8, 4, 4
"""Turns until a test on a fused root, one with a twin on a fused root, a case of a sweep (see
test_crash.py) has been in a guest."""
PHASES = 8
"""Turns until a case has been at all the places that it comes to."""


def case(kind: str | None) -> int:
    """Which of CASES a sweep is to take, in a turn that it has itself."""
    turn = TURN if kind == "ext" else TURN // FUSED
    # Guests take turns as well: the next time around, another one has the same case.
    return (turn + turn // CASES + turn // CASES**2) % CASES


def part(cases: Sequence[_T], kind: str | None, sweep: int = 0) -> list[_T]:
    """The cases of a sweep that have their turn: in a guest that shares one in CASES, else all.

    Of a few, it is all of them. Sweeps of the same cases have others each, by their number.
    """
    if len(cases) < CASES or here() is None:
        return [*cases]
    return [*cases[(case(kind) + sweep) % CASES :: CASES]]


def phase() -> int:
    # A guest comes to a sweep less often than each turn, and is to reach all phases, too.
    return TURN // (1 if here() is None else FUSED * CASES) % PHASES


@dataclass(frozen=True)
class Place:
    """Where a test run is: a guest that shares with others. There may be an own kernel's run."""

    shared: str
    guest: int
    guests: int
    own: frozenset[str] | None
    """The capabilities of the machine's own kernel; None if that runs no tests."""
    at_once: int = 1
    """How many guests run at a time."""


def here() -> Place | None:
    """None: all tests are run, as by `make test-matrix` and on the machine's own kernel."""
    if "XDPCTL_SHARED" not in os.environ:
        return None
    guest, guests, at_once = map(int, os.environ.get("XDPCTL_GUEST", "0/1/1").split("/"))
    own = os.environ.get("XDPCTL_OWN")
    known = None if own is None else frozenset(own.split())
    return Place(os.environ["XDPCTL_SHARED"], guest, guests, known, at_once)


@dataclass(frozen=True)
class Traits:
    """What a test is, as far as turns go."""

    number: int
    """The same in each run, and spread evenly over all tests."""
    kind: str | None
    """Of the roots it is made on; None if it makes none."""
    other_kind: bool
    """It is also made on roots of the other kind."""
    needs: frozenset[str]
    one_guest: bool
    every_kernel: bool
    """Of this kind, at least."""


def traits(item: pytest.Item, kind: str | None, needs: frozenset[str]) -> Traits:
    only, every = (item.get_closest_marker(name) for name in ("kinds", "every_kernel"))
    return Traits(
        _number(item.nodeid),
        kind,
        kind is not None and (only is None or len(only.args) > 1),
        needs,
        item.get_closest_marker("one_guest") is not None,
        every is not None and kind in (every.args or (kind,)),
    )


def digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:32]


def _number(name: str) -> int:
    return int(digest(name)[:8], 16)


def period(test: Traits, place: Place) -> int:
    """A guest runs the test once in so many turns."""
    # What is on a fused root the machine's own kernel runs in each turn, if it can.
    if test.every_kernel or place.own is None or not test.needs <= place.own:
        return 1
    if test.kind == "fused":
        return FUSED
    return TWIN if test.one_guest and test.kind == "ext" and test.other_kind else 1


def has_turn(test: Traits, place: Place) -> bool:
    every = period(test, place)
    # What has turns by TURN within, like the cases of a sweep, shall come to all of them.
    turn = TURN if every == FUSED else TURN // CASES
    return test.number % every == turn % every


def is_the_one(item: pytest.Item, fixture: str, count: int) -> bool:
    """Whether a fixture's parameter, one of `count`, has its turn in this test."""
    if "XDPCTL_QUICK" not in os.environ:
        return True
    test: Any = item
    number = _number(test.originalname)
    return bool((number + TURN) % count == test.callspec.indices[fixture])


def rank(test: Traits, place: Place) -> int:
    """0: for all guests; 1: this guest is to run it; 2: another one is, if it gets that far.

    3: one is that has not begun when this one ends.
    """
    if test.every_kernel:
        return 0
    # Its turns change guests, however far they are apart.
    turn = TURN // FUSED if period(test, place) == FUSED else TURN
    whose = (test.number // 64 + turn) % place.guests
    if whose == place.guest:
        return 1
    return 2 if whose < place.guest + place.at_once else 3


def arranged(items: list[Any], ranks: list[int]) -> list[Any]:
    """In the order in which guests begin with different tests, and end at the same time.

    What is another guest's this one takes from the end, because the other begins at the beginning.
    What is for later is left out.
    """
    both = [*zip(items, ranks, strict=True)]
    for_all, ours, others = ([item for item, rank in both if rank == one] for one in range(3))
    return [*for_all, *ours, *reversed(others)]
