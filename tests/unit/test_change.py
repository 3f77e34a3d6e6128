"""xdpctl.view.change: what was done, in words, steps and documents."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.unit.samples import chain_of, fresh, plan_of, running, state_of
from tests.unit.terminal import document
from xdpctl.change.report import Report, Step
from xdpctl.model.chain import Chain
from xdpctl.model.labels import Origin
from xdpctl.model.source import EmptyArray, SharedMap
from xdpctl.model.state import State
from xdpctl.view import change
from xdpctl.view.document import show_change
from xdpctl.view.remarks import place, remarks
from xdpctl.view.style import Style

APP = Origin(90, 4711, "app")


def report_of(state: State, target: Chain, root_id: int = 501) -> Report:
    """A report as it is after the plan was carried out: what was new has an id."""
    members = tuple(
        member if member.id else running(member.name, 90 + place)
        for place, member in enumerate(target.members)
    )
    steps = [Step("4", "loaded root Y", {"root": root_id}, 0.0125)]
    return Report(plan_of(state, target), state, members, root_id, steps, ("/left",))


CHANGE = (
    state_of([running("stays", 11), running("goes", 12)]),
    chain_of(fresh("comes", priority=1), running("stays", 11)),
)


def test_a_change_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    change.change("load", report_of(*CHANGE), Style())
    captured = capsys.readouterr()
    assert captured.out.splitlines() == [
        "veth7: loaded comes (id 90): first of two, before stays",
        "veth7: unloaded goes (id 12)",
    ]
    assert "what was left over: /left" in captured.err
    change.change("load", report_of(*CHANGE), Style(quiet=True))
    assert capsys.readouterr().out == ""


def test_a_change_tells_what_was_lost_before_it(capsys: pytest.CaptureFixture[str]) -> None:
    state = state_of([running("stays", 11), None])
    change.change("load", report_of(state, state.chain), Style())
    assert capsys.readouterr().err.splitlines()[1:] == [
        "xdpctl: veth7: slot 1 was vacant: it is lost and not carried over"
    ]


def test_a_change_tells_of_empty_arrays(capsys: pytest.CaptureFixture[str]) -> None:
    """A line each, with what could go there, if there is anything."""
    report = report_of(state_of([running("mine", 11, label="it")]), chain_of(running("it", 11)))
    report.members = (running("mine", 11, label="it"),)
    report.empty = [EmptyArray(11, "jumps", ("dropper", "passer")), EmptyArray(11, "more", ())]
    change.change("load", report, Style())
    assert capsys.readouterr().err.splitlines()[1:] == [
        "xdpctl: veth7: the program array jumps of it (id 11) is empty: dropper, passer of the "
        "same object can go there (--tail jumps[INDEX]=PROGRAM)",
        "xdpctl: veth7: the program array more of it (id 11) is empty, and no other program of the "
        "object can go there",
    ]
    arrays = change.report_data("load", report)["empty_arrays"]
    assert arrays[0] == {"program": 11, "array": "jumps", "fitting": ["dropper", "passer"]}


def test_a_change_tells_whose_maps_it_shares(capsys: pytest.CaptureFixture[str]) -> None:
    """A line a map, with some of the programs; all of them in a document."""
    report = report_of(state_of([running("mine", 11)]), chain_of(running("mine", 11)))
    report.members, report.root_id = (running("mine", 11),), 600
    where = ("packets", 70, "/bpffs/packets")
    report.shared = [SharedMap(11, *where, 20 + n, "count", f"veth{n}") for n in range(5)]
    report.shared.append(SharedMap(11, "flows", 71, "/bpffs/flows", 20, "it", "veth0"))
    change.change("load", report, Style())
    assert capsys.readouterr().err.splitlines()[1:] == [
        "xdpctl: veth7: map packets of mine is shared with count on veth0, count on veth1, count "
        "on veth2 and 2 more (pinned at /bpffs/packets)",
        "xdpctl: veth7: map flows of mine is shared with it on veth0 (pinned at /bpffs/flows)",
    ]
    shared = change.report_data("load", report)["shared_maps"]
    assert shared[5] == {
        "program": 11,
        "map": "flows",
        "map_id": 71,
        "pin": "/bpffs/flows",
        "with": {"interface": "veth0", "id": 20, "name": "it"},
    }
    change.change("load", report, Style(quiet=True))
    assert "shared" not in capsys.readouterr().err


def test_a_change_of_a_fused_root_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    """What is lost, whose program leaves with its process, and programs that are made anew."""
    state = state_of([running("stays", 11), None, None], kind="fused", arrays={1: 70}, lost={2: 13})
    report = report_of(state, state.chain)
    report.renewed[11] = 90
    change.change("load", report, Style())
    captured = capsys.readouterr()
    assert captured.err.splitlines()[1:] == [
        "xdpctl: veth7: slot 1 was vacant: it is lost and not carried over",
        "xdpctl: veth7: slot 2 ran program 13, whose pin is gone: it is lost and not carried over",
    ]
    assert captured.out == "veth7: program 11 is 90 now: a program of another kind of root\n"
    assert change.report_data("load", report)["renewed"] == [{"old": 11, "id": 90}]


def test_a_change_tells_who_leaves_for_want_of_an_owner(capsys: pytest.CaptureFixture[str]) -> None:
    members = [running("stays", 11), running("orphan", 12)]
    state = state_of(members, origins={0: APP, 1: APP}, orphans={1})
    change.change("load", report_of(state, state.chain), Style())
    captured = capsys.readouterr()
    assert captured.err.splitlines()[1:] == [
        "xdpctl: veth7: orphan (id 12) leaves: its owner's link 90 is gone"
    ]


def test_a_dry_run_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    state, target = CHANGE
    change.change("load", Report(plan_of(state, target), state), Style(dry_run=True))
    assert capsys.readouterr().out.splitlines() == [
        "veth7: would flip to a new root (native mode, ext)",
        "  slot 0: load comes (priority 1, goes on at XDP_PASS)",
        "  slot 1: keep id 11 stays (priority 50, goes on at XDP_PASS)",
        "  unload id 12 goes",
    ]
    planned = Report(plan_of(state, target, kind="fused"), state)
    change.change("load", planned, Style(dry_run=True))
    first = capsys.readouterr().out.splitlines()[0]
    assert first == "veth7: would flip to a new root (native mode, fused)"
    nothing = Report(plan_of(state_of(None), Chain()), state_of(None))
    change.change("unload", nothing, Style(dry_run=True))
    assert capsys.readouterr().out == "veth7: nothing to do\n"


@pytest.mark.parametrize("dry_run", [False, True])
def test_a_change_as_data(dry_run: bool, capsys: pytest.CaptureFixture[str]) -> None:
    state, target = CHANGE
    done = report_of(*CHANGE)
    planned = Report(plan_of(state, target), state)
    fields = change.report_data("load", planned if dry_run else done)
    show_change("load", fields, Style(dry_run=dry_run))
    data = document(capsys)
    assert (data["command"], data["interface"], data["dry_run"]) == ("load", "veth7", dry_run)
    assert (data["plan"]["flip"], data["plan"]["mode"]) == ("update", "native")
    assert (data["plan"]["kind"], data["renewed"]) == ("ext", [])
    assert [one["id"] for one in data["plan"]["current"]] == [11, 12]
    assert [one["id"] for one in data["plan"]["target"]] == [None, 11]
    assert data["plan"]["target"][0]["file"] == "/objects/comes.o"
    assert data["old_root"] == 500
    if dry_run:
        assert (data["new_root"], data["programs"], data["steps"]) == (None, [], [])
    else:
        assert data["new_root"] == 501
        assert [one["id"] for one in data["programs"]] == [90, 11]
        step = {"step": "4", "text": "loaded root Y", "root": 501, "seconds": 0.0125}
        assert data["steps"] == [step]
        assert data["removed"] == ["/left"]


# --- steps --------------------------------------------------------------------------------------


def test_steps(capsys: pytest.CaptureFixture[str]) -> None:
    step = Step("4'", "found first", {"program": 11, "link": 100}, 0.001234)
    assert change.step_line(step) == "step 4'  found first  [program=11 link=100]  1.23 ms"
    assert change.step_line(Step("7", "waited", {}, 0.5)) == "step 7   waited  500.00 ms"
    change.step_printer(False)(step)
    assert capsys.readouterr().out == ""
    change.step_printer(True)(step)
    assert capsys.readouterr().out == change.step_line(step) + "\n"


def remarks_of(state: State, target: Chain) -> list[str]:
    return [*remarks(report_of(state, target))]


def test_what_will_surprise() -> None:
    """The same code twice, slots that no packet reaches, a priority that decides nothing."""
    one, two = running("one", 11, tag="aa"), running("two", 12, tag="bb", priority=60)
    state = state_of([one, two])
    again = replace(fresh("new", priority=90), tag="bb")
    report = report_of(state, chain_of(one, two, again))
    report.members = (one, two, replace(report.members[2], tag="bb"))
    assert [*remarks(report)] == [
        "new (id 92) is the same code as two (id 12), which runs as well: xdpctl replace would "
        "take its place"
    ]
    silent = chain_of(replace(one, actions=0), two)
    told = ["one hands on no packet: two behind it will see none"]
    assert remarks_of(state, silent) == told
    assert remarks_of(state_of(silent.members), silent) == []  # it was so before
    assert remarks_of(state_of(silent.members), chain_of(*silent.members, fresh("new"))) == [
        "one hands on no packet: two, new behind it will see none"
    ]
    ordered = chain_of(replace(one, priority=99, before=("two",)), two)
    assert remarks_of(state, Chain(ordered.members)) == [
        "the priority of one has no effect: --before and --after decide its place (xdpctl set "
        "veth7 one --anywhere ends that)"
    ]
    assert remarks_of(state, chain_of(replace(one, priority=3), two)) == []


def test_a_kind_that_had_to_be_is_told_once() -> None:
    state, target = state_of(None), chain_of(fresh("new"))
    plan = plan_of(state, target, kind="auto", refused=1)
    (told,) = remarks(Report(plan, state, target.members, 501))
    assert told.startswith("the root is fused, because EXT programs are refused here (EPERM)")
    there = state_of([running("old", 11)], kind="fused", why=1)
    later = plan_of(there, there.chain)
    assert [*remarks(Report(later, there, there.chain.members, 502))] == []


@pytest.mark.parametrize(
    ("names", "slot", "told"),
    [
        ("a", 0, ""),
        ("ab", 0, "first of two, before b"),
        ("ab", 1, "second of two, after a"),
        ("abc", 1, "second of three, before c"),
        ("abcdefghijkl", 10, "slot 10, 11 of 12, before l"),
    ],
)
def test_places(names: str, slot: int, told: str) -> None:
    assert place([running(name, ord(name)) for name in names], slot) == told


def test_nothing_changed_and_adopted(capsys: pytest.CaptureFixture[str]) -> None:
    state, _target = CHANGE
    change.change("set", Report(plan_of(state, state.chain), state, state.chain.members), Style())
    assert capsys.readouterr().out == "veth7: nothing changed\n"
    change.change("adopt", report_of(*CHANGE), Style())
    assert "adopted comes (id 90): first of two" in capsys.readouterr().out
