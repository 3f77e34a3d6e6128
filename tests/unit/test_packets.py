"""xdpctl.view.packets: the paths of packets, as they are shown."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.unit.samples import running
from xdpctl.traffic.trace import Answer, TracedPacket
from xdpctl.view import packets
from xdpctl.view.style import Style

EVIL = running("evil\x1b[2J", 12)


def of(path: tuple[tuple[Any, int], ...], verdict: int, last: Any) -> TracedPacket:
    steps = tuple(Answer(member, answer) for member, answer in path)
    return TracedPacket(10**18 + 5, b"\1\2", 60, verdict, steps, last, "eth0")


def test_a_packet_and_its_comment(capsys: pytest.CaptureFixture[str]) -> None:
    count = running("count", 11, label="wall")
    dropped = of(((count, 2), (EVIL, 200)), 200, EVIL)
    told = r"wall (id 11): XDP_PASS; evil\x1b[2J (id 12): 200; the last word"
    assert packets.comment(dropped) == told
    passed = of(((count, 2),), 2, None)
    assert packets.comment(passed) == "wall (id 11): XDP_PASS; end of the chain: XDP_PASS"
    packets.packet(dropped, Style())
    assert capsys.readouterr().out.endswith(f" 60 B: {told}\n")
    assert "eth0" not in told
    packets.packet(dropped, Style(), several=True)
    assert capsys.readouterr().out.endswith(f" eth0 60 B: {told}\n")
    packets.packet(passed, Style(json=True))
    assert json.loads(capsys.readouterr().out) == {
        "schema": 1,
        "time": 1e9,
        "interface": "eth0",
        "length": 60,
        "verdict": "XDP_PASS",
        "last_word": None,
        "path": [{"id": 11, "name": "count", "label": "wall", "verdict": "XDP_PASS"}],
        "data": "0102",
    }
