"""What terminals of 40, 80 and 120 columns show, beside what they showed before.

XDPCTL_SNAPSHOTS=renew writes tests/unit/snapshots/*.txt anew: read what has changed in them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.unit.samples import DROP, PASS, TX, plan_of, running, state_of
from tests.unit.terminal import on_terminal, without_colour
from xdpctl.doctor.check import Check, Diagnosis
from xdpctl.doctor.features import Features
from xdpctl.host.interfaces import Interface
from xdpctl.model.chain import XDP_DROP, XDP_PASS, Chain
from xdpctl.model.generation import Generation, WentBack
from xdpctl.model.state import State
from xdpctl.model.terms import Pending, Terms
from xdpctl.roots.count_code import Counted
from xdpctl.roots.counting import Reading
from xdpctl.traffic import trace
from xdpctl.traffic.incidents import Incident, NamedMap, NamedProgram
from xdpctl.traffic.pcap import Packet
from xdpctl.trial.fates import Fate, Outcome, Trial
from xdpctl.view import doctor, features, history, packets, show, stats, status, trial
from xdpctl.view.incidents import incidents
from xdpctl.view.stats import Look
from xdpctl.view.style import Style

SNAPSHOTS = Path(__file__).parent / "snapshots"
WIDTHS = (40, 80, 120)
XDP_TX = 3

FIREWALL = running("firewall", 1041, priority=10, actions=PASS)
COUNT = running("count_packets", 1043, label="monitor", actions=DROP | PASS | TX)
LONG = running(
    "a_program_with_a_rather_long_name", 1234567, priority=2**32 - 1, actions=0, tag="f" * 16
)
TAGGED = [replace(one, tag="9bf8e2a8bee581f5") for one in (FIREWALL, COUNT)]


def of(state: State, name: str, number: int) -> State:
    return replace(state, interface=Interface(name, number, "4711"))


USUAL = of(state_of(TAGGED), "eth0", 2)
LARGE = of(state_of([*TAGGED, LONG, None]), "enp129s0f1np1", 3)
EMPTY = [of(state_of(None), name, 9) for name in ("lo", "wlan0")]


def counts(*pairs: tuple[int, int]) -> tuple[tuple[int, int, int], ...]:
    """Packets that a program had the last word about, and others, by verdict."""
    told = [(last, other, 0) for last, other in pairs]
    return (*told, *[(0, 0, 0)] * (6 - len(told)))


READING = Reading(
    1000.0,
    4661.0,
    {
        1041: Counted(90000, 200, counts((0, 0), (30, 0), (0, 700000))),
        1043: Counted(0, 0, counts((1, 0), (3, 7), (0, 1234567), (8, 0), (9, 0), (10, 0))),
    },
)
BEFORE = READING._replace(now=4656.0, programs={1041: Counted(0, 0, counts((0, 0), (5, 0)))})


def tried() -> Trial:
    frame = b"\1" * 60
    dropped = Fate(XDP_DROP, 0, (XDP_DROP,), frame)
    sent = Fate(XDP_TX, 1, (XDP_PASS, XDP_TX), b"\2" + frame, (1,))
    passed = Fate(XDP_PASS, None, (XDP_PASS, XDP_PASS), frame)
    outcomes = (
        Outcome(Packet("udp-to-port-53", frame), dropped, passed),
        Outcome(Packet("tcp-syn", frame), sent, passed),
        Outcome(Packet("arp-request", frame), passed, passed),
        Outcome(Packet("short", b"\1"), None, passed, why="too short for the kernel"),
    )
    return Trial(Chain((FIREWALL, COUNT)), Chain((COUNT,)), outcomes)


ROOT = NamedProgram(500, "xdp_dispatcher", "ext", (FIREWALL, COUNT))
FOUND = [
    Incident("exception", "XDP_ABORTED", 5, 8, 2.5, "eth0", 3, program=ROOT, verdict="XDP_ABORTED"),
    Incident(
        "redirect",
        "its target is down",
        1,
        1000,
        0.5,
        "enp129s0f1np1",
        3,
        program=NamedProgram(9),
        error="ENETDOWN",
        map=NamedMap(5, "targets"),
        to=("entry", 2),
    ),
]
CHECKS = (
    Check("rights", "ok", "all that are needed"),
    Check(
        "bpffs",
        "failed",
        "/sys/fs/bpf is no BPF file system",
        "programs cannot be kept after the command that loads them has ended",
        "mount -t bpf bpf /sys/fs/bpf",
        exit_code=9,
    ),
    Check(
        "mtu",
        "warning",
        "packets may have 9000 bytes, which do not fit one page of memory",
        "native mode takes programs for several fragments only",
        "ip link set dev enp129s0f1np1 mtu 3498",
        interface="enp129s0f1np1",
    ),
)


def past() -> history.Past:
    state = replace(USUAL, pending=Pending(7, 0, 4711))
    plan = plan_of(state, Chain((FIREWALL,)))
    kept = replace(Generation.of(7, state, plan, 600, Terms("load")), time=1_700_000_000)
    empty = replace(kept, number=6, chain=Chain((LONG, COUNT)), command="")
    back = WentBack(7, 1_700_000_600, "late", "load", "removed a_program_with_a_rather_long_name")
    return history.Past(state, [kept, empty], [back])


def packet() -> None:
    path = (trace.Answer(FIREWALL, XDP_PASS), trace.Answer(COUNT, XDP_DROP))
    packets.packet(trace.TracedPacket(10**18, b"abc", 60, XDP_DROP, path, COUNT), Style())
    packets.packet(trace.TracedPacket(10**18, b"abc", 60, XDP_PASS, path[:1], None), Style())


SHOWN: dict[str, Callable[[], None]] = {
    "status": lambda: status.status([USUAL, *EMPTY], every=False),
    "status-all": lambda: status.status([USUAL, LARGE, *EMPTY]),
    "status-empty": lambda: status.status(EMPTY, every=False),
    "show": lambda: show.show([USUAL]),
    "stats": lambda: stats.show([Look(USUAL, READING, BEFORE)], Style()),
    "test": lambda: trial.show("eth0", tried()),
    "history": lambda: history.history([past()], Style()),
    "features": lambda: features.features(
        [Features(USUAL.interface, 0x7F, 8, 3, 1), Features(LARGE.interface, 3)], named=True
    ),
    "doctor": lambda: doctor.diagnosis(Diagnosis(CHECKS, None), quiet=False),
    "monitor": lambda: incidents(lambda: FOUND, Style(), 0.001, 1),
    "trace": packet,
}

COPIED = {
    "status": ["eth0", "firewall", "1041", "monitor", "1043", "DROP,PASS,TX"],
    "status-all": ["enp129s0f1np1", LONG.name, "1234567", "4294967295", "lo", "wlan0"],
    "stats": ["1041", "firewall", "monitor", "1234567"],
    "test": ["udp-to-port-53", "firewall", "monitor"],
    "doctor": ["do: mount -t bpf bpf /sys/fs/bpf", "do: ip link set dev enp129s0f1np1 mtu 3498"],
    "history": ["2023-11-14 22:13:20", LONG.name, "monitor"],
    "features": ["XSK_ZEROCOPY", "enp129s0f1np1"],
    "monitor": ["enp129s0f1np1", "(ENETDOWN),", "1000"],
}
"""What people copy, and so is whole at any width."""


@pytest.fixture(autouse=True)
def _usual_surroundings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(history, "is_there", lambda program_id: program_id != LONG.id)
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def shown(name: str, columns: int) -> str:
    """What a terminal shows that can do nothing but print lines, which a live table does, too."""
    return on_terminal(SHOWN[name], columns, term="dumb")


@pytest.mark.parametrize("name", SHOWN)
def test_what_terminals_show(name: str) -> None:
    text = "\n".join(
        f"{f' {columns} columns ':=^{columns}}\n{shown(name, columns)}" for columns in WIDTHS
    )
    path = SNAPSHOTS / f"{name}.txt"
    if os.environ.get("XDPCTL_SNAPSHOTS") == "renew":
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


def test_there_is_no_other_snapshot() -> None:
    assert {path.stem for path in SNAPSHOTS.iterdir()} == set(SHOWN)


@pytest.mark.parametrize("columns", [80, 120, 200])
@pytest.mark.parametrize("name", SHOWN)
def test_nothing_is_wider_than_the_terminal(name: str, columns: int) -> None:
    lines = shown(name, columns).splitlines()
    assert [line for line in lines if len(line) > columns] == []


@pytest.mark.parametrize("columns", [20, *WIDTHS, 200])
@pytest.mark.parametrize("name", COPIED)
def test_what_people_copy_is_whole(name: str, columns: int) -> None:
    text = shown(name, columns)
    assert [part for part in COPIED[name] if part not in text] == []


@pytest.mark.parametrize("name", SHOWN)
def test_a_narrow_terminal_has_no_table_and_a_wide_one_all_of_it(name: str) -> None:
    assert "───" not in shown(name, 40)
    if name.startswith("status") and name != "status-empty":
        assert "Tag" in shown(name, 120)
        assert "9bf8e2a8bee581f5" in shown(name, 120)


def test_colour_is_left_out_where_it_is_not_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    colour = "\x1b[31m"  # of a vacant slot
    seen = on_terminal(lambda: status.status([LARGE]))
    assert colour in seen
    assert "\x1b" not in on_terminal(lambda: status.status([LARGE]), term="dumb")
    monkeypatch.setenv("NO_COLOR", "1")
    without = on_terminal(lambda: status.status([LARGE]))
    assert colour not in without
    assert without_colour(without) == without_colour(seen)
