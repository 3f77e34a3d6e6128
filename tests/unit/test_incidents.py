"""xdpctl.view.incidents: what goes wrong with packets, as it is shown."""

from __future__ import annotations

import json
import signal

import pytest

from tests.unit.samples import ending_signals, running, send
from tests.unit.terminal import on_terminal
from xdpctl.traffic.incidents import Incident, NamedMap, NamedProgram
from xdpctl.view.incidents import incidents
from xdpctl.view.style import Style

EVIL = running("evil\x1b[2J", 12)
handled = pytest.fixture(ending_signals)

ROOT_OF = NamedProgram(500, "xdp_dispatcher", "ext", (running("count", 11, label="wall"), EVIL))
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
    program=NamedProgram(9),
    error="ENETDOWN",
    map=NamedMap(5, "targets"),
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
    incidents(look, Style(), 0.001, None)
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
    incidents(look, Style(json=True), 0.001, 9)
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
    look = Looks([], [ABORTED._replace(map=NamedMap(6), to=("interface", 4), target="eth1")])
    shown = on_terminal(lambda: incidents(look, Style(), 0.001, None), columns=200)
    assert "nothing so far" in shown
    assert "map that is gone (id 6), to eth1" in shown
    assert "\x1b[2J" not in shown
