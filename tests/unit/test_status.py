"""xdpctl.view.status: rows for scripts, tables for people, what is odd, documents."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.unit.samples import DROP, PASS, running, state_of
from tests.unit.terminal import document, on_terminal, without_colour
from xdpctl.cli.commands import status as command
from xdpctl.cli.run import run
from xdpctl.errors import RaceError, XdpctlError
from xdpctl.host import signals
from xdpctl.host.interfaces import Failure, Interface
from xdpctl.model.chain import XDP_DROP, Rules
from xdpctl.model.labels import Origin
from xdpctl.model.state import Mode, State
from xdpctl.view import status
from xdpctl.view.document import SCHEMA, show
from xdpctl.view.style import Style

MEMBERS = [
    running("first", 11, priority=10, actions=DROP | PASS),
    running("a_program_with_a_rather_long_name", 1234567, priority=2**32 - 1, actions=0),
    None,
    running("last", 14),
]
APP = Origin(90, 4711, "app")


def tool(*command: str, text: str) -> str:
    return subprocess.run(command, input=text, capture_output=True, text=True, check=False).stdout


# --- rows for scripts ---------------------------------------------------------------------------


def test_rows_parse_as_scripts_do(capsys: pytest.CaptureFixture[str]) -> None:
    status.status([state_of(None), state_of(MEMBERS), state_of([running("solo", 21)])])
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
    status.status([state_of(MEMBERS), state_of(None)])
    lines = capsys.readouterr().out.splitlines()
    roots = [line.split() for line in lines if line.startswith("veth7")]
    assert roots[0] == ["veth7", "xdp_dispatcher", "native", "500", "00112233aabbccdd"]
    assert roots[1] == ["veth7", "<No", "XDP", "program", "loaded!>"]
    assert "<No XDP program loaded!>" in "\n".join(lines)


def test_rows_carry_no_colour(capsys: pytest.CaptureFixture[str]) -> None:
    status.status([state_of(MEMBERS)])
    assert "\x1b" not in capsys.readouterr().out


def test_a_foreign_program_has_a_row_and_no_slots(capsys: pytest.CaptureFixture[str]) -> None:
    status.status([state_of([], owner="other", mode="skb", link_id=0)])
    captured = capsys.readouterr()
    assert re.search(r"^veth7 +firewall +skb +500 ", captured.out, re.MULTILINE)
    assert "=>" not in captured.out
    assert "program 500 (firewall) of another tool owns the hook (netlink)" in captured.err


# --- tables for people --------------------------------------------------------------------------


def test_markup_in_names_is_printed_as_it_is() -> None:
    names = ["[red]alarm", "[/]", "[bold", "x[link=http://a]", ":warning:"]
    members = [running(name, 30 + place) for place, name in enumerate(names)]
    shown = without_colour(on_terminal(lambda: status.status([state_of(members)])))
    for place, name in enumerate(names):
        (row,) = (line for line in shown.splitlines() if f" {30 + place} " in line)
        assert row.split()[1] == name


def test_a_terminal_shows_all_that_rows_show() -> None:
    text = on_terminal(lambda: status.status([state_of(MEMBERS), state_of(None)]))
    shown = without_colour(text)
    assert shown != text  # it is coloured
    assert "XDP_" not in shown
    for part in ("first", "1234567", "DROP,PASS", "native", "<vacant:prog2>", "none"):
        assert part in shown, part
    assert shown.count("=>") == 4
    assert "<No XDP program loaded!>" in shown


# --- what is odd --------------------------------------------------------------------------------


def test_nothing_is_odd_about_a_healthy_chain() -> None:
    assert status.remarks(state_of([running("first", 11)])) == []
    assert status.remarks(state_of(None)) == []


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
        (state_of([running("m", 8)], kind="fused", why=1), []),
        (
            state_of(
                [running("m", 8), running("held", 9), None, None],
                kind="fused",
                arrays={1: 70, 2: 71},
                lost={3: 12},
            ),
            [
                "held (id 9) belongs to a process: it goes when that does",
                "slot 2 is vacant: the process that held it is gone and packets pass it by",
                "slot 3 runs program 12, whose pin is gone: the next change leaves it out",
            ],
        ),
    ],
    ids=[
        *("vacant", "unpinned", "libxdp", "other", "residue"),
        *("borrowed", "of nobody seen", "orphan", "taken over", "stranded"),
        *("fused for want of EXT", "fused slots"),
    ],
)
def test_remarks(state: State, texts: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    found = status.remarks(state)
    assert len(found) == len(texts)
    for remark, text in zip(found, texts, strict=True):
        assert text in remark
    status.status([state])
    captured = capsys.readouterr()
    assert captured.err.splitlines() == [f"xdpctl: veth7: {remark}" for remark in found]


# --- documents ----------------------------------------------------------------------------------


def test_a_state_as_data(capsys: pytest.CaptureFixture[str]) -> None:
    show("status", {"state": status.state_data(state_of(MEMBERS, residue=("/left",)))})
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


def test_a_wide_state_as_data() -> None:
    """Its record is none of libxdp's protocol."""
    members = [running(f"p{number}", number + 1) for number in range(11)]
    root = status.state_data(state_of(members))["root"]
    assert (root["name"], root["kind"], root["protocol"]) == ("xdpctl_wide", "ext", None)


