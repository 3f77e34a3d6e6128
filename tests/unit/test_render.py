"""xdpctl.render: rows as scripts parse them, tables as people see them, documents."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from tests.unit.samples import DROP, PASS, chain_of, fresh, running, state_of
from xdpctl import render
from xdpctl.chain import Chain
from xdpctl.commit import Report, Step
from xdpctl.holders import Holder
from xdpctl.observe import Handle, State
from xdpctl.pins import Origin
from xdpctl.plan import make_plan
from xdpctl.sweep import Event

MEMBERS = [
    running("first", 11, priority=10, actions=DROP | PASS),
    running("a_program_with_a_rather_long_name", 1234567, priority=2**32 - 1, actions=0),
    None,
    running("last", 14),
]
APP = Origin(90, 4711, "app")


def tool(*command: str, text: str) -> str:
    return subprocess.run(command, input=text, capture_output=True, text=True, check=False).stdout


def on_terminal(work: Callable[[], None], columns: int = 160) -> str:
    """What a function prints on a pseudo-terminal."""
    reading, slave = pty.openpty()
    with contextlib.ExitStack() as ending:
        ending.callback(os.close, reading)
        with pytest.MonkeyPatch.context() as patch, os.fdopen(slave, "w") as output:
            patch.setenv("TERM", "xterm")
            patch.setenv("COLUMNS", str(columns))
            patch.setattr(sys, "stdout", output)
            work()
        text = b""
        with contextlib.suppress(OSError):  # EIO: nobody holds the other end any more
            while chunk := os.read(reading, 4096):
                text += chunk
    return text.decode().replace("\r\n", "\n")


def without_colour(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


# --- rows for scripts ---------------------------------------------------------------------------


def test_rows_parse_as_scripts_do(capsys: pytest.CaptureFixture[str]) -> None:
    render.status([state_of(None), state_of(MEMBERS), state_of([running("solo", 21)])])
    output = capsys.readouterr().out
    assert tool("grep", "-c", "=>", text=output).strip() == "5"
    ids = tool("awk", "/=>/ {print $4}", text=output).split()
    assert ids == ["11", "1234567", "-", "14", "21"]
    priorities = tool("awk", "/=>/ {print $2}", text=output).split()
    assert priorities == ["10", "4294967295", "-", "50", "50"]
    names = tool("awk", "/=>/ {print $3}", text=output).split()
    assert names == ["first", MEMBERS[1].name, "<vacant:prog2>", "last", "solo"]  # type: ignore[union-attr]
    actions = tool("awk", "/=>/ {print $6}", text=output).split()
    assert actions == ["XDP_DROP,XDP_PASS", "none", "-", "XDP_PASS", "XDP_PASS"]


def test_the_row_of_an_interface(capsys: pytest.CaptureFixture[str]) -> None:
    render.status([state_of(MEMBERS), state_of(None)])
    lines = capsys.readouterr().out.splitlines()
    roots = [line.split() for line in lines if line.startswith("veth7")]
    assert roots[0] == ["veth7", "xdp_dispatcher", "native", "500", "00112233aabbccdd"]
    assert roots[1] == ["veth7", "<No", "XDP", "program", "loaded!>"]
    assert "<No XDP program loaded!>" in "\n".join(lines)


def test_rows_carry_no_colour(capsys: pytest.CaptureFixture[str]) -> None:
    render.status([state_of(MEMBERS)])
    assert "\x1b" not in capsys.readouterr().out


def test_a_foreign_program_has_a_row_and_no_slots(capsys: pytest.CaptureFixture[str]) -> None:
    render.status([state_of([], owner="other", mode="skb", link_id=0)])
    captured = capsys.readouterr()
    assert re.search(r"^veth7 +firewall +skb +500 ", captured.out, re.MULTILINE)
    assert "=>" not in captured.out
    assert "program 500 (firewall) of another tool owns the hook (netlink)" in captured.err


# --- tables for people --------------------------------------------------------------------------


def test_markup_in_names_is_printed_as_it_is() -> None:
    names = ["[red]alarm", "[/]", "[bold", "x[link=http://a]", ":warning:"]
    members = [running(name, 30 + place) for place, name in enumerate(names)]
    shown = without_colour(on_terminal(lambda: render.status([state_of(members)])))
    for place, name in enumerate(names):
        (row,) = (line for line in shown.splitlines() if f" {30 + place} " in line)
        assert row.split()[2] == name


def test_a_terminal_shows_all_that_rows_show() -> None:
    text = on_terminal(lambda: render.status([state_of(MEMBERS), state_of(None)]))
    shown = without_colour(text)
    assert shown != text  # it is coloured
    for part in ("first", "1234567", "XDP_DROP,XDP_PASS", "native", "<vacant:prog2>", "none"):
        assert part in shown, part
    assert shown.count("=>") == 4
    assert "<No XDP program loaded!>" in shown


# --- what is odd --------------------------------------------------------------------------------


def test_nothing_is_odd_about_a_healthy_chain() -> None:
    assert render.remarks(state_of([running("first", 11)])) == []
    assert render.remarks(state_of(None)) == []


@pytest.mark.parametrize(
    ("state", "texts"),
    [
        (state_of(MEMBERS), ["slot 2 is vacant"]),
        (state_of([running("m", 8)], pinned=False), ["m (id 8) hangs on link 100"]),
        (
            state_of([running("m", 8)], owner="libxdp", link_id=0),
            ["the dispatcher is not xdpctl's (attached by netlink)"],
        ),
        (state_of([], owner="other", link_id=9), ["of another tool owns the hook (link 9)"]),
        (state_of(None, residue=("/a", "/b")), ["left over: /a", "left over: /b"]),
        (
            state_of([running("m", 8), running("n", 9)], origins={0: APP}),
            ["m (id 8) is borrowed from link 90 of 4711 (app)"],
        ),
        (
            state_of([running("m", 8)], origins={0: Origin(90, 0, "")}),
            ["m (id 8) is borrowed from link 90 of a holder that cannot be seen"],
        ),
        (
            state_of([running("m", 8)], origins={0: APP}, orphans={0}),
            [
                "m (id 8) is borrowed from link 90 of 4711 (app), which is gone: the next change "
                "takes it out"
            ],
        ),
        # The owner has taken the link over.
        (
            state_of([running("m", 8)], origins={0: APP}, pinned=False),
            ["m (id 8) hangs on link 100, which xdpctl did not pin"],
        ),
        (
            state_of(None, stranded=400),
            ["root 400 was loaded here and runs on an interface that moved"],
        ),
        (state_of([running("m", 8)], kind="fused"), ["the root is fused, as asked"]),
        (
            state_of([running("m", 8)], kind="fused", why=1),
            ["the root is fused, because EXT programs are refused here (EPERM)"],
        ),
        (
            state_of(
                [running("m", 8), running("held", 9), None, None],
                kind="fused",
                arrays={1: 70, 2: 71},
                lost={3: 12},
            ),
            [
                "the root is fused, as asked",
                "held (id 9) belongs to a process: it goes when that does",
                "slot 2 is vacant: the process that held it is gone and packets pass it by",
                "slot 3 runs program 12, whose pin is gone: the next change leaves it out",
            ],
        ),
    ],
    ids=[
        *("vacant", "unpinned", "libxdp", "other", "residue"),
        *("borrowed", "of nobody seen", "orphan", "taken over", "stranded"),
        *("fused", "fused for want of EXT", "fused slots"),
    ],
)
def test_remarks(state: State, texts: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    found = render.remarks(state)
    assert len(found) == len(texts)
    for remark, text in zip(found, texts, strict=True):
        assert text in remark
    render.status([state])
    captured = capsys.readouterr()
    assert captured.err.splitlines() == [f"xdpctl: veth7: {remark}" for remark in found]


# --- documents ----------------------------------------------------------------------------------


def document(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert found["schema"] == render.SCHEMA
    assert captured.err == ""
    return dict(found)


def test_a_state_as_data(capsys: pytest.CaptureFixture[str]) -> None:
    render.print_json({"state": render.state_data(state_of(MEMBERS, residue=("/left",)))})
    state = document(capsys)["state"]
    assert (state["interface"], state["ifindex"], state["netns"]) == ("veth7", 7, "4711")
    assert state["residue"] == ["/left"]
    root = state["root"]
    assert (root["id"], root["name"], root["mode"]) == (500, "xdp_dispatcher", "native")
    assert (root["owner"], root["attach"], root["link_id"]) == ("xdpctl", "link", 77)
    assert (root["protocol"], root["frags"]) == (2, False)
    assert (root["kind"], root["ext_refused"]) == ("ext", None)
    slots = state["programs"]
    assert [slot["slot"] for slot in slots] == [0, 1, 2, 3]
    assert [slot["vacant"] for slot in slots] == [False, False, True, False]
    assert [slot.get("id") for slot in slots] == [11, 1234567, None, 14]
    assert slots[0]["actions"] == ["XDP_DROP", "XDP_PASS"]
    assert slots[1]["actions"] == []
    assert slots[0]["pin"] == "/bpffs/xdp/dispatch-7-500/prog0-link"
    assert slots[2]["link_id"] is None


@pytest.mark.parametrize(("why", "name"), [(0, None), (1, "EPERM"), (22, "EINVAL"), (999, "999")])
def test_a_fused_state_as_data(why: int, name: str | None) -> None:
    members = [running("own", 8), running("held", 9), None]
    state = state_of(members, kind="fused", why=why, arrays={1: 70}, lost={2: 12})
    data = render.state_data(state)
    root, slots = data["root"], data["programs"]
    assert (root["name"], root["owner"]) == ("xdpctl_fused", "xdpctl")
    assert (root["kind"], root["ext_refused"]) == ("fused", name)
    assert (root["protocol"], root["frags"]) == (None, False)
    assert [slot.get("id") for slot in slots] == [8, 9, None]
    assert [slot["link_id"] for slot in slots] == [None] * 3
    assert [slot["pin"] for slot in slots] == ["/bpffs/xdp/dispatch-7-500/prog0-prog", None, None]
    json.dumps(data)


def test_a_fused_root_has_the_rows_of_any(capsys: pytest.CaptureFixture[str]) -> None:
    members = [running("own", 8), None]
    render.status([state_of(members, kind="fused", lost={1: 12})])
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["veth7", "xdpctl_fused", "native", "500", "00112233aabbccdd"] in rows
    assert ["=>", "50", "own", "8", f"{8:016x}", "XDP_PASS"] in rows


def test_whose_programs_slots_run_as_data() -> None:
    members = [running("own", 8), running("app's", 9), running("lost", 10), None]
    origins = {1: APP, 2: Origin(91, 0, "")}
    slots = render.state_data(state_of(members, origins=origins, orphans={2}))["programs"]
    assert [slot["borrowed"] for slot in slots] == [
        None,
        {"link_id": 90, "pid": 4711, "name": "app", "gone": False},
        {"link_id": 91, "pid": None, "name": None, "gone": True},
        None,
    ]
    json.dumps(slots)


def test_states_without_a_chain_as_data() -> None:
    bare = render.state_data(state_of(None))
    assert (bare["root"], bare["programs"]) == (None, [])
    foreign = render.state_data(state_of([], owner="other", link_id=0))
    assert (foreign["root"]["protocol"], foreign["programs"]) == (None, [])
    assert (foreign["root"]["kind"], foreign["root"]["ext_refused"]) == (None, None)
    assert (foreign["root"]["attach"], foreign["root"]["link_id"]) == ("netlink", None)
    json.dumps([bare, foreign])


def report_of(state: State, target: Chain, root_id: int = 501) -> Report:
    """A report as it is after the plan was carried out: what was new has an id."""
    members = tuple(
        member if member.id else running(member.name, 90 + place)
        for place, member in enumerate(target.members)
    )
    steps = [Step("4", "loaded root Y", {"root": root_id}, 0.0125)]
    return Report(make_plan(state, target, None), state, members, root_id, steps, ("/left",))


CHANGE = (
    state_of([running("stays", 11), running("goes", 12)]),
    chain_of(fresh("comes", priority=1), running("stays", 11)),
)


def test_a_change_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    render.change("load", report_of(*CHANGE), render.Style())
    captured = capsys.readouterr()
    assert captured.out.splitlines() == [
        "veth7: loaded comes (id 90)",
        "veth7: unloaded goes (id 12)",
    ]
    assert "interrupted command left: /left" in captured.err
    render.change("load", report_of(*CHANGE), render.Style(quiet=True))
    assert capsys.readouterr().out == ""


def test_a_change_tells_what_was_lost_before_it(capsys: pytest.CaptureFixture[str]) -> None:
    state = state_of([running("stays", 11), None])
    render.change("load", report_of(state, state.chain), render.Style())
    assert capsys.readouterr().err.splitlines()[1:] == [
        "xdpctl: veth7: slot 1 was vacant: it is lost and not carried over"
    ]


def test_a_change_of_a_fused_root_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    """What is lost, whose program leaves with its process, and programs that are made anew."""
    state = state_of([running("stays", 11), None, None], kind="fused", arrays={1: 70}, lost={2: 13})
    report = report_of(state, state.chain)
    report.renewed[11] = 90
    render.change("load", report, render.Style())
    captured = capsys.readouterr()
    assert captured.err.splitlines()[1:] == [
        "xdpctl: veth7: slot 1 was vacant: it is lost and not carried over",
        "xdpctl: veth7: slot 2 ran program 13, whose pin is gone: it is lost and not carried over",
    ]
    assert captured.out == "veth7: program 11 is 90 now: a program of another kind of root\n"
    assert render.report_data("load", report)["renewed"] == [{"old": 11, "id": 90}]


def test_a_change_tells_who_leaves_for_want_of_an_owner(capsys: pytest.CaptureFixture[str]) -> None:
    members = [running("stays", 11), running("orphan", 12)]
    state = state_of(members, origins={0: APP, 1: APP}, orphans={1})
    render.change("load", report_of(state, state.chain), render.Style())
    captured = capsys.readouterr()
    assert captured.err.splitlines()[1:] == [
        "xdpctl: veth7: orphan (id 12) leaves: its owner's link 90 is gone"
    ]


def test_a_dry_run_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    state, target = CHANGE
    render.change("load", Report(make_plan(state, target, None), state), render.Style(dry_run=True))
    assert capsys.readouterr().out.splitlines() == [
        "veth7: would flip to a new root (native mode, ext)",
        "  slot 0: load comes (priority 1, goes on at XDP_PASS)",
        "  slot 1: keep id 11 stays (priority 50, goes on at XDP_PASS)",
        "  unload id 12 goes",
    ]
    planned = Report(make_plan(state, target, kind="fused"), state)
    render.change("load", planned, render.Style(dry_run=True))
    first = capsys.readouterr().out.splitlines()[0]
    assert first == "veth7: would flip to a new root (native mode, fused)"
    nothing = Report(make_plan(state_of(None), Chain(), None), state_of(None))
    render.change("unload", nothing, render.Style(dry_run=True))
    assert capsys.readouterr().out == "veth7: nothing to do\n"


@pytest.mark.parametrize("dry_run", [False, True])
def test_a_change_as_data(dry_run: bool, capsys: pytest.CaptureFixture[str]) -> None:
    state, target = CHANGE
    done = report_of(*CHANGE)
    planned = Report(make_plan(state, target, None), state)
    render.print_json(
        {**render.report_data("load", planned if dry_run else done), "dry_run": dry_run}
    )
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


def test_a_swap_as_data(capsys: pytest.CaptureFixture[str]) -> None:
    state = CHANGE[0]
    holding: dict[Handle, list[Holder]] = {
        ("link_id", 100): [Holder(42, "app", 5)],
        ("link_id", 101): [],
    }
    render.swap(report_of(state, state.chain), holding, True, render.Style(json=True))
    data = document(capsys)
    assert data["command"] == "swap-dispatcher"
    assert data["holders"] == {"100": [{"pid": 42, "name": "app", "fd": 5}], "101": []}
    assert data["old_root_gone"] is True
    assert data["before"]["root"]["id"] == 500


# --- events -------------------------------------------------------------------------------------

EVENTS = [
    Event("eth0", "removed /bpffs/xdp/left", "left by an interrupted command"),
    Event("-", "removed /bpffs/xdp/gone", "its interface is gone"),
]


def test_events(capsys: pytest.CaptureFixture[str]) -> None:
    render.events("clean", iter(EVENTS), render.Style())
    assert capsys.readouterr().out.splitlines() == [
        "eth0: removed /bpffs/xdp/left: left by an interrupted command",
        "-: removed /bpffs/xdp/gone: its interface is gone",
    ]
    done = iter(EVENTS)
    render.events("clean", done, render.Style(quiet=True))
    assert capsys.readouterr().out == ""
    assert list(done) == []  # each is carried out, told or not
    render.events("clean", EVENTS, render.Style(quiet=True, dry_run=True))
    first, _second = capsys.readouterr().out.splitlines()
    assert first.startswith("eth0: would have removed ")


def test_events_as_data(capsys: pytest.CaptureFixture[str]) -> None:
    render.events("clean", EVENTS, render.Style(json=True, dry_run=True))
    data = document(capsys)
    assert (data["command"], data["dry_run"]) == ("clean", True)
    assert data["events"] == [event._asdict() for event in EVENTS]


def test_events_as_they_happen(capsys: pytest.CaptureFixture[str]) -> None:
    for style, lines in (
        (render.Style(), ["eth0: removed /bpffs/xdp/left: left by an interrupted command"]),
        (render.Style(quiet=True), []),
    ):
        render.event_printer(style)(EVENTS[0])
        assert capsys.readouterr().out.splitlines() == lines
    tell = render.event_printer(render.Style(json=True))
    for event in EVENTS:
        tell(event)
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line) for line in lines] == [
        {"schema": render.SCHEMA, **event._asdict()} for event in EVENTS
    ]


# --- steps --------------------------------------------------------------------------------------


def test_steps(capsys: pytest.CaptureFixture[str]) -> None:
    step = Step("4'", "found first", {"program": 11, "link": 100}, 0.001234)
    assert render.step_line(step) == "step 4'  found first  [program=11 link=100]  1.23 ms"
    assert render.step_line(Step("7", "waited", {}, 0.5)) == "step 7   waited  500.00 ms"
    render.step_printer(False)(step)
    assert capsys.readouterr().out == ""
    render.step_printer(True)(step)
    assert capsys.readouterr().out == render.step_line(step) + "\n"


def test_the_steps_of_others_and_who_holds_them(capsys: pytest.CaptureFixture[str]) -> None:
    state = state_of(MEMBERS)
    held: dict[Handle, list[Holder]] = {
        ("link_id", 100): [Holder(42, "app", 5)],
        ("link_id", 101): [],
        ("link_id", 103): [],
    }
    render.first_steps(state, held)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "step 1   root X runs on veth7  [root=500 btf=40]"
    assert "[root_link=77] /bpffs/xdp/xdpctl-4711-7/root_link" in lines[1]
    assert lines[2].endswith(
        "held by pin /bpffs/xdp/dispatch-7-500/prog0-link, process 42 (app) fd 5"
    )
    assert lines[4] == "step 3   slot 2 of X is vacant"
    assert len(lines) == 6
    render.first_steps(state_of([running("m", 8)], link_id=0), held)
    assert capsys.readouterr().out.splitlines()[1] == "step 1'  X is attached by netlink"
    render.first_steps(state_of([running("m", 8)], pinned=False), {("link_id", 100): []})
    assert capsys.readouterr().out.splitlines()[2].endswith("held by nobody to be seen")


def test_the_steps_of_a_fused_root_and_who_holds_its_members(
    capsys: pytest.CaptureFixture[str],
) -> None:
    state = state_of([running("own", 8), running("held", 9)], kind="fused", arrays={1: 70})
    held: dict[Handle, list[Holder]] = {("map_id", 70): [Holder(42, "app", 5)]}
    render.first_steps(state, held)
    assert capsys.readouterr().out.splitlines()[2:] == [
        "step 3   own is fused into X as prog0  [program=8 root=500]  "
        "held by pin /bpffs/xdp/dispatch-7-500/prog0-prog",
        "step 3   held is fused into X as prog1  [program=9 root=500]  "
        "held by process 42 (app) fd 5",
    ]
    render.swap(report_of(state, state.chain), held, True, render.Style(json=True))
    assert json.loads(capsys.readouterr().out)["holders"] == {
        "70": [{"pid": 42, "name": "app", "fd": 5}]
    }
