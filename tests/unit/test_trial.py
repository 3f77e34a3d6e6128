"""xdpctl.trial and xdpctl.view.trial: what follows from the answers of programs of Python."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.unit.samples import INTERFACE, PASS, TX, chain_of, fresh, running, state_of
from xdpctl.errors import GateError, KernelError, UsageError
from xdpctl.kernel import libbpf
from xdpctl.model.chain import USUAL, Chain, Member, Rules, takes_entry, verdict_of
from xdpctl.model.plan import make_plan
from xdpctl.traffic import pcap
from xdpctl.traffic.pcap import Packet
from xdpctl.trial import trial
from xdpctl.trial.fates import Fate, Line, Outcome, Trial
from xdpctl.trial.tried import Tried
from xdpctl.view import change
from xdpctl.view import trial as fates
from xdpctl.view.style import Style

FRAME = bytes(range(60))
Program = Callable[[bytes, bytes], tuple[int, bytes, bytes]]


def says(code: int) -> Program:
    return lambda packet, metadata: (code, packet, metadata)


def line(*programs: tuple[Program, int], frags: bool = False) -> Line:
    """A chain of programs with their actions."""
    members = tuple(
        Member(f"p{n}", actions=mask, frags=frags) for n, (_, mask) in enumerate(programs)
    )

    def run(number: int, packet: bytes, metadata: bytes) -> tuple[int, bytes, bytes]:
        return programs[number][0](packet, metadata)

    return Line(members, tuple(range(len(programs))), takes_entry(members), run)


CLOSED = Rules(on_end=0, on_vacant=1)


@pytest.mark.parametrize(
    ("code", "actions", "rules", "verdict"),
    [
        (2, PASS, USUAL, None),
        (1, PASS, USUAL, 1),
        (3, PASS | TX, USUAL, None),
        (31, 0, USUAL, None),
        (31, 0xFFFFFFFF, CLOSED, 1),
        (2, PASS, CLOSED, None),
        (32, 0xFFFFFFFF, USUAL, 32),
    ],
)
def test_what_a_code_means(code: int, actions: int, rules: Rules, verdict: int | None) -> None:
    assert verdict_of(code, actions, rules) == verdict


def test_rules() -> None:
    """Past the last slot, in a vacant one, and where there is no chain at all."""
    chain = replace(line((says(2), PASS), (says(2), PASS)), rules=CLOSED)
    assert chain.fate(FRAME).verdict == 0
    vacant = replace(chain, programs=(None, 1))
    assert (vacant.fate(FRAME).verdict, vacant.fate(FRAME).codes) == (1, (31,))
    assert replace(vacant, rules=USUAL).fate(FRAME).codes == (31, 2)
    assert replace(line(), rules=CLOSED).fate(FRAME).verdict == 2


@pytest.mark.parametrize(
    ("codes", "masks", "verdict", "slot"),
    [
        ([], [], 2, None),
        ([1], [PASS], 1, 0),
        ([31], [PASS], 31, 0),  # replaces the entry
        ([31], [TX], 2, None),
        ([3], [TX], 2, None),
        ([2, 1, 2], [PASS] * 3, 1, 1),
        ([2, 2, 2], [PASS] * 3, 2, None),
        ([2, 31, 3], [PASS, 0, 0], 3, 2),
        ([2, 200], [PASS, 0xFFFFFFFF], 200, 1),
    ],
)
def test_verdicts(codes: list[int], masks: list[int], verdict: int, slot: int | None) -> None:
    chain = line(*zip(map(says, codes), masks, strict=True))
    fate = chain.fate(FRAME)
    assert (fate.verdict, fate.slot, fate.packet) == (verdict, slot, FRAME)
    assert list(fate.codes) == codes[: len(codes) if slot is None else slot + 1]


def test_each_gets_what_the_one_before_left() -> None:
    seen = list[tuple[bytes, bytes]]()

    def program(packet: bytes, metadata: bytes) -> tuple[int, bytes, bytes]:
        seen.append((packet, metadata))
        return 2, packet[4:] if len(seen) == 2 else packet, metadata + b"meta"

    fate = line(*[(program, PASS)] * 3).fate(FRAME)
    assert seen == [(FRAME, b""), (FRAME, b"meta"), (FRAME[4:], b"metameta")]
    assert (fate.packet, fate.changed) == (FRAME[4:], (1,))


def test_packets_that_are_not_run() -> None:
    def refuses(_packet: bytes, _metadata: bytes) -> tuple[int, bytes, bytes]:
        raise KernelError("bpf_prog_test_run_opts", 12)

    for chain, size, why in (
        (line((says(2), PASS)), 13, "Ethernet header"),
        (line((says(2), PASS)), 9000, "several fragments"),
        (line((refuses, PASS)), 60, "ENOMEM"),
    ):
        fate, said = trial._fate(chain, Packet("", bytes(size)))
        assert fate is None
        assert why in said
    assert line((says(2), PASS), frags=True).fate(bytes(9000)).verdict == 2


def outcome(
    name: str, then: Fate | None, now: Fate | None = None, why: str = "", whole: int = 60
) -> Outcome:
    return Outcome(Packet(name, FRAME, 5, whole), then, now, why)


DROPPED = Fate(1, 1, (2, 1), FRAME)
PASSED = Fate(2, None, (2, 2), FRAME)
CUT = Fate(2, None, (2, 2), FRAME[:-4], (1,))
MARKED = Fate(3, 1, (2, 3), FRAME[:9] + b"!" + FRAME[10:], (0,))
MEMBERS = (running("count", 8), fresh("drop"))
SAMPLE = Trial(
    Chain(MEMBERS),
    Chain(MEMBERS[:1]),
    (
        outcome("kept", PASSED, PASSED),
        outcome("lost", DROPPED, PASSED),
        outcome("cut", CUT, PASSED, whole=90),
        outcome("sent", MARKED, PASSED),
        outcome("runt", None, None, "it is short"),
    ),
)


def test_another_fate() -> None:
    assert [one.changes for one in SAMPLE.outcomes] == [False, True, True, True, False]
    # What a dropped packet looks like matters to nobody.
    assert not outcome("", DROPPED, Fate(1, 0, (1,), FRAME[:-4])).changes
    assert not outcome("", PASSED, None).changes


def test_differences() -> None:
    assert fates.difference(FRAME, FRAME) is None
    texts = [
        (FRAME[:-4], "60 → 56 bytes"),
        (FRAME[4:], "60 → 56 bytes"),
        (b"abcd" + FRAME, "60 → 64 bytes"),
        (FRAME[:9] + b"!" + FRAME[10:], "byte 9 differs"),
        (b"abcd!" + FRAME[1:], "60 → 64 bytes, byte 4 differs"),
        (b"ab" + FRAME[2:], "2 bytes differ, from byte 0 on"),
    ]
    for after, text in texts:
        assert fates.difference_text(FRAME, after) == text
    assert fates.difference_text(FRAME, FRAME) == ""


def test_rows(capsys: pytest.CaptureFixture[str]) -> None:
    fates.show("veth7", SAMPLE)
    assert capsys.readouterr().out.splitlines() == [
        "veth7: 5 packets: 1 XDP_DROP, 2 XDP_PASS, 1 XDP_TX, 1 not run",
        "Slot  Program        Verdict   Packets  Decided  Changed",
        "0     count          XDP_PASS  4        0        1",
        "1     drop           XDP_DROP  1        2        1",
        "1     drop           XDP_PASS  2",
        "1     drop           XDP_TX    1",
        "-     past the last  XDP_PASS  2        2        0",
        "Packet  Now       Then      Decided by  Changed by  Change",
        "kept    XDP_PASS  XDP_PASS  -           -           -",
        "lost    XDP_PASS  XDP_DROP  drop        -           -",
        "cut     XDP_PASS  XDP_PASS  -           drop        60 → 56 bytes",
        "sent    XDP_PASS  XDP_TX    drop        count       byte 9 differs",
        "runt    ?         not run   -           -           it is short",
        "veth7: 3 packets would fare differently than now",
        "veth7: not whole, as they were captured: 1 packets",
    ]


def test_tables(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """On a terminal; names are text, never markup."""
    monkeypatch.setenv("COLUMNS", "120")
    odd = Trial(Chain((running("[red]odd", 8),)), Chain(), (outcome("[bold]", PASSED, PASSED),))
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    fates.show("veth7", odd)
    out = capsys.readouterr().out
    assert "[red]odd" in out
    assert "[bold]" in out
    assert "───" in out


def test_many_packets_are_not_all_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """Those that change, and not too many of them; all of them with -v."""
    many = Trial(
        Chain(MEMBERS), Chain(), (*[SAMPLE.outcomes[0]] * 30, *[SAMPLE.outcomes[1]] * 25), "why"
    )
    fates.show("veth7", many)
    lines = capsys.readouterr().out.splitlines()
    assert sum(one.startswith("lost") for one in lines) == 20
    assert not any(one.startswith("kept") for one in lines)
    assert "and 5 more (-v shows all)" in lines
    assert lines[-1] == "veth7: what packets meet now is not known: why"
    fates.show("veth7", many, whole=True)
    assert capsys.readouterr().out.count("\nkept ") == 30


def test_document() -> None:
    found: dict[str, Any] = json.loads(json.dumps(fates.data(SAMPLE)))
    assert found["not_run"] == 1
    assert found["other_fate"] == 3
    assert found["verdicts_now"] == [{"verdict": "XDP_PASS", "packets": 4}]
    sent = found["fates"][3]
    assert sent["then"]["slot"] == 1
    assert sent["then"]["answers"] == ["XDP_PASS", "XDP_TX"]
    assert sent["then"]["packet"] == MARKED.packet.hex()
    assert found["fates"][0]["then"]["packet"] is None
    unknown = Trial(SAMPLE.target, Chain(), SAMPLE.outcomes, "no code")
    assert fates.data(unknown)["verdicts_now"] is None


def test_a_report_with_a_trial(capsys: pytest.CaptureFixture[str]) -> None:
    """In the place of a change, behind the plan."""
    state = state_of([MEMBERS[0]])
    report = Tried(make_plan(state, chain_of(*MEMBERS)), state, trial=SAMPLE)
    change.change("load", report, Style(dry_run=True))
    out = capsys.readouterr().out
    assert out.startswith(f"{INTERFACE.name}: would flip to a new root")
    assert "5 packets" in out
    assert change.report_data("load", report)["trial"] == fates.data(SAMPLE)


def test_files(tmp_path: Path) -> None:
    """One a verdict, the packets as they are afterwards; empty ones replace those of before."""
    odd = outcome("odd", Fate(77, 0, (77,), FRAME))
    fates.write(
        str(tmp_path / "out"), "veth7", Trial(Chain(MEMBERS), Chain(), (*SAMPLE.outcomes, odd))
    )
    found = {
        one.name: [packet.data for packet in pcap.read(str(one))]
        for one in (tmp_path / "out").iterdir()
    }
    assert found == {
        "veth7-aborted.pcap": [],
        "veth7-drop.pcap": [FRAME],
        "veth7-pass.pcap": [FRAME, FRAME[:-4]],
        "veth7-tx.pcap": [MARKED.packet],
        "veth7-redirect.pcap": [],
        "veth7-other.pcap": [FRAME],
    }
    fates.write(str(tmp_path / "out"), "veth7", Trial(Chain(MEMBERS), Chain(), ()))
    assert pcap.read(str(tmp_path / "out/veth7-drop.pcap")) == []


def test_the_gate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only XDP_PASS passes; at most five packets are named."""
    state = state_of([MEMBERS[0]])
    plan = make_plan(state, chain_of(*MEMBERS))
    codes = [2]
    monkeypatch.setattr(trial, "_runner", lambda _ifindex: None)
    monkeypatch.setattr(libbpf, "map_ids", lambda: iter(()))
    monkeypatch.setattr(trial, "_line", lambda *_: line((says(2), PASS), (says(codes[-1]), PASS)))
    good = [Packet(f"f:{number}", FRAME) for number in range(8)]
    short = Packet("f:9", b"short")
    trial.gate("f", lambda: iter(good))(state, plan)
    with pytest.raises(GateError) as caught:
        trial.gate("f", lambda: iter([*good, short]))(state, plan)
    assert caught.value.what == "1 of 9 packets of f would not pass veth7"
    assert caught.value.why == "f:9: not run: it is shorter than an Ethernet header"
    with pytest.raises(UsageError):
        trial.gate("f", lambda: iter([]))
    for code in (0, 1, 3, 4, 99):
        codes.append(code)
        with pytest.raises(GateError) as caught:
            trial.gate("f", lambda: iter(good))(state, plan)
        assert caught.value.why.count("(slot 1)") == 5
        assert caught.value.why.endswith("and 3 more")
