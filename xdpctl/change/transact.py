"""The one door: a target chain becomes what the interface runs, or nothing changes.

    observe → plan → commit → report

A lost race is observed and planned anew. Going back is one more target: what was not confirmed in
time goes back before the next change, and that change is made by the same transaction.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..bpffs import homes, pin
from ..bpffs.history import find, is_there
from ..bpffs.mount import Bpffs
from ..errors import (
    BadObjectError,
    HookBusyError,
    KernelError,
    NotFoundError,
    RaceError,
    UnconfirmedError,
    UnsupportedError,
    VanishedError,
    VerifierError,
)
from ..host import signals
from ..host.interfaces import Interface
from ..kernel.program import Program
from ..model.chain import Chain, Member
from ..model.plan import Plan
from ..model.record import is_wide
from ..model.request import USUAL_REQUEST, Request
from ..model.state import Off, State
from ..model.terms import Pending, Reason, Terms
from ..observe.reading import observe
from ..roots.hook import LostRace
from ..roots.peers import unshared
from .batch import Batch
from .commit import Commit
from .planning import Planner
from .report import Report, Step
from .settle import rehome, repair

if TYPE_CHECKING:
    from .watchdog import Watchdog

_ATTEMPTS = 8
_UNCHANGED = 3
"""After so many refusals in front of the same root nobody else is changing it."""


def transact(
    bpffs: Bpffs,
    interface: Interface,
    target: Callable[[State], Chain],
    request: Request = USUAL_REQUEST,
    *,
    check: Callable[[State, Plan], None] = lambda _state, _plan: None,
    on_step: Callable[[Step], None] = lambda _step: None,
    batch: Batch | None = None,
) -> Report:
    """Bring an interface from its current chain to `target(state)`.

    `check` may raise an error before anything is made. A lost race is observed and planned anew, so
    `target` and `check` may be called several times. A change before that was not confirmed in time
    goes back first. In a `batch` of several interfaces the change is live at the end, but its old
    root goes with the end of that. Raises any XdpctlError; the interface then runs what it ran
    before.
    """
    if batch is None:
        with Batch() as alone:
            return transact(
                bpffs, interface, target, request, check=check, on_step=on_step, batch=alone
            )
    batch.begin(bpffs, interface)
    return _transact(bpffs, interface, target, request, check, on_step, batch)


def _transact(
    bpffs: Bpffs,
    interface: Interface,
    target: Callable[[State], Chain],
    request: Request,
    check: Callable[[State, Plan], None],
    on_step: Callable[[Step], None],
    batch: Batch,
) -> Report:
    view, terms = batch.view_of(interface), request.terms
    planner = Planner(target, request, view)
    paths = homes.of(bpffs, interface)
    if request.dry_run:
        return _planned(bpffs, interface, planner, check, batch)

    def guard() -> Watchdog:
        from .watchdog import Watchdog

        return Watchdog(bpffs, interface, paths, take_back)

    refused_at: list[int | None] = []
    removed: tuple[str, ...] = ()
    overdue: Pending | None = None
    for attempt in range(_ATTEMPTS):
        signals.release()
        if overdue:
            take_back(bpffs, interface, overdue)
        with pin.private(), contextlib.ExitStack() as lock:
            lock.enter_context(paths.locked())
            state = observe(interface, bpffs, locked=True, view=None if attempt else view)
            removed += repair(bpffs, paths, state)
            if rehome(paths, state, batch.settle):
                continue
            if overdue := _overdue(bpffs, state, terms):
                continue
            plan = planner.plan(state)
            _check_lasting(bpffs, plan, interface, batch)
            check(state, plan)
            report = Report(plan, state, plan.target.members, removed=removed)
            report.unshared = unshared(plan, state) if plan.shared else ""
            commit = Commit(bpffs, paths, report, on_step, terms, guard, batch.peers)
            try:
                commit.run()
            except LostRace as lost:
                refused_at.append(state.root.id if state.root else None)
                if refused_at[-_UNCHANGED:] == refused_at[-1:] * _UNCHANGED:
                    raise _no_race(interface, lost) from lost
                continue
            except (UnsupportedError, VerifierError, BadObjectError, KernelError):
                # The program's fault, or does this kernel refuse all of its kind?
                if not planner.falls_back(plan):
                    raise
                continue
            if commit.flipped:
                batch.wait(commit, lock.pop_all())
            return report
    raise RaceError(
        f"{interface.name} kept changing",
        why=f"another program changed its XDP hook during each of {_ATTEMPTS} attempts",
        hint="find out who does, then try again",
    )


def _planned(
    bpffs: Bpffs,
    interface: Interface,
    planner: Planner,
    check: Callable[[State, Plan], None],
    batch: Batch,
) -> Report:
    """What would be done; nothing is."""
    state = observe(interface, bpffs, view=batch.view_of(interface))
    _overdue(bpffs, state, planner.request.terms, dry_run=True)
    plan = planner.plan(state)
    unknown = plan.flip in ("attach", "update") and planner.refused is None
    if unknown and planner.falls_back(plan):
        plan = planner.plan(state)
    _check_lasting(bpffs, plan, interface, batch)
    check(state, plan)
    return Report(plan, state, unshared=unshared(plan, state) if plan.shared else "")


def _check_lasting(bpffs: Bpffs, plan: Plan, interface: Interface, batch: Batch) -> None:
    """Raise BpffsError where the chain, or a map's pin, would go with this process."""
    if not bpffs.outlives or plan.flip in ("none", "detach"):
        return
    sources = [member.source for member in plan.joining if member.source]
    for path in sorted({bpffs.path}.union(one.pin_path for one in sources if one.pin_path)):
        # To find out takes a look at all processes.
        if (interface.netns, path) not in batch.lasting:
            bpffs.check_lasting(path)
            batch.lasting.add((interface.netns, path))


