"""xdpctl.view.tally: what was counted, and the paths of packets, as they are shown."""

from __future__ import annotations

import json
import signal

import pytest

from tests.unit.samples import ending_signals, running, send, state_of
from tests.unit.terminal import on_terminal
from xdpctl.errors import RaceError
from xdpctl.roots.count_code import Counted
from xdpctl.roots.counting import Reading
from xdpctl.view import stats
from xdpctl.view.stats import Look
from xdpctl.view.style import Style

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
    stats.show([LOOK], Style())
    assert capsys.readouterr().out.splitlines() == [
        "veth7: counted for 1:01:01",
        "Slot  ID  Program      Packets  Rate/s   ns  ABORTED  DROP  PASS  TX  REDIRECT  other",
        "   0  11  wall             100      12  450        0    30  0/70   0         0      0",
        "   2  12  evil\\x1b[2J       70      14    -        0  3/10  0/58   0         0      2",
        "past the last program: 58",
    ]


def test_without_an_earlier_look_there_is_no_rate(capsys: pytest.CaptureFixture[str]) -> None:
    stats.show([LOOK._replace(before=None)], Style())
    assert "    -  450" in capsys.readouterr().out
    assert stats.data(LOOK._replace(before=None))["interval"] is None


def test_on_a_terminal_it_is_a_table_of_the_verdicts_there_are() -> None:
    shown = on_terminal(lambda: stats.show([LOOK], Style()), columns=100)
    assert "wall" in shown
    assert "3/10" in shown
    assert "REDIRECT" not in shown
    assert "\x1b[2J" not in shown


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    style = Style(json=True)
    stats.show([LOOK], style)
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
        "bytes": None,
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

    stats.live(look, Style(json=as_json), 0.001)
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

    shown = on_terminal(lambda: stats.live(look, Style(), 0.001), columns=100)
    assert shown.count("past the last program: 58") >= 3
    assert "\x1b[2J" not in shown
