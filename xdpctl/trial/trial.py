"""What a chain would do with packets, found out beside the one that runs.

Its programs are loaded once more, on copies of their maps, and run on each packet one after the
other (BPF_PROG_TEST_RUN), each on what the one before left of it. That is what a root does, of
either kind, and tells what no root tells: every program's verdict and what it changed. Nothing is
attached to an interface and nothing pinned: all of it goes with this process.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence

from ..bpffs import homes
from ..bpffs.mount import Bpffs
from ..errors import GateError, Interrupted, KernelError, RaceError, UsageError, XdpctlError
from ..kernel import abi, asm, libbpf, uapi
from ..kernel.program import Program
from ..model.chain import XDP_PASS, Chain, Member, takes_entry, verdict_name
from ..model.plan import Plan
from ..model.state import State
from ..roots import kinds
from ..roots.construct import Rehearsal
from ..roots.hook import LostRace
from ..traffic.pcap import Packet
from .fates import Fate, Line, NotRun, Outcome, Run, Trial
from .programs import Programs

_SHOWN = 5
"""Packets that a refusal names."""


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
    except NotRun as error:
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
    return Chain(tuple(members), root.rules).if_empty(kept=True)


def _rehearse(bpffs: Bpffs, state: State, plan: Plan) -> None:
    """Build the new root as a change would, attached nowhere, and let it go."""
    if not plan.target.has_root or plan.flip == "none":
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
    programs = Programs(closing, known, live_maps)
    loaded = tuple(programs.of(member) for member in chain.members)
    held = any(member.array_id for member in chain.members)
    entry = takes_entry(chain.members, chain.rules) and None not in loaded and not held
    return Line(chain.members, loaded, entry, run, chain.rules)


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
