"""xdpctl.model.chain: actions, order, who leaves."""

from __future__ import annotations

import functools
import random
from dataclasses import replace
from typing import Any

import pytest

from tests.unit.samples import DROP, PASS, TX, chain_of, fresh, running
from xdpctl.errors import NotFoundError, UsageError
from xdpctl.model.chain import (
    ACTIONS,
    Chain,
    Member,
    Rules,
    action_names,
    check_label,
    format_actions,
    parse_actions,
)

NUMBERS = {"XDP_ABORTED": 0, "XDP_DROP": 1, "XDP_PASS": 2, "XDP_TX": 3, "XDP_REDIRECT": 4}


@pytest.mark.parametrize(("name", "number"), NUMBERS.items())
def test_every_action_parses_in_every_spelling(name: str, number: int) -> None:
    short = name.removeprefix("XDP_")
    for text in (name, name.lower(), short, short.lower(), short.title(), f"  {name} "):
        assert parse_actions(text) == 1 << number, text
    assert format_actions(1 << number) == name


@pytest.mark.parametrize(
    ("text", "mask"),
    [
        ("none", 0),
        (" NONE ", 0),
        ("XDP_PASS,drop", PASS | DROP),
        ("pass , xdp_tx,PASS", PASS | TX),
        ("aborted,drop,pass,tx,redirect", 0b11111),
    ],
)
def test_lists_of_actions(text: str, mask: int) -> None:
    assert parse_actions(text) == mask


@pytest.mark.parametrize(
    "text", ["", ",", "XDP_PASS,", "PASSED", "XDP_", "XDP_XDP_PASS", "2", "pass;drop", "none,pass"]
)
def test_what_is_no_action_is_refused_with_the_names_there_are(text: str) -> None:
    with pytest.raises(UsageError, match="unknown chain action") as caught:
        parse_actions(text)
    assert caught.value.exit_code == 2
    for name in (*NUMBERS, "none"):
        assert name in caught.value.hint


def test_the_word_that_is_wrong_is_named() -> None:
    with pytest.raises(UsageError, match="'dorp'"):
        parse_actions("pass,dorp,tx")


def test_masks_are_written_as_xdp_loader_does() -> None:
    assert format_actions(0) == "none"
    assert format_actions(TX | PASS) == "XDP_PASS,XDP_TX"
    # Bit 31 is the stub's own answer and no action; a bit without a name is not lost.
    assert format_actions(1 << 31) == "none"
    assert action_names(PASS | 1 << 9 | 1 << 31) == ["XDP_PASS", "9"]


def test_every_mask_survives_its_text() -> None:
    for mask in range(1 << len(ACTIONS)):
        assert parse_actions(format_actions(mask)) == mask


# --- order --------------------------------------------------------------------------------------


def libxdp_rule(one: Member, other: Member) -> int:
    """libxdp's comparison of two programs, a step at a time."""
    if one.priority != other.priority:
        return -1 if one.priority < other.priority else 1
    if one.name != other.name:
        return -1 if one.name.encode() < other.name.encode() else 1
    if bool(one.id) != bool(other.id):
        return -1 if one.id else 1
    if one.size != other.size:
        return -1 if one.size < other.size else 1
    if one.tag != other.tag:
        return -1 if bytes.fromhex(one.tag) < bytes.fromhex(other.tag) else 1
    return (one.load_time > other.load_time) - (one.load_time < other.load_time)


def some_members(chance: random.Random, count: int) -> list[Member]:
    """Members with few values to choose from, so that every rule has ties to break."""
    members = []
    for number in range(count):
        name, priority = chance.choice("abB"), chance.choice((0, 50, 2**32 - 1))
        size = chance.choice((16, 800))
        if chance.random() < 0.6:
            # One size a tag: see there for which of the two libxdp looks at in loaded programs.
            tag, time = f"{size:016x}", chance.choice((5, 7, 9))
            values = {"priority": priority, "size": size, "tag": tag, "load_time": time}
            members.append(running(name, 900 - number, **values))
        else:
            members.append(fresh(name, priority=priority, size=size))
    return members


@pytest.mark.parametrize("seed", range(60))
def test_the_order_is_libxdps_however_members_come(seed: int) -> None:
    chance = random.Random(seed)
    members = some_members(chance, chance.randint(1, 12))
    expected = sorted(members, key=functools.cmp_to_key(libxdp_rule))
    chain = Chain()
    chance.shuffle(members)
    while members:
        batch = chance.randint(1, len(members))
        chain = chain.with_added(members[:batch])
        del members[:batch]
    assert [one.order for one in chain.members] == [one.order for one in expected]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (fresh("z", priority=49), running("a", 1, priority=50)),
        (fresh("a"), running("b", 1)),
        (fresh("B"), fresh("a")),
        (running("a", 1, size=800), fresh("a", size=16)),
        (fresh("a", size=16), fresh("a", size=24)),
        (running("a", 9, tag="0a", load_time=8), running("a", 1, tag="a0", load_time=5)),
        (running("a", 9, tag="0a", load_time=5), running("a", 1, tag="0a", load_time=8)),
    ],
    ids=["priority", "name", "bytes of the name", "loaded", "size", "tag", "load time"],
)
def test_each_rule_comes_before_the_next(first: Member, second: Member) -> None:
    assert Chain().with_added([second, first]).members == (first, second)
    assert Chain().with_added([first]).with_added([second]).members == (first, second)


# --- order constraints --------------------------------------------------------------------------


def called(chain: Chain) -> str:
    return "".join(member.known_as for member in chain.members)


