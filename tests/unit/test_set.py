"""xdpctl set and replace: the command line, and the target that comes of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.unit.samples import DROP, PASS, built, plan_of, running, state_of
from xdpctl.change.report import Report
from xdpctl.cli.commands import replace as replace_command
from xdpctl.cli.commands import set, unload
from xdpctl.cli.run import run
from xdpctl.errors import UsageError, XdpctlError
from xdpctl.model.chain import Chain, Rules
from xdpctl.model.source import MapsAsked
from xdpctl.model.state import State
from xdpctl.view import change
from xdpctl.view.style import Style

BUSY = state_of([running("count", 9, priority=20), running("pass", 11, label="last")])
Asked = Callable[..., Chain]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    """Run a command line; the chain that it wants in the place of that of BUSY."""
    targets: list[Callable[[State], Chain]] = []

    def change(*words: Any, **_options: object) -> None:
        targets.append(words[4])

    for module in (set, replace_command, unload):
        monkeypatch.setattr(module, "change", change)

    def ask(*words: str, state: State = BUSY) -> Chain:
        assert run(list(words)) == 0
        return targets.pop()(state)

    return ask


def test_set_changes_what_it_is_told(asked: Asked) -> None:
    chain = asked("set", "lo", "last", "-P", "3", "-A", "drop", "--name", "x", "--before", "count")
    first = chain.members[0]
    assert (first.id, first.priority, first.actions) == (11, 3, DROP)
    assert (first.label, first.before) == ("x", ("count",))
    assert chain.members[1] == BUSY.chain.members[0]


def test_set_of_rules_leaves_the_members_alone(asked: Asked) -> None:
    chain = asked("set", "lo", "--on-end", "drop")
    assert chain == Chain(BUSY.chain.members, Rules(on_end=1))
    assert asked("set", "lo", "--on-vacant", "drop").rules == Rules(on_vacant=1)
    assert asked("set", "lo", "9", "-A", "none", "--on-end", "aborted").rules == Rules(on_end=0)


@pytest.mark.parametrize(
    "words",
    [
        ["count"],
        [],
        ["-P", "3"],
        ["--name", "x"],
        ["count", "--name", "1"],
        ["count", "--before", "a b"],
        ["count", "--on-end", "tx"],
        ["count", "-P", "-1"],
    ],
)
def test_what_set_does_not_take(words: list[str]) -> None:
    assert run(["set", "lo", *words]) == 2


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["count", "--after", "count"], 2),
        (["count", "--after", "gone"], 3),
        (["count", "--name", "last"], 2),
        (["count", "--name", "pass"], 2),
        (["12", "-P", "3"], 3),
    ],
)
def test_what_this_chain_does_not_allow(asked: Asked, words: list[str], code: int) -> None:
    with pytest.raises(XdpctlError) as caught:
        asked("set", "lo", *words)
    assert caught.value.exit_code == code


def test_nothing_can_be_set_on_an_empty_interface(asked: Asked) -> None:
    with pytest.raises(XdpctlError, match="no XDP program"):
        asked("set", "lo", "--on-end", "drop", state=state_of(None))


def test_replace_takes_the_old_ones_place_and_maps(asked: Asked) -> None:
    heir, other = asked("replace", "lo", "count", built("recount")).members
    assert (heir.name, heir.label, heir.id, heir.replaces) == ("recount", "count", 0, 9)
    assert (heir.priority, heir.actions, other.id) == (20, PASS, 11)
    assert heir.source is not None
    assert (heir.source.maps_of, heir.source.replaces, heir.source.forced) == (9, True, True)
    words = ["--maps", "new", "-A", "drop"]
    heir = asked("replace", "lo", "last", built("count"), *words).members[1]
    assert (heir.label, heir.actions, heir.priority) == ("last", DROP, 50)
    assert heir.source is not None
    assert heir.source.maps_of == 0


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], MapsAsked()),
        (["keep"], MapsAsked()),
        (["new"], MapsAsked(keeps=False)),
        (
            ["a=new", ".bss=/sys/fs/bpf/x=y"],
            MapsAsked(single=(("a", "new"), (".bss", "/sys/fs/bpf/x=y"))),
        ),
    ],
)
def test_whose_maps(words: list[str], expected: object) -> None:
    assert MapsAsked.parse(words, "--maps") == expected


@pytest.mark.parametrize(
    "words", [["some"], ["keep", "new"], ["new", "a=keep"], ["a="], [""], ["keep", "keep"]]
)
def test_what_says_nothing_of_maps(words: list[str]) -> None:
    with pytest.raises(UsageError, match="--maps"):
        MapsAsked.parse(words, "--maps")


def test_what_was_changed_is_told(asked: Asked, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["-P", "3", "-A", "none", "--name", "x", "--after", "count", "--on-end", "drop"]
    target = asked("set", "lo", "last", *words)
    plan = plan_of(BUSY, replace(target, members=target.members[::-1]))
    change.change("set", Report(plan, BUSY, plan.target.members), Style())
    assert capsys.readouterr().out.splitlines() == [
        "veth7: last (id 11): label x, priority 3, goes on at none, runs after count",
        "veth7: order: x, count",
        "veth7: on end drop, on vacant pass",
    ]
    back = BUSY.chain.with_changed(11, label="")
    change.change("rollback", Report(plan_of(BUSY, back), BUSY, back.members), Style())
    assert capsys.readouterr().out == "veth7: last (id 11): label none\n"
    target = asked("replace", "lo", "count", built("recount"))
    plan = plan_of(BUSY, target)
    after = (replace(target.members[0], id=30), target.members[1])
    change.change("replace", Report(plan, BUSY, after), Style())
    assert capsys.readouterr().out == "veth7: replaced count (id 9) with id 30\n"
    change.change("replace", Report(plan, BUSY), Style(dry_run=True))
    assert "slot 0: replace id 9 with count (priority 20" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "left"),
    [
        (["count"], [11]),
        (["9"], [11]),
        (["last"], [9]),
        (["-i", "9"], [11]),
        (["-n", "last"], [9]),
        (["count", "last"], []),
        (["count", "-i", "11"], []),
        (["-i", "9", "-n", "last", "count"], []),
        (["--all"], []),
    ],
)
def test_unload_takes_programs_by_any_of_their_names(
    words: list[str], left: list[int], asked: Asked
) -> None:
    """With --empty a root stays where no program does, and only there."""
    chain = asked("unload", "lo", *words)
    assert ([one.id for one in chain.members], chain.kept) == (left, False)
    chain = asked("unload", "lo", *words, "--empty")
    assert ([one.id for one in chain.members], chain.kept) == (left, not left)


def test_all_of_a_chain_whose_programs_have_one_name(asked: Asked) -> None:
    alike = state_of([running("count", 9), running("count", 11)])
    assert asked("unload", "lo", "-a", "--empty", state=alike) == Chain(kept=True)
    with pytest.raises(UsageError, match="2 programs of the chain are named count"):
        asked("unload", "lo", "count", state=alike)
