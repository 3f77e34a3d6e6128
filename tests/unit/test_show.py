"""xdpctl.view.show: a chain as it is drawn."""

from __future__ import annotations

import io
import sys
from dataclasses import replace

import pytest

from tests.unit.samples import DROP, PASS, running, state_of
from tests.unit.terminal import on_terminal, without_colour
from tests.unit.test_change import APP
from xdpctl.errors import XdpctlError
from xdpctl.host.interfaces import Failure
from xdpctl.model.chain import XDP_ABORTED, XDP_DROP, Rules
from xdpctl.model.labels import Origin
from xdpctl.model.state import State
from xdpctl.view import status
from xdpctl.view.show import data, drawing, show

MEMBERS = [
    running("first", 11, priority=10, actions=DROP | PASS, label="wall", before=("last",)),
    running("stop", 12, actions=0),
    None,
    running("last", 14, actions=31),
]
COUNTS = {11: {"XDP_DROP": 3, "XDP_PASS": 1204, "XDP_TX": 0}, 14: {}}


def text(state: State) -> list[str]:
    return [line.text for line in drawing(state, COUNTS)]


def ruled(state: State, *rules: int) -> State:
    assert state.root
    return replace(state, root=replace(state.root, rules=Rules(*rules)))


def test_a_chain_is_drawn_in_the_order_of_a_packet_s_way() -> None:
    assert text(state_of(MEMBERS, origins={1: APP})) == [
        "veth7  xdp_dispatcher  id 500, native mode, ext root, protocol 2, link 77, "
        "tag 00112233aabbccdd",
        "|",
        "+- 0  wall (first)  id 11, priority 10, tag 000000000000000b",
        "|     runs before last",
        "|     1207 packets: XDP_DROP 3, XDP_PASS 1204",
        "+--> leaves: XDP_ABORTED,XDP_TX,XDP_REDIRECT",
        "v    goes on: XDP_DROP,XDP_PASS",
        "+- 1  stop  id 12, priority 50, tag 000000000000000c",
        "|     is borrowed from link 90 of 4711 (app)",
        "+--> leaves: XDP_ABORTED,XDP_DROP,XDP_PASS,XDP_TX,XDP_REDIRECT",
        "x    nothing goes on",
        "+- 2  <vacant>",
        "|     is vacant: its link is gone and packets pass it by",
        "v    goes on: all",
        "+- 3  last  id 14, priority 50, tag 000000000000000e",
        "|     0 packets",
        "v    goes on: all",
        "`- end: XDP_PASS",
    ]


def test_a_chain_as_data() -> None:
    """As status has it, and what was counted of each program; of one that has just come nothing."""
    found = data(state_of(MEMBERS), {11: {"XDP_DROP": 3, "XDP_PASS": 1204}, 14: {}})
    counted = [(one.pop("packets", "-"), one.pop("verdicts", "-")) for one in found["programs"]]
    assert counted == [
        (1207, {"XDP_DROP": 3, "XDP_PASS": 1204}),
        (None, None),
        ("-", "-"),
        (0, {}),
    ]
    assert found == status.data(state_of(MEMBERS))
    failure = Failure(state_of(None).interface, XdpctlError("it broke"))
    assert data(failure, {}) == failure.as_dict()


def test_the_rules_of_an_interface_are_drawn_where_they_hold() -> None:
    assert text(ruled(state_of([None]), XDP_ABORTED, XDP_DROP))[2:] == [
        "+- 0  <vacant>",
        "|     is vacant: its link is gone and packets end there",
        "+--> leaves: XDP_DROP",
        "x    nothing goes on",
        "`- end: XDP_ABORTED",
    ]


def test_a_chain_that_is_longer_than_libxdps_protocol_has_none() -> None:
    lines = text(state_of([running(f"p{number}", number + 1) for number in range(11)]))
    assert lines[0].startswith("veth7  xdpctl_wide  id 500, native mode, ext root, link 77,")
    assert any(line.startswith("+- 10  p10  id 11,") for line in lines)


def test_a_fused_chain_with_a_held_and_a_lost_program() -> None:
    state = state_of(
        [running("held", 9), None], kind="fused", arrays={0: 70}, lost={1: 12}, link_id=0
    )
    assert text(state) == [
        "veth7  xdpctl_fused  id 500, native mode, fused root, netlink, tag 00112233aabbccdd",
        "|",
        "+- 0  held  id 9, priority 50, tag 0000000000000009",
        "|     belongs to a process: it goes when that does",
        "+--> leaves: XDP_ABORTED,XDP_DROP,XDP_TX,XDP_REDIRECT",
        "v    goes on: XDP_PASS",
        "+- 1  <lost>",
        "|     runs program 12, whose pin is gone: the next change leaves it out",
        "+--> leaves: XDP_ABORTED,XDP_DROP,XDP_TX,XDP_REDIRECT",
        "v    goes on: XDP_PASS",
        "`- end: XDP_PASS",
    ]


def test_no_chain() -> None:
    assert text(state_of(None)) == ["veth7  <No XDP program loaded!>"]
    assert text(state_of([], owner="other", mode="skb"))[1:] == [
        "`- another tool's program: its verdict is the packet's"
    ]


@pytest.mark.parametrize(
    ("encoding", "way"), [("utf-8", "│"), ("ascii", "|"), ("iso-8859-1", "|"), ("cp437", "|")]
)
def test_strokes_are_those_that_the_output_can_have(
    encoding: str, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where what cannot be printed would be escaped, as the command line has it."""
    written = io.BytesIO()
    output = io.TextIOWrapper(written, encoding=encoding, errors="backslashreplace")
    monkeypatch.setattr(sys, "stdout", output)
    show([state_of(MEMBERS)])
    output.flush()
    assert written.getvalue().decode(encoding).splitlines()[1] == way


def test_a_terminal_shows_the_same_in_colour() -> None:
    state = state_of([running("[red]a", 11), None])
    shown = on_terminal(lambda: show([state, state_of(None)]), columns=40)
    plain = without_colour(shown)
    assert shown != plain
    assert "├─ 0  [red]a  id 11, priority 50, tag\n│     000000000000000b\n" in plain
    assert plain.endswith("end: PASS\n\nveth7  <No XDP program loaded!>\n")


def test_names_cannot_speak_to_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    bad = "x\x1b[2J\n"
    member = running(bad, 11, label=bad + "l", after=(bad,))
    state = state_of([member], origins={0: Origin(90, 4711, bad)}, residue=(f"/{bad}",))
    show([replace(state, interface=state.interface._replace(name=bad))])
    captured = capsys.readouterr()
    assert "\x1b" not in captured.out + captured.err
    assert captured.out.count("x\\x1b[2J\\n") == 5
    assert len(captured.err.splitlines()) == 1