@pytest.mark.parametrize(
    ("asked", "order"),
    [
        ({}, "abcd"),
        ({"c": {"before": ("a",)}}, "cabd"),
        ({"a": {"after": ("c",)}}, "bcad"),
        ({"a": {"after": ("c", "b")}}, "bcad"),
        ({"d": {"before": ("b",), "after": ("a",)}}, "adbc"),
        ({"d": {"before": ("a",)}, "c": {"before": ("d",)}}, "cdab"),
        ({"a": {"after": ("nobody",), "before": ("a",)}}, "abcd"),
    ],
)
def test_who_asked_for_it_moves(asked: dict[str, dict[str, Any]], order: str) -> None:
    """The others keep their order; a name that nobody has, or one's own, asks for nothing."""
    members = [running(name, number) for number, name in enumerate("abcd", 1)]
    members = [replace(one, **asked.get(one.name, {})) for one in members]
    assert called(Chain().with_added(members)) == order
    for number in range(1, 4):
        assert called(Chain().with_added(members[:number]).with_added(members[number:])) == order


def test_equal_ones_move_together() -> None:
    """The same file twice, not loaded yet: nothing but their places tells them apart."""
    twins = [fresh("twin", priority=60, before=("other",)) for _ in range(2)]
    found = Chain().with_added([*twins, fresh("other", priority=1)]).members
    assert [one.name for one in found] == ["twin", "twin", "other"]


def test_what_contradicts_itself_is_refused() -> None:
    one, other = fresh("one", before=("other",)), fresh("other", before=("one",))
    with pytest.raises(UsageError, match="such an order") as caught:
        Chain().with_added([one, other])
    assert caught.value.why == "one before other; other before one"


def test_a_label_stands_for_the_name() -> None:
    chain = chain_of(running("a", 1, label="z"), running("b", 2), running("z", 3))
    assert called(chain.with_added([fresh("y")])) == "byzz"
    assert chain.find("z").id == 1
    assert chain.find("a").id == 1
    assert chain.find("3").id == 3


@pytest.mark.parametrize("text", ["", "12", "a b", "a/b", "a,b", "-", "x" * 65, "ä", "a\n"])
def test_what_cannot_be_a_label(text: str) -> None:
    with pytest.raises(UsageError):
        check_label(text)


def test_changed_values_move_a_member_and_keep_the_rules() -> None:
    chain = Chain((running("a", 1), running("b", 2)), Rules(on_end=1))
    changed = chain.with_changed(2, priority=3)
    assert (called(changed), changed.rules) == ("ba", Rules(on_end=1))
    assert changed.without(["b"]).with_added([fresh("0")]).rules == Rules(on_end=1)


def test_who_replaces_a_program_stands_where_it_stood() -> None:
    old = running("b", 2, priority=7, label="", before=("c",), after=("a",))
    chain = Chain((running("c", 3), old, running("a", 1)), Rules(0, 1))
    replaced = chain.with_replaced(old, fresh("new", priority=1))
    heir = replaced.members[1]
    assert (heir.replaces, heir.label, heir.priority, heir.before, heir.after) == (
        *(2, "b", 7),
        *(("c",), ("a",)),
    )
    assert [one.id for one in replaced.members] == [3, 0, 1]
    assert replaced.rules == Rules(0, 1)
    assert chain.with_replaced(old, fresh("b")).members[1].label == ""
    named = replace(old, label="fw")
    assert chain.with_replaced(named, fresh("b")).members[1].label == "fw"


# --- leaving ------------------------------------------------------------------------------------

TWINS = chain_of(running("a", 1), running("twin", 2), running("b", 3), running("twin", 4))


@pytest.mark.parametrize(
    ("ids", "names", "left"),
    [
        ([], [], [1, 2, 3, 4]),
        ([2], [], [1, 3, 4]),
        ([4, 1, 4], [], [2, 3]),
        ([], ["b"], [1, 2, 4]),
        ([], ["b", "a", "b"], [2, 4]),
        ([2], ["a"], [3, 4]),
        ([1, 2, 3, 4], [], []),
    ],
)
def test_without(ids: list[int], names: list[str], left: list[int]) -> None:
    assert [one.id for one in TWINS.without([*ids, *names]).members] == left


def test_a_name_that_two_have_asks_for_an_id() -> None:
    with pytest.raises(UsageError, match="2 programs of the chain are named twin") as caught:
        TWINS.without(["twin"])
    assert "2 or 4" in caught.value.hint


@pytest.mark.parametrize(
    ("ids", "names", "missing"),
    [([5], [], "5"), ([1, 0], [], "0"), ([], ["A"], "A"), ([], ["twi"], "twi"), ([1], ["c"], "c")],
)
def test_what_is_not_there_cannot_leave(ids: list[int], names: list[str], missing: str) -> None:
    with pytest.raises(NotFoundError, match=rf"\b{missing} in the chain") as caught:
        TWINS.without([*ids, *names])
    assert caught.value.exit_code == 3
    assert len(TWINS.members) == 4


def test_a_root_may_stay_without_members() -> None:
    """Only a chain without members is kept: with some it has a root anyway."""
    empty = Chain(kept=True)
    assert empty.has_root
    assert not Chain().has_root
    one = running("one", 1)
    full = empty.with_added([one])
    assert full == Chain().with_added([one]) == Chain((one,))
    assert full.if_empty(kept=True) == full
    assert full.without([1]) == Chain()
    assert full.without([1]).if_empty(kept=True) == empty
    assert empty.with_added([]) == empty
