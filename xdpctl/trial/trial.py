"""What a chain would do with packets, found out beside the one that runs.

Its programs are loaded once more, on copies of their maps, and run on each packet one after the
other (BPF_PROG_TEST_RUN), each on what the one before left of it. That is what a root does, of
either kind, and tells what no root tells: every program's verdict and what it changed. Nothing is
attached to an interface and nothing pinned: all of it goes with this process.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from ..bpffs import homes
from ..bpffs.mount import Bpffs
from ..errors import (
    GateError,
    Interrupted,
    KernelError,
    RaceError,
    UnsupportedError,
    UsageError,
    XdpctlError,
)
from ..kernel import abi, asm, libbpf, uapi
from ..kernel.program import Program
from ..model.chain import (
    ACTIONS,
    USUAL,
    VACANT,
    XDP_PASS,
    Chain,
    Member,
    Rules,
    takes_entry,
    verdict_name,
    verdict_of,
)
from ..model.plan import Plan
from ..model.source import Image
from ..model.state import State
from ..programs import image, loading, words
from ..roots import dispatcher, kinds
from ..roots.construct import Rehearsal, check_same
from ..roots.hook import LostRace
from ..traffic.pcap import Packet
from .copies import CannotCopyError, Copies

_ETHERNET_HEADER = 14
_ONE_BUFFER = mmap.PAGESIZE - 256 - 320
"""What fits into a page beside the headroom and what the kernel keeps at its end; in bytes."""

_GOES_OUT = (XDP_PASS, *(ACTIONS.index(name) for name in ("XDP_TX", "XDP_REDIRECT")))
"""Verdicts after which somebody gets the packet."""

_SHOWN = 5
"""Packets that a refusal names."""


@dataclass(frozen=True)
class Fate:
    """What came of a packet: the verdict, and the slot that gave it; None past the last one.

    `codes` has what each slot answered that saw the packet, `changed` the slots that changed it.
    """

    verdict: int
    slot: int | None
    codes: tuple[int, ...]
    packet: bytes
    changed: tuple[int, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """A packet's fate on the new chain, and on the present one as far as that can be told.

    `why` tells why there is none on the new chain.
    """

    packet: Packet
    after: Fate | None
    before: Fate | None = None
    why: str = ""

    @property
    def changes(self) -> bool:
        """Whether the new chain does something else with the packet than the present one."""
        after, before = self.after, self.before
        if after is None or before is None:
            return False
        goes_out = after.verdict in _GOES_OUT and after.packet != before.packet
        return after.verdict != before.verdict or goes_out


@dataclass(frozen=True)
class Trial:
    """The outcome of every packet; the present chain, and why that could not be tried."""

    target: Chain
    present: Chain
    outcomes: tuple[Outcome, ...]
    unknown: str = ""


class _NotRun(Exception):  # noqa: N818 - told of the packet
    """Why a packet was not run."""


Run = Callable[[int, bytes, bytes], tuple[int, bytes, bytes]]
"""Run a program on a packet with metadata: its verdict, and what became of both."""


@dataclass(frozen=True)
class Line:
    """A chain's programs, ready to be run one after the other; None is a vacant slot.

    With `entry` the only one's verdict is the chain's, whatever it is.
    """

    members: tuple[Member, ...]
    programs: tuple[int | None, ...]
    entry: bool
    run: Run
    rules: Rules = USUAL

    def fate(self, packet: bytes) -> Fate:
        if len(packet) < _ETHERNET_HEADER:
            raise _NotRun("it is shorter than an Ethernet header")
        if len(packet) > _ONE_BUFFER and not all(member.frags for member in self.members):
            raise _NotRun(
                "it is longer than one buffer, and not every program takes several fragments"
            )
        codes, changed, metadata = list[int](), list[int](), b""
        for slot, (member, program) in enumerate(zip(self.members, self.programs, strict=True)):
            code, after = VACANT, packet
            try:
                if program is not None:
                    code, after, metadata = self.run(program, packet, metadata)
            except KernelError as error:
                raise _NotRun(f"this kernel does not run {member.name} on it: {error}") from error
            codes.append(code)
            if after != packet:
                changed.append(slot)
            packet = after
            verdict = code if self.entry else verdict_of(code, member.actions, self.rules)
            if verdict is not None:
                return Fate(verdict, slot, tuple(codes), packet, tuple(changed))
        end = self.rules.on_end if self.members else XDP_PASS  # else there is no root
        return Fate(end, None, tuple(codes), packet, tuple(changed))


def attempt(
    bpffs: Bpffs, state: State, plan: Plan, packets: Sequence[Packet], *, live_maps: bool = False
) -> Trial:
    """Try a plan: whether the kernel takes the new root, and what it would do with packets.

    With `live_maps` the programs work on the maps that are in use. Raises UnsupportedError where a
    program cannot be tried, and what a change would raise.
    """
    with contextlib.ExitStack() as closing:
        run, known = _runner(state.interface.ifindex), frozenset(libbpf.map_ids())
        after = _line(plan.target, run, closing, known, live_maps)
        _rehearse(bpffs, state, plan)
        present, unknown = _present(state), ""
        try:
            before = _line(present, run, closing)
        except Interrupted:
            raise
        except (XdpctlError, KernelError) as error:
            told = error.explained() if isinstance(error, KernelError) else error
            before, unknown = None, f"{told.what}: {told.why}" if told.why else told.what
        outcomes = []
        with _one_cpu():
            for packet in packets:
                first, why = _fate(after, packet)
                second = _fate(before, packet)[0] if before else None
                outcomes.append(Outcome(packet, first, second, why))
    return Trial(plan.target, present, tuple(outcomes), unknown)


def gate(path: str, packets: Callable[[], Iterator[Packet]]) -> Callable[[State, Plan], None]:
    """A check of a plan: every packet of a file has to pass the new chain (XDP_PASS).

    They are read anew for each check, one by one. Raises what reading the first one raises, and
    UsageError where there is none.
    """
    if next(packets(), None) is None:
        raise UsageError(
            f"{path} has no packets",
            why="it would let every change through",
            hint="give a file with the packets that have to pass",
        )

    def check(state: State, plan: Plan) -> None:
        total, failing, first = 0, 0, list[str]()
        with contextlib.ExitStack() as closing:
            run, known = _runner(state.interface.ifindex), frozenset(libbpf.map_ids())
            line = _line(plan.target, run, closing, known)
            closing.enter_context(_one_cpu())
            for total, packet in enumerate(packets(), 1):  # noqa: B007
                fate, why = _fate(line, packet)
                if fate is None or fate.verdict != XDP_PASS:
                    failing += 1
                    if failing <= _SHOWN:
                        told = _told(fate, line.members) if fate else f"not run: {why}"
                        first.append(f"{packet.name}: {told}")
        if failing:
            more = [f"and {failing - _SHOWN} more"] if failing > _SHOWN else []
            raise GateError(
                f"{failing} of {total} packets of {path} would not pass {plan.interface}",
                why="\n".join(first + more),
                hint="xdpctl test shows what each program does with them; nothing was changed",
            )

    return check


def _told(fate: Fate, members: Sequence[Member]) -> str:
    """A verdict and whose it is."""
    who = "the end" if fate.slot is None else f"{members[fate.slot].known_as} (slot {fate.slot})"
    return f"{verdict_name(fate.verdict)} by {who}"


def _fate(line: Line, packet: Packet) -> tuple[Fate | None, str]:
    try:
        return line.fate(packet.data), ""
    except _NotRun as error:
        return None, str(error)


def _present(state: State) -> Chain:
    """What packets meet now, vacant slots included, which have no id."""
    root = state.root
    if root is None:
        return Chain()
    if root.config is None:
        return Chain((Member(root.name, actions=0, id=root.id, tag=root.tag),))
    members = (
        slot.member or Member(f"prog{slot.number}", frags=True, id=slot.lost) for slot in root.slots
    )
    return Chain(tuple(members), root.rules)


def _rehearse(bpffs: Bpffs, state: State, plan: Plan) -> None:
    """Build the new root as a change would, attached nowhere, and let it go."""
    if not plan.target.members or plan.flip == "none":
        return
    with contextlib.ExitStack() as closing, contextlib.ExitStack() as undo:
        paths = homes.of(bpffs, state.interface)
        try:
            kinds.build(Rehearsal(plan, paths, lambda *_step, **_ids: None, closing, undo))
        except LostRace as lost:
            raise RaceError(
                f"{plan.interface} was changed meanwhile", hint="try it once more"
            ) from lost


# --- programs -----------------------------------------------------------------------------------


def _line(
    chain: Chain,
    run: Run,
    closing: contextlib.ExitStack,
    known: frozenset[int] = frozenset(),
    live_maps: bool = False,
) -> Line:
    programs = _Programs(closing, known, live_maps)
    loaded = tuple(programs.of(member) for member in chain.members)
    held = any(member.array_id for member in chain.members)
    entry = takes_entry(chain.members, chain.rules) and None not in loaded and not held
    return Line(chain.members, loaded, entry, run, chain.rules)


class _Programs:
    """Programs beside those that run, on copies of their maps; `known` are the maps in use."""

    def __init__(
        self, closing: contextlib.ExitStack, known: frozenset[int], live_maps: bool
    ) -> None:
        self.closing, self.known, self.live_maps = closing, known, live_maps
        self.copies = Copies(closing)
        self.pinned: dict[str, int] = {}

    def own(self, fd: int) -> int:
        self.closing.callback(os.close, fd)
        return fd

    def of(self, member: Member) -> int | None:
        """The descriptor of what does with a packet what the member does; None: a vacant slot."""
        if not member.id and not member.source:
            return None
        if member.devbound:
            raise _untried(member, "the kernel makes no test runs of programs bound to a device")
        try:
            return self._new(member) if member.source else self._running(member)
        except CannotCopyError as error:
            raise _untried(
                member,
                str(error),
                "" if self.live_maps else "xdpctl test --live-maps runs it on the maps in use",
            ) from error

    def _running(self, member: Member) -> int:
        try:
            fd = self.own(libbpf.prog_fd(member.id))
        except KernelError as error:
            if error.errno != errno.ENOENT:
                raise
            raise RaceError(
                f"{member.known_as} (id {member.id}) is gone from the kernel",
                hint="try it once more",
            ) from error
        info = libbpf.prog_info(fd)
        code = image.of(info)
        stands_for = self._stand_ins(asm.maps_of(code.code) if code else set(info.map_ids))
        if code and not asm.makes_tail_calls(code.code):
            return self._load(member, code, stands_for)
        if any(number != other for number, other in stands_for.items()):
            raise CannotCopyError(
                "its code is not kept with it: another tool or an earlier xdpctl has loaded it, or "
                "it uses something of a kernel module"
            )
        return fd if info.type == uapi.BPF_PROG_TYPE_XDP else self._alone(member, fd)

    def _new(self, member: Member) -> int:
        """A member to be. Its maps are its own already, but for those that are pinned."""
        assert member.source is not None
        if code := member.source.image:  # its maps are there already: it will run on them
            return self._load(member, code, self._stand_ins(asm.maps_of(code.code)))
        if member.source.maps_of and not member.source.forced:
            check_same(member, None)
        loaded = loading.load(member.source, member.frags, apart=True)
        for fd in (loaded.fd, *loaded.arrays.values(), *loaded.maps.values()):
            self.own(fd)
        info = libbpf.prog_info(loaded.fd)
        code = image.of(info)
        named = asm.maps_of(code.code) if code else {*info.map_ids}
        stands_for = {number: number for number in named}
        stands_for |= self._stand_ins(named & self.known)
        for path, fd in loaded.maps.items():
            number = libbpf.map_info(fd).id
            stands_for[number] = self.pinned.setdefault(path, number)
        if all(number == other for number, other in stands_for.items()):
            return loaded.fd
        if code is None or loaded.arrays:
            raise CannotCopyError(
                "it shares maps, and uses something of a kernel module or makes tail calls"
            )
        return self._load(member, code, stands_for)

    def _stand_ins(self, map_ids: set[int]) -> dict[int, int]:
        """What is to be used for maps, by id."""
        return {one: one if self.live_maps else self.copies.of(one) for one in map_ids}

    def _load(self, member: Member, code: Image, stands_for: dict[int, int]) -> int:
        text = asm.with_maps(code.code, stands_for)
        kind, name = uapi.BPF_PROG_TYPE_XDP, member.name
        if code.frags:
            with contextlib.suppress(KernelError):  # before Linux 5.18
                return self.own(
                    Program.load(kind, name, text, gpl=code.gpl, frags=True).handed_over()
                )
        try:
            return self.own(Program.load(kind, name, text, gpl=code.gpl).handed_over())
        except KernelError as error:
            raise words.refused(f"{name} for a trial", error, ext=False) from error

    def _alone(self, member: Member, fd: int) -> int:
        """An EXT program behind a root of its own: the kernel does not run it else."""
        root = dispatcher.build([Member(member.name, frags=member.frags)])
        self.own(root.program.fd)
        self.own(root.hook(fd, 0).handed_over())
        return root.program.fd


def _untried(member: Member, why: str, hint: str = "") -> UnsupportedError:
    what = f"{member.name} (id {member.id})" if member.id else member.name
    return UnsupportedError(f"{what} cannot be tried", why=why, hint=hint)


# --- running ------------------------------------------------------------------------------------


def _runner(ifindex: int) -> Run:
    """How programs are run here: as if the packets came in on an interface, if the kernel can."""

    def with_context(program: int, packet: bytes, metadata: bytes) -> tuple[int, bytes, bytes]:
        context = abi.XdpMd(data=len(metadata), ingress_ifindex=ifindex)
        verdict, out, _time = libbpf.prog_test_run(program, metadata + packet, context=context)
        return verdict, out[context.data :], out[: context.data]

    def without(program: int, packet: bytes, _metadata: bytes) -> tuple[int, bytes, bytes]:
        return (*libbpf.prog_test_run(program, packet)[:2], b"")

    kind = uapi.BPF_PROG_TYPE_XDP
    with Program.load(kind, "probe", asm.PASS, gpl=True) as probe:
        try:
            with_context(probe.fd, bytes(64), b"")
        except KernelError:
            return without
    return with_context


@contextlib.contextmanager
def _one_cpu() -> Iterator[None]:
    """Stay on one CPU: programs hand things on to each other in per-CPU maps."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)
