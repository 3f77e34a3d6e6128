"""One change on one interface, or on many: each by itself, with a result of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

from ..bpffs.mount import Bpffs
from ..change.batch import Batch
from ..change.report import Report
from ..change.transact import transact
from ..host.interfaces import Failure, Interface, is_several, within
from ..model.chain import Chain
from ..model.plan import Plan
from ..model.request import USUAL_REQUEST, Request
from ..model.state import State
from ..model.terms import Terms
from ..observe.reading import View
from ..view import change as changes
from ..view import document
from ..view.style import say
from .options import ChangeOptions, TrialOptions
from .outcomes import each, end, progress, tell
from .settings import Settings
from .waiting import Work, waited_for

Check = Callable[[State, Plan], None]
"""Raises an error for a plan that is not to be carried out."""


class Wanted(NamedTuple):
    """What an interface is to run, and what is asked of its root.

    One that is to be shared may be that which one of the interfaces `beside` it runs now.
    """

    target: Callable[[State], Chain]
    request: Request
    beside: Sequence[Interface] = ()


def change(
    settings: Settings,
    command: str,
    bpffs: Bpffs,
    pattern: str,
    target: Callable[[State], Chain],
    changing: ChangeOptions,
    request: Request = USUAL_REQUEST,
    *,
    keeps: bool = False,
) -> None:
    """Bring the interface that is named, or each that matches a pattern, to a target chain.

    The `request` is of the root; it `keeps` the programs that leave. Where a trial is asked for,
    the chain is tried instead.
    """
    wanted = Wanted(target, request)
    work = worker(settings, command, bpffs, lambda _one: wanted, changing, keeps=keeps)
    one_or_each(settings, command, bpffs, pattern, work)


def worker(
    settings: Settings,
    command: str,
    bpffs: Bpffs,
    wanted: Callable[[Interface], Wanted],
    changing: ChangeOptions,
    *,
    keeps: bool = False,
) -> Work:
    """What brings an interface to what is wanted for it."""
    terms = Terms(command, changing.confirm_within, keeps)
    dry_run = settings.dry_run or changing.trial is not None
    check = _gate(changing.must_pass) if changing.must_pass else _unchecked

    def work(one: Interface, batch: Batch | None) -> Report:
        with within(one.netns):
            target, request, beside = wanted(one)
            if batch and request.shared:
                batch.look(bpffs, beside)
            report = transact(
                bpffs,
                one,
                target,
                replace(request, dry_run=dry_run, terms=terms),
                check=check,
                on_step=changes.step_printer(settings.verbose > 0 and not settings.json),
                batch=batch,
            )
            return _tried(bpffs, report, changing.trial) if changing.trial else report

    return work


def one_or_each(settings: Settings, command: str, bpffs: Bpffs, pattern: str, work: Work) -> None:
    """Do the work on the interface that is named, or on each that matches a pattern."""
    view = View() if is_several(pattern) else None
    found = Interface.matching(pattern, view.names) if view else Interface.matching(pattern)
    with waited_for(settings, bpffs, work) as noted:
        if view:
            change_each(settings, command, found, noted, Batch(view))
        else:
            with Batch() as batch:
                report = noted(found[0], batch)
            changes.change(command, report, settings)


def _gate(path: str) -> Check:
    from ..traffic import pcap
    from ..trial import trial

    return trial.gate(path, lambda: pcap.packets(path))


def _unchecked(_state: State, _plan: Plan) -> None:
    """Every plan is allowed."""


def _tried(bpffs: Bpffs, report: Report, asked: TrialOptions) -> Report:
    """Find out what a chain that was planned would do with the packets that were given."""
    from ..trial import trial
    from ..trial.tried import Tried
    from ..view import trial as fates

    found = trial.attempt(
        bpffs, report.before, report.plan, asked.packets, live_maps=asked.live_maps
    )
    if asked.out is not None:
        fates.write(asked.out, report.plan.interface, found)
    return Tried.of(report, found)


def change_each(
    settings: Settings,
    command: str,
    found: Sequence[Interface],
    work: Work,
    batch: Batch | None = None,
) -> None:
    """Do the work on every interface, whatever comes of the others, and tell what came of each.

    They are one `batch`. Ends as `end` says.
    """
    batch = batch or Batch(View())
    outcomes: list[Report | Failure] = []
    told = 0
    with batch:
        for outcome in each(progress(settings, command, found), lambda one: work(one, batch)):
            outcomes.append(outcome)
            if not batch.waits:
                told = _tell(settings, command, outcomes, told)
    _tell(settings, command, outcomes, told)
    if settings.json:
        documents = [
            one.as_dict() if isinstance(one, Failure) else changes.report_data(command, one)
            for one in outcomes
        ]
        document.show_change(command, {"interfaces": documents}, settings)
    end(outcomes, settings)


def _tell(settings: Settings, command: str, outcomes: Sequence[Report | Failure], told: int) -> int:
    """Tell what came of changes that are at their end; returns how many are `told` then."""
    for number in range(told, len(outcomes)) if not settings.json else ():
        outcome = outcomes[number]
        if isinstance(outcome, Failure):
            before = outcomes[number - 1] if number else None
            # What ends the rest as well, such as a signal, is told once.
            if not (isinstance(before, Failure) and before.error is outcome.error):
                tell(outcome, settings)
            continue
        changes.change(command, outcome, settings)
        if command == "swap-dispatcher" and not settings.quiet and not settings.dry_run:
            old = outcome.before.root
            say(f"{outcome.plan.interface}: root {old.id if old else 0} → {outcome.root_id or 0}")
    return len(outcomes)