def _no_race(interface: Interface, lost: LostRace) -> HookBusyError:
    """What it means that the kernel refuses while nothing changes."""
    return HookBusyError(
        f"the kernel does not let go of the XDP hook of {interface.name}",
        why=str(lost.__cause__),
        hint="a program in another mode, or on a device above or below this one, may exclude it",
    )


def _overdue(bpffs: Bpffs, state: State, terms: Terms, dry_run: bool = False) -> Pending | None:
    """A change that was not confirmed in time, and has to go back before this one.

    Raises UnconfirmedError where its time has not come.
    """
    pending, name = state.pending, state.interface.name
    if pending is None or terms.uses_up:
        return None
    if pending.left > 0 or dry_run:
        raise UnconfirmedError(
            f"a change of {name} waits for its confirmation",
            why=f"it goes back to {find(bpffs, state, pending.number).words} in "
            f"{max(pending.left, 0):.0f} s",
            hint=f"xdpctl confirm {name} keeps it, xdpctl rollback {name} --to {pending.number} "
            "takes it back now",
        )
    return pending


def go_back(
    bpffs: Bpffs,
    interface: Interface,
    number: int | None = None,
    *,
    within: float = 0,
    waiting: Pending | None = None,
    dry_run: bool = False,
    on_step: Callable[[Step], None] = lambda _step: None,
    batch: Batch | None = None,
) -> Report:
    """Go back to a generation, by default the latest; that is to be confirmed `within` seconds.

    A chain that is off the hook comes first: it is put back.

    Raises NotFoundError where it is not kept, where the change that was `waiting` for its
    confirmation does so no longer, or a program of it is gone. Only a change that waits
    for its confirmation goes back without those. Raises UnsupportedError where there would be no
    chain that could wait.
    """

    state = observe(interface, bpffs, view=batch.view_of(interface) if batch else None)
    if state.off and number is None and not state.pending:
        return _put_back(bpffs, interface, state.off, within, dry_run, on_step)
    wanted = find(bpffs, state, number)
    gone: list[Member] = []
    # If the earlier program is gone, the same code goes on where it is.
    alone = wanted.alone and not wanted.restored(state, is_there)[1]
    if alone and within:
        raise UnsupportedError(
            f"what {interface.name} would go back to cannot wait for a confirmation",
            why="it is a program that is no member of a chain",
            hint="leave out --confirm-within; xdpctl adopt makes it a member again",
        )

    def target(state: State) -> Chain:
        if waiting not in (None, state.pending):
            raise NotFoundError(f"the change of {interface.name} does not wait any more")
        one = find(bpffs, state, wanted.number)
        chain, missing = one.restored(state, is_there)
        gone[:] = missing
        if missing and not (state.pending and state.pending.number == one.number):
            names = ", ".join(f"{member.known_as} (id {member.id})" for member in missing)
            raise NotFoundError(
                f"{interface.name} cannot go back to generation {one.number}",
                why=f"{names} left the kernel when the chain was changed",
                hint="load from its file what is missing; --confirm-within, and --keep of unload, "
                "keep programs",
            )
        return state.chain if one.alone and missing else chain

    reason: Reason = "asked" if waiting is None else "late" if waiting.left <= 0 else "ended"
    same = state.root and state.root.kind == wanted.kind
    report = transact(
        bpffs,
        interface,
        target,
        Request(
            mode=None if state.root else wanted.mode,
            first_attach=wanted.attach,
            kind=wanted.kind if alone or not (same or wanted.alone) else None,
            protocol=None if is_wide(len(wanted.chain.members)) else wanted.protocol or None,
            dry_run=dry_run,
            terms=Terms("rollback" if within else "", within, back=wanted.number, reason=reason),
        ),
        on_step=on_step,
        batch=batch,
    )
    report.gone = tuple(gone)
    return report


def _put_back(
    bpffs: Bpffs,
    interface: Interface,
    off: Off,
    within: float,
    dry_run: bool,
    on_step: Callable[[Step], None],
) -> Report:
    """Run a chain again whose root is off the hook; its old pins are left over, and go first."""
    with contextlib.ExitStack() as kept:
        for member in off.chain.members:
            kept.enter_context(Program.by_id(member.id))
        return transact(
            bpffs,
            interface,
            lambda _state: off.chain,
            Request(
                mode="unspecified",
                first_attach=off.attach,
                kind=off.kind,
                dry_run=dry_run,
                terms=Terms("rollback", within),
            ),
            on_step=on_step,
        )


def take_back(bpffs: Bpffs, interface: Interface, pending: Pending) -> bool:
    """Go back from a change that was not confirmed; False where it does not wait there any more."""
    try:
        if observe(interface, bpffs).pending != pending:
            return False
        go_back(bpffs, interface, pending.number, waiting=pending)
    except VanishedError:
        return False
    except NotFoundError:
        # Somebody else has done it meanwhile.
        if observe(interface, bpffs).pending != pending:
            return False
        raise
    return True
