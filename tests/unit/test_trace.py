"""xdpctl.traffic.trace: the path that the instructions write down, and what is made of it."""

from __future__ import annotations

import errno
import itertools
import os
import pathlib
import struct
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from tests.unit.machine import Machine, Pointer
from tests.unit.samples import DROP, INTERFACE, LOOPBACK, PASS, running, state_of
from xdpctl.bpffs.mount import Bpffs
from xdpctl.cli.run import run
from xdpctl.errors import Interrupted, NotFoundError, UnsupportedError, XdpctlError
from xdpctl.host.interfaces import Interface
from xdpctl.kernel import uapi
from xdpctl.model.chain import USUAL, Member, Rules
from xdpctl.model.state import State
from xdpctl.traffic import trace, trace_code
from xdpctl.traffic.trace import Answer, Trace, TracedPacket
from xdpctl.traffic.trace_code import ALL, Wanted

PATHS, PLACES, EVENTS = 40, 41, 42
FRAME = bytes(range(100))
ANY = Wanted()


class Path:
    """One CPU's path, and the packets that were handed out."""

    def __init__(self, wanted: Wanted = ANY, rules: Rules = USUAL) -> None:
        self.wanted, self.rules = wanted, rules
        self.state = bytearray(trace_code.SIZE)
        self.places = bytearray(trace_code.PLACES * trace_code.PLACE.size)
        self.sent: list[bytes] = []

    def place(self, number: int, codes: int, flags: int) -> None:
        size = trace_code.PLACE.size
        packed = trace_code.PLACE.pack(codes, flags, *self.rules[:2])
        self.places[number * size : (number + 1) * size] = packed

    def chain(self, *masks: int) -> None:
        """Programs in places 3 and after."""
        for at, mask in enumerate(masks):
            self.place(3 + at, mask, 4 | (at == len(masks) - 1) | 2 * (at == 0))

    def answers(self, *verdicts: int) -> None:
        for at, verdict in enumerate(verdicts):
            self.answer(3 + at, verdict)

    def answer(self, place: int, verdict: int) -> None:
        packet = bytearray(FRAME)
        buffer, arguments = bytearray(16), bytearray(16)
        struct.pack_into("=QQ", buffer, 0, 5000, 5000 + len(packet))
        struct.pack_into("=QQ", arguments, 0, 7, verdict)
        calls: dict[int, Callable[..., object]] = {
            uapi.BPF_FUNC_map_lookup_elem: lambda *_: Pointer(self.state, 0),
            uapi.BPF_FUNC_ktime_get_ns: lambda *_: 12345,
            uapi.BPF_FUNC_xdp_output: self.send,
        }
        code = trace_code.observer(place, PATHS, PLACES, EVENTS, self.wanted)
        machine = Machine(code, {PLACES: self.places}, calls)
        machine.addresses = {7: Pointer(buffer, 0)}
        assert machine.run(r1=Pointer(arguments, 0))["r0"] == 0

    def send(self, packet: object, found: object, flags: int, record: Pointer, size: int) -> int:
        assert found == ("map", EVENTS)
        assert flags & 0xFFFFFFFF == 0xFFFFFFFF
        assert packet == 7
        out = bytes(record.memory[record.offset : record.offset + size])
        self.sent.append(out + FRAME[: flags >> 32])
        return 0

    def packets(self, members: Sequence[Member]) -> list[TracedPacket]:
        session = Trace(Bpffs("/bpffs"), INTERFACE, self.wanted)
        session._offset = 0
        session._members = {3 + at: member for at, member in enumerate(members)}
        found = [session._packet(one) for one in self.sent]
        assert all(found)
        return [one for one in found if one]


FIRST, SECOND, THIRD = (running(name, number) for name, number in (("a", 1), ("b", 2), ("c", 3)))
MEMBERS = [FIRST, SECOND, THIRD]


def test_a_path_ends_with_the_last_word() -> None:
    path = Path()
    path.chain(PASS, PASS | DROP, PASS)
    path.answers(2, 1, 3)
    path.answers(0)
    path.answers(2, 2, 2)
    first, second, third = path.packets(MEMBERS)
    assert first.path == (Answer(FIRST, 2), Answer(SECOND, 1), Answer(THIRD, 3))
    assert (first.verdict, first.last) == (3, THIRD)
    assert (first.time, first.length, first.data) == (12345, 100, FRAME)
    assert (second.path, second.verdict, second.last) == ((Answer(FIRST, 0),), 0, FIRST)
    assert (third.verdict, third.last, len(third.path)) == (2, None, 3)


