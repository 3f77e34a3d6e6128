"""xdpctl.view.events: what was put in order."""

from __future__ import annotations

import json

import pytest

from tests.unit.terminal import document
from xdpctl.change.sweep import Event
from xdpctl.view import events
from xdpctl.view.document import SCHEMA
from xdpctl.view.style import Style

EVENTS = [
    Event("eth0", "removed /bpffs/xdp/left", "left by an interrupted command"),
    Event("-", "removed /bpffs/xdp/gone", "its interface is gone"),
]


def test_events(capsys: pytest.CaptureFixture[str]) -> None:
    events.events("clean", iter(EVENTS), Style())
    assert capsys.readouterr().out.splitlines() == [
        "eth0: removed /bpffs/xdp/left: left by an interrupted command",
        "removed /bpffs/xdp/gone: its interface is gone",
    ]
    done = iter(EVENTS)
    events.events("clean", done, Style(quiet=True))
    assert capsys.readouterr().out == ""
    assert list(done) == []  # each is carried out, told or not
    events.events("clean", EVENTS, Style(quiet=True, dry_run=True))
    first, _second = capsys.readouterr().out.splitlines()
    assert first.startswith("eth0: would have removed ")


def test_events_as_data(capsys: pytest.CaptureFixture[str]) -> None:
    events.events("clean", EVENTS, Style(json=True, dry_run=True))
    data = document(capsys)
    assert (data["command"], data["dry_run"]) == ("clean", True)
    assert data["events"] == [event._asdict() for event in EVENTS]


def test_events_as_they_happen(capsys: pytest.CaptureFixture[str]) -> None:
    for style, lines in (
        (Style(), ["eth0: removed /bpffs/xdp/left: left by an interrupted command"]),
        (Style(quiet=True), []),
    ):
        events.event_printer(style)(EVENTS[0])
        assert capsys.readouterr().out.splitlines() == lines
    tell = events.event_printer(Style(json=True))
    for event in EVENTS:
        tell(event)
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line) for line in lines] == [
        {"schema": SCHEMA, **event._asdict()} for event in EVENTS
    ]
