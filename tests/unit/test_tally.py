"""xdpctl.view.tally: what was counted, and the paths of packets, as they are shown."""

from __future__ import annotations

import json
import signal
from typing import Any

import pytest

from tests.unit.samples import ending_signals, running, send, state_of
from tests.unit.test_render import on_terminal
from xdpctl.errors import RaceError
from xdpctl.roots.count_code import Counted
from xdpctl.roots.counting import Reading
from xdpctl.traffic.incidents import Incident, Map, Program
from xdpctl.traffic.trace import Packet, Step
from xdpctl.view import tally
from xdpctl.view.render import Style
from xdpctl.view.tally import Look

EVIL = running("evil\x1b[2J", 12)
STATE = state_of([running("count", 11, label="wall"), None, EVIL])


def cells(**verdicts: tuple[int, int, int]) -> tuple[tuple[int, int, int], ...]:
    names = ("aborted", "drop", "passed", "tx", "redirect", "other")
    return tuple(verdicts.get(name, (0, 0, 0)) for name in names)


FIRST = Counted(900, 2, cells(drop=(30, 0, 0), passed=(0, 70, 0)))
SECOND = Counted(0, 0, cells(drop=(3, 7, 0), passed=(0, 0, 58), other=(2, 0, 0)))
BEFORE = Counted(0, 0, cells(drop=(40, 0, 0)))
READING = Reading(1000.0, 4661.0, {11: FIRST, 12: SECOND, 99: FIRST})
LOOK = Look(STATE, READING, READING._replace(now=4656.0, programs={11: BEFORE}))


def test_lines(capsys: pytest.CaptureFixture[str]) -> None:
    tally.show([LOOK], Style())
    assert capsys.readouterr().out.splitlines() == [
        "veth7: counted for 1:01:01",
        "Slot  ID  Program      Packets  Rate/s   ns  ABORTED  DROP  PASS  TX  REDIRECT  other",
        "   0  11  wall             100      12  450        0    30  0/70   0         0      0",
        "   2  12  evil\\x1b[2J       70      14    -        0  3/10  0/58   0         0      2",
        "past the last program: 58",
    ]


def test_without_an_earlier_look_there_is_no_rate(capsys: pytest.CaptureFixture[str]) -> None:
    tally.show([LOOK._replace(before=None)], Style())
    assert "    -  450" in capsys.readouterr().out
    assert tally.data(LOOK._replace(before=None))["interval"] is None


def test_on_a_terminal_it_is_a_table_of_the_verdicts_there_are() -> None:
    shown = on_terminal(lambda: tally.show([LOOK], Style()), columns=100)
    assert "wall" in shown
    assert "3/10" in shown
    assert "REDIRECT" not in shown
    assert "\x1b[2J" not in shown


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    style = Style(json=True)
    tally.show([LOOK], style)
    document = json.loads(capsys.readouterr().out)
    (look,) = document["interfaces"]
    assert (document["schema"], document["command"]) == (1, "stats")
    assert (look["interval"], look["end_of_chain"], look["seconds"]) == (5, 58, 3661)
    assert look["programs"][1] == {
        "slot": 2,
        "id": 12,
        "name": EVIL.name,
        "label": None,
        "packets": 70,
        "rate": 14,
        "mean_ns": None,
        "timed": 0,
        "verdicts": {"XDP_DROP": 10, "XDP_PASS": 58, "other": 2},
        "last_word": {"XDP_DROP": 3, "other": 2},
    }


handled = pytest.fixture(ending_signals)


@pytest.mark.usefixtures("handled")
@pytest.mark.parametrize("as_json", [False, True])
def test_it_goes_on_until_a_signal(capsys: pytest.CaptureFixture[str], as_json: bool) -> None:
    seen: list[Look | None] = []

    def look(before: Look | None) -> Look:
        seen.append(before)
        if len(seen) == 2:
            raise RaceError("it keeps changing")
        if len(seen) == 4:
            send(signal.SIGTERM)  # in the midst of a look, which comes to its end
        return LOOK

    tally.live(look, Style(json=as_json), 0.001)
    assert seen == [None, LOOK, LOOK, LOOK]
    out = capsys.readouterr().out.splitlines()
    assert len(out) == (3 if as_json else 15)
    if as_json:
        assert [json.loads(line)["command"] for line in out] == ["stats"] * 3


@pytest.mark.usefixtures("handled")
def test_on_a_terminal_the_table_changes_in_its_place() -> None:
    seen: list[Look | None] = []

    def look(before: Look | None) -> Look:
        seen.append(before)
        if len(seen) == 3:
            send(signal.SIGINT)
        return LOOK

    shown = on_terminal(lambda: tally.live(look, Style(), 0.001), columns=100)
    assert shown.count("past the last program: 58") >= 3
    assert "\x1b[2J" not in shown