def test_the_rules_of_the_interface_are_the_verdict_where_no_program_has_one() -> None:
    path = Path(rules=Rules(on_end=1, on_vacant=0))
    path.chain(PASS, PASS)
    path.answers(2, 2)
    path.answers(31)
    assert [one.verdict for one in path.packets(MEMBERS)] == [1, 0]


def test_only_what_is_wanted_is_handed_out() -> None:
    path = Path(Wanted(verdicts=DROP, sample=3, snap=14))
    path.chain(PASS, PASS)
    for verdict in (1, 0, 1, 2, 1, 1, 200, 1):
        path.answers(2, verdict)
    found = path.packets(MEMBERS)
    assert len(found) == 2
    assert {(one.verdict, one.data, one.length) for one in found} == {(1, FRAME[:14], 100)}


def test_codes_that_are_no_action_are_shown_too() -> None:
    path = Path(Wanted(verdicts=ALL ^ PASS))
    path.chain(PASS)
    for verdict in (2, 200, 2**32 - 1):
        path.answers(verdict)
    first, second = path.packets(MEMBERS)
    assert (first.path[0].verdict, second.path[0].verdict) == (200, 2**32 - 1)


def test_nothing_is_shown_before_all_are_traced() -> None:
    path = Path()
    for place in (3, 4):
        path.place(place, PASS, 0)
    path.answers(2, 1)
    assert path.sent == []
    path.chain(PASS, PASS)
    path.answer(4, 1)  # on its way past the first one when that began to be traced
    path.answers(2, 1)
    (only,) = path.packets(MEMBERS)
    assert only.path == (Answer(FIRST, 2), Answer(SECOND, 1))


def test_a_path_without_its_beginning_or_end_is_not_shown() -> None:
    path = Path()
    path.place(3, PASS, 4)
    path.place(4, 0, 5)
    path.answers(2, 1)
    assert path.sent == []
    path.chain(*[PASS] * (trace_code._STEPS + 1))
    path.answers(*[2] * (trace_code._STEPS + 1))
    assert path.sent == []


def test_a_program_that_is_not_known_any_more_gives_no_packet() -> None:
    session = Trace(Bpffs("/bpffs"), INTERFACE, Wanted())
    assert session._packet(struct.pack("=QIIIIIi", 1, 0, 2, 1, 0, 9, 2)) is None


def test_places_are_used_again_as_late_as_can_be() -> None:
    session = Trace(Bpffs("/bpffs"), INTERFACE, Wanted())
    session._links = {1: (1, None)}
    found = [session._free() for _ in range(trace_code.PLACES)]
    assert found == [0, *range(2, trace_code.PLACES), 0]


@pytest.mark.parametrize(
    ("state", "error"),
    [
        (state_of(None), NotFoundError),
        (state_of([FIRST], owner="other"), NotFoundError),
        (state_of([FIRST], kind="fused"), UnsupportedError),
    ],
)
def test_what_cannot_be_traced(state: State, error: type[XdpctlError]) -> None:
    with pytest.raises(error) as caught:
        trace._check(state)
    assert INTERFACE.name in caught.value.what
    assert "xdpctl" in caught.value.hint


@pytest.fixture
def quiet_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """A trace that traces nothing, and whose first wait for packets is interrupted."""
    monkeypatch.setattr("xdpctl.host.rights.require", lambda: None)
    monkeypatch.setattr(Trace, "_open", lambda _self: None)
    monkeypatch.setattr(Trace, "follow", lambda _self: None)

    def stop(*_arguments: object) -> None:
        raise Interrupted(2)

    monkeypatch.setattr("xdpctl.host.signals.blocked", stop)


