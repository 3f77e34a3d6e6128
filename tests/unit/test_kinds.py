"""The kinds of root: each has its data, its way of being built, and its reader."""

from __future__ import annotations

from typing import get_args

from xdpctl.model.chain import Kind
from xdpctl.model.kinds import CHOICES, FIRST, OFFLOADED, TRAITS
from xdpctl.observe import slots
from xdpctl.roots.kinds import root_kind

NAMES = set(get_args(Kind))


def test_each_kind_is_known_everywhere() -> None:
    assert set(TRAITS) == set(slots._SLOTS) == NAMES
    assert all(root_kind(one).name == one for one in TRAITS)


def test_what_is_asked_for_is_a_kind_of_a_chain() -> None:
    assert {kind for kind in CHOICES if kind != "auto"} == NAMES - {OFFLOADED}
    assert TRAITS[FIRST].instead in NAMES - {FIRST, OFFLOADED}


def test_what_a_process_holds_is_a_place_in_a_chain() -> None:
    for traits in TRAITS.values():
        assert traits.alone == (traits.holding is None)