def of(path: tuple[tuple[Any, int], ...], verdict: int, last: Any) -> Packet:
    steps = tuple(Step(member, answer) for member, answer in path)
    return Packet(10**18 + 5, b"\1\2", 60, verdict, steps, last)


def test_a_packet_and_its_comment(capsys: pytest.CaptureFixture[str]) -> None:
    count = running("count", 11, label="wall")
    dropped = of(((count, 2), (EVIL, 200)), 200, EVIL)
    told = r"wall (id 11): XDP_PASS; evil\x1b[2J (id 12): 200; the last word"
    assert tally.comment(dropped) == told
    passed = of(((count, 2),), 2, None)
    assert tally.comment(passed) == "wall (id 11): XDP_PASS; end of the chain: XDP_PASS"
    tally.packet(dropped, Style())
    assert capsys.readouterr().out.endswith(f" 60 B: {told}\n")
    tally.packet(passed, Style(json=True))
    assert json.loads(capsys.readouterr().out) == {
        "schema": 1,
        "time": 1e9,
        "length": 60,
        "verdict": "XDP_PASS",
        "last_word": None,
        "path": [{"id": 11, "name": "count", "label": "wall", "verdict": "XDP_PASS"}],
        "data": "0102",
    }


# --- what went wrong ----------------------------------------------------------------------------

ROOT_OF = Program(500, "xdp_dispatcher", "ext", (running("count", 11, label="wall"), EVIL))
ABORTED = Incident(
    "exception", "XDP_ABORTED", 5, 8, 2.5, "eth0", 3, program=ROOT_OF, verdict="XDP_ABORTED"
)
QUIET = ABORTED._replace(packets=0, rate=0.0)
DOWN = Incident(
    "redirect",
    "its target is down",
    1,
    1,
    0.5,
    "eth0",
    3,
    program=Program(9),
    error="ENETDOWN",
    map=Map(5, "targets"),
    to=("entry", 2),
)


class Looks:
    """What there is at each look; a signal comes in the midst of the third."""

    def __init__(self, *found: list[Incident]) -> None:
        self.found, self.count = found, 0

    def __call__(self) -> list[Incident]:
        self.count += 1
        if self.count == 3:
            send(signal.SIGTERM)
        return self.found[min(self.count, len(self.found)) - 1]


@pytest.mark.usefixtures("handled")
def test_incidents_have_a_line_when_there_are_more(capsys: pytest.CaptureFixture[str]) -> None:
    look = Looks([ABORTED, DOWN], [QUIET])
    tally.incidents(look, Style(), 0.001, None)
    assert look.count == 4  # the last one after the signal
    lines = [line.partition(" ")[2] for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        "eth0 exception: XDP_ABORTED, xdp_dispatcher (id 500) of wall, evil\\x1b[2J: "
        "5 packets, 2/s, 8 in all",
        "eth0 redirect: its target is down (ENETDOWN), map targets (id 5), entry 2, "
        "program 9, which is gone: 1 packet, 0/s, 1 in all",
    ]


@pytest.mark.usefixtures("handled")
def test_incidents_end_after_so_many_packets(capsys: pytest.CaptureFixture[str]) -> None:
    look = Looks([QUIET], [ABORTED, DOWN])
    tally.incidents(look, Style(json=True), 0.001, 9)
    assert look.count == 2
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert first.pop("time") > 0
    assert first == {
        "schema": 1,
        "event": "exception",
        "interface": "eth0",
        "ifindex": 3,
        "program": {
            "id": 500,
            "name": "xdp_dispatcher",
            "kind": "ext",
            "programs": [
                {"id": 11, "name": "count", "label": "wall"},
                {"id": 12, "name": EVIL.name, "label": None},
            ],
        },
        "reason": "XDP_ABORTED",
        "verdict": "XDP_ABORTED",
        "error": None,
        "map": None,
        "to": None,
        "packets": 5,
        "total": 8,
        "rate": 2.5,
    }
    assert second["program"] == {"id": 9, "name": None, "kind": None, "programs": []}
    assert (second["map"], second["to"]) == (
        {"id": 5, "name": "targets"},
        {"entry": 2, "name": None},
    )


@pytest.mark.usefixtures("handled")
def test_incidents_are_a_table_on_a_terminal() -> None:
    look = Looks([], [ABORTED._replace(map=Map(6), to=("interface", 4), target="eth1")])
    shown = on_terminal(lambda: tally.incidents(look, Style(), 0.001, None), columns=200)
    assert "nothing so far" in shown
    assert "map that is gone (id 6), to eth1" in shown
    assert "\x1b[2J" not in shown