@pytest.mark.usefixtures("quiet_kernel")
@pytest.mark.parametrize("there", [b"what was there", None])
def test_a_trace_that_is_refused_leaves_no_file(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, there: bytes | None
) -> None:
    """Whatever refuses it, also the second interface; and one that is there is as it was."""
    file = tmp_path / "trace.pcapng"
    if there is not None:
        file.write_bytes(there)
    words = ["trace", "lo,lo", "--bpffs", str(tmp_path), "-w", str(file)]
    begun: list[Trace] = []

    def refuse(self: Trace) -> None:
        begun.append(self)
        if len(begun) == 2:
            raise UnsupportedError("the kernel refused")

    monkeypatch.setattr(Trace, "follow", refuse)
    monkeypatch.setattr(Interface, "matching", lambda _name: [INTERFACE, LOOPBACK])
    assert run(words) == 7
    assert len(begun) == 2
    assert (file.read_bytes() if file.exists() else None) == there
    # Once all are traced, the file is there before the first packet.
    run(words)
    data = file.read_bytes()
    assert data.startswith(b"\x0a\x0d\x0d\x0a")
    assert INTERFACE.name.encode() in data
    assert b"lo" in data


@pytest.mark.usefixtures("quiet_kernel")
def test_a_file_that_cannot_be_begun_is_not_made(
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """For want of room, for instance; and the error names it."""
    full = tmp_path / "full"
    os.symlink("/dev/full", full)
    file = tmp_path / "trace.pcapng"
    words = ["trace", "lo", "--bpffs", str(tmp_path), "-w"]
    assert run([*words, str(full)]) == 1
    assert f"cannot write {full}" in capsys.readouterr().err
    assert full.is_symlink()

    def fail(*_words: object) -> bytes:
        raise OSError(errno.ENOSPC, "")

    monkeypatch.setattr("xdpctl.traffic.pcapng.head", fail)
    assert run([*words, str(file)]) == 1
    assert not file.exists()
    assert run([*words, str(tmp_path)]) == 1
    assert "directory" in capsys.readouterr().err


class Source(Trace):
    """Packets of an interface that are there already; its chain goes after some looks at it."""

    def __init__(self, interface: Interface, times: Sequence[int], looks: int) -> None:
        super().__init__(Bpffs("/bpffs"), interface, ANY)
        self.left, self.looks, self.closed = list(times), looks, False

    def _open(self) -> None:
        pass

    def follow(self) -> None:
        self.looks -= 1
        if self.looks < 0:
            raise NotFoundError(f"no chain runs on {self.interface.name}")

    @property
    def buffer(self) -> Any:
        return self

    def packets(self) -> list[TracedPacket]:
        taken, self.left = self.left, []
        return [TracedPacket(one, b"", 0, 2, (), None, self.interface.name) for one in taken]

    def close(self) -> None:
        self.closed = True


def test_packets_of_several_interfaces_come_by_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """One whose chain goes is left, and the others go on; the last one's error is raised."""
    monkeypatch.setattr("xdpctl.kernel.perf.waited", lambda buffers, _seconds: buffers)
    monkeypatch.setattr(trace, "_EVERY", 0.01)
    first, second = Source(INTERFACE, [3, 1], 2), Source(LOOPBACK, [2, 4], 4)
    ended: list[XdpctlError] = []
    coming = trace.packets([first, second], on_end=ended.append)
    found = [(packet.time, packet.interface) for packet in itertools.islice(coming, 4)]
    assert not first.closed
    with pytest.raises(NotFoundError, match="on lo"):
        next(coming)
    name = INTERFACE.name
    assert found == [(1, name), (2, "lo"), (3, name), (4, "lo")]
    assert [one.what for one in ended] == [f"no chain runs on {name}"]
    assert first.closed
    assert second.closed


def test_a_pattern_means_the_interfaces_with_a_chain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not those with nothing, or with a program of others that is in no chain."""
    from xdpctl.cli.commands import trace as command

    running = {INTERFACE: state_of([FIRST]), LOOPBACK: state_of([FIRST], owner="other")}
    monkeypatch.setattr(Interface, "matching", lambda _name: [INTERFACE, LOOPBACK])
    monkeypatch.setattr(command, "observe", lambda one, _bpffs: running[one])
    assert command._running(Bpffs("/bpffs"), "a*") == [INTERFACE]
    assert command._running(Bpffs("/bpffs"), "a,b") == [INTERFACE, LOOPBACK]
    running[INTERFACE] = state_of(None)
    with pytest.raises(NotFoundError, match="matches a"):
        command._running(Bpffs("/bpffs"), "a*")