@pytest.mark.parametrize(("why", "name"), [(0, None), (1, "EPERM"), (22, "EINVAL"), (999, "999")])
def test_a_fused_state_as_data(why: int, name: str | None) -> None:
    members = [running("own", 8), running("held", 9), None]
    state = state_of(members, kind="fused", why=why, arrays={1: 70}, lost={2: 12})
    data = status.state_data(state)
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
    status.status([state_of(members, kind="fused", lost={1: 12})])
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["veth7", "xdpctl_fused", "native", "500", "00112233aabbccdd"] in rows
    assert ["=>", "50", "own", "8", f"{8:016x}", "XDP_PASS"] in rows


def test_whose_programs_slots_run_as_data() -> None:
    members = [running("own", 8), running("app's", 9), running("lost", 10), None]
    origins = {1: APP, 2: Origin(91, 0, "")}
    slots = status.state_data(state_of(members, origins=origins, orphans={2}))["programs"]
    assert [slot["borrowed"] for slot in slots] == [
        None,
        {"link_id": 90, "pid": 4711, "name": "app", "gone": False},
        {"link_id": 91, "pid": None, "name": None, "gone": True},
        None,
    ]
    json.dumps(slots)


def test_states_without_a_chain_as_data() -> None:
    bare = status.state_data(state_of(None))
    assert (bare["root"], bare["programs"]) == (None, [])
    foreign = status.state_data(state_of([], owner="other", link_id=0))
    assert (foreign["root"]["protocol"], foreign["programs"]) == (None, [])
    assert (foreign["root"]["kind"], foreign["root"]["ext_refused"]) == (None, None)
    assert (foreign["root"]["attach"], foreign["root"]["link_id"]) == ("netlink", None)
    json.dumps([bare, foreign])


@pytest.mark.parametrize(
    ("mode", "said"),
    [
        ("native", "runs alone, without a dispatcher (link 77)"),
        ("hw", "is offloaded to the card, where it runs alone, without a dispatcher (link 77)"),
    ],
)
def test_a_program_that_is_the_root(
    mode: Mode, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The row of xdp-loader's, none for a slot; what it is besides is told on standard error."""
    state = state_of([running("fw", 500)], kind="bare", mode=mode)
    status.status([state])
    out, err = capsys.readouterr()
    (row,) = [line.split() for line in out.splitlines() if line.startswith("veth7")]
    assert row == ["veth7", "firewall", mode, "500", "00112233aabbccdd"]
    assert "=>" not in out
    assert err == f"xdpctl: veth7: program 500 (firewall) {said}\n"
    found = status.state_data(state)
    assert (found["root"]["kind"], found["root"]["protocol"]) == ("bare", None)
    assert [program["id"] for program in found["programs"]] == [500]


# --- live ---------------------------------------------------------------------------------------

Look = list[State | Failure]
Looks = list[Look | type[RaceError]]


def looker(looks: Looks) -> Callable[[], Look]:
    """One look after the other, then the signal that ends it."""
    coming = iter(looks)

    def look() -> Look:
        found = next(coming, None)
        if found is None:
            os.kill(os.getpid(), signal.SIGTERM)
            return looks_last
        if isinstance(found, type):
            raise found("it changes too fast")
        looks_last[:] = found
        return found

    looks_last: Look = []
    return look


ONE, OTHER = state_of([running("one", 11)]), state_of([running("one", 11), running("two", 12)])
LOOKS: Looks = [[ONE], [ONE], RaceError, [OTHER], [OTHER], [ONE]]


def test_what_changes_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    with signals.handled():
        status.live(looker(LOOKS), Style(json=True), 0.01)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["schema"] for line in lines] == [SCHEMA] * 3
    assert [line["interfaces"] for line in lines] == [
        [status.state_data(state)] for state in (ONE, OTHER, ONE)
    ]
    with signals.handled():
        status.live(looker(LOOKS), Style(), 0.01)
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [row[3] for row in rows if row[:1] == ["=>"]] == ["11", "11", "12", "11"]


def test_a_live_table() -> None:
    """Drawn anew over itself, in full at the end; the line below says what is odd."""
    odd = state_of([running("[red]one", 11), None])

    def watch() -> None:
        with signals.handled():
            status.live(looker([[ONE], [odd]]), Style(), 0.01)

    text = on_terminal(watch)
    assert "\x1b[?25l" in text  # the cursor is hidden meanwhile
    assert "\x1b[?25h" in text.split("\x1b[?25l")[-1]
    last = without_colour(text).split("Interface")[-1]
    assert "[red]one" in last
    assert "veth7: slot 1 is vacant" in last


def test_one_of_several_that_cannot_be_read(capsys: pytest.CaptureFixture[str]) -> None:
    """Told once, beside the others; one that changes too fast is waited for."""
    broken = Failure(Interface("eth1", 8, "4711"), XdpctlError("it broke", why="so"))
    restless = Failure(broken.interface, RaceError("it changes too fast"))
    looks: Looks = [[ONE], [ONE, restless], [ONE, broken], [ONE, broken]]
    with signals.handled():
        status.live(looker(looks), Style(json=True), 0.01)
    lines = [json.loads(line)["interfaces"] for line in capsys.readouterr().out.splitlines()]
    assert lines == [[status.state_data(ONE)], [status.state_data(ONE), broken.as_dict()]]
    with signals.handled():
        status.live(looker(looks), Style(), 0.01)
    captured = capsys.readouterr()
    assert captured.out.count("=>") == 2
    assert captured.err == "xdpctl: eth1: it broke\n  why: so\n"

    def watch() -> None:
        with signals.handled():
            status.live(looker(looks), Style(), 0.01)

    assert "eth1: it broke" in without_colour(on_terminal(watch)).split("Interface")[-1]


def test_a_signal_ends_it_between_two_looks(capsys: pytest.CaptureFixture[str]) -> None:
    """Never within one: what is being read or printed comes to its end."""
    begin = time.monotonic()

    def look() -> list[State]:
        os.kill(os.getpid(), signal.SIGINT)
        return [ONE]

    with signals.handled():
        status.live(look, Style(json=True), 60)
    assert time.monotonic() - begin < 30
    assert len(capsys.readouterr().out.splitlines()) == 1
    with signals.handled():
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
        status.live(lambda: [ONE], Style(json=True), 60)
    assert time.monotonic() - begin < 30


def test_names_cannot_speak_to_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """A process may have any name, and so may an interface."""
    state = state_of([running("one", 11)], origins={0: Origin(90, 47, "a\x1b[2J\n\u202epp")})
    state = replace(state, interface=Interface("e\x1b0", 7, "4711"))
    status.status([state])
    captured = capsys.readouterr()
    assert "\x1b" not in captured.out + captured.err
    assert (
        "xdpctl: e\\x1b0: one (id 11) is borrowed from link 90 of 47 (a\\x1b[2J\\n\\u202epp)\n"
        in (captured.err)
    )
    assert "\\x1b0" in on_terminal(lambda: status.status([state]))


def test_a_vacant_slot_that_ends_packets_is_told_as_one() -> None:
    state = state_of([None])
    assert state.root
    closed = replace(state, root=replace(state.root, rules=Rules(on_vacant=XDP_DROP)))
    assert status.remarks(closed)[1] == "slot 0 is vacant: its link is gone and packets end there"


@pytest.mark.parametrize(
    ("words", "every"), [([], False), (["-a"], True), (["lo"], True), (["l*"], True)]
)
def test_which_interfaces_a_terminal_shows(
    words: list[str], every: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that are named, by -a or a name; else those that run something."""
    empty = replace(state_of(None), interface=Interface("lo", 1, "4711"))
    monkeypatch.setattr(command, "states", lambda *_arguments: [ONE, empty])
    for what in ("host.rights.require", "bpffs.mount.Bpffs.check_safe"):
        monkeypatch.setattr(f"xdpctl.{what}", lambda *_arguments: None)
    shown = on_terminal(lambda: print(run(["status", *words])))
    assert shown.endswith("0\n")
    assert ("lo  <No XDP program loaded!>" in shown) == every
    assert ("1 interface runs no XDP program (-a shows all)" in shown) != every
