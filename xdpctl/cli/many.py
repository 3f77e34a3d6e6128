"""One change on one interface, or on many: each by itself, with a result of its own."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import click

from .. import render
from ..bpffs import Bpffs
from ..chain import Chain
from ..commit import Report, transact
from ..errors import Interrupted, KernelError, XdpctlError
from ..history import Terms
from ..interfaces import Interface, is_pattern
from ..observe import View
from ..state import State
from .common import Asked, Settings
from .waiting import Work, waited_for


def change(
    settings: Settings,
    command: str,
    bpffs: Bpffs,
    pattern: str,
    target: Callable[[State], Chain],
    keeps: bool = False,
    **options: Any,
) -> None:
    """Bring the interface that is named, or each that matches a pattern, to a target chain.

    It `keeps` the programs that leave; the other `options` are those of `transact`. Where a trial
    is asked for, the chain is tried instead.
    """
    terms = Terms(command, settings.confirm_within, keeps)
    if settings.must_pass:
        from .. import pcap, trial

        options["check"] = trial.gate(settings.must_pass, pcap.read(settings.must_pass))

    def work(one: Interface, view: View | None) -> Report:
        report = transact(
            bpffs,
            one,
            target,
            dry_run=settings.dry_run or settings.trial is not None,
            on_step=render.step_printer(settings.verbose > 0 and not settings.json),
            view=view,
            terms=terms,
            **options,
        )
        if settings.trial:
            _try(bpffs, report, settings.trial)
        return report

    one_or_each(settings, command, bpffs, pattern, work)


def one_or_each(settings: Settings, command: str, bpffs: Bpffs, pattern: str, work: Work) -> None:
    """Do the work on the interface that is named, or on each that matches a pattern."""
    found = Interface.matching(pattern)
    with waited_for(settings, bpffs, work) as noted:
        if is_pattern(pattern):
            change_each(settings, command, found, noted)
        else:
            render.change(command, noted(found[0], None), settings)


def _try(bpffs: Bpffs, report: Report, asked: Asked) -> None:
    """Find out what a chain that was planned would do with the packets that were given."""
    from .. import fates, trial

    report.trial = trial.attempt(
        bpffs, report.before, report.plan, asked.packets, live_maps=asked.live_maps
    )
    if asked.out is not None:
        fates.write(asked.out, report.plan.interface, report.trial)


def change_each(
    settings: Settings,
    command: str,
    found: Sequence[Interface],
    work: Work,
    view: View | None = None,
) -> None:
    """Do the work on every interface, whatever comes of the others.

    The exit code is that of the failures, 1 if they differ; the last line names them.
    """
    view = view or View()
    failed: list[tuple[Interface, XdpctlError]] = []
    documents: list[dict[str, Any]] = []
    for number, interface in _progress(command, found, settings):
        try:
            try:
                report = work(interface, view)
            except KernelError as kernel:
                raise kernel.explained() from kernel
        except XdpctlError as error:
            failed.append((interface, error))
            documents.append({"interface": interface.name, "error": error.as_dict()})
            if not settings.json:
                text = f"{interface.name}: {render.error_text(error, settings)}"
                click.echo(f"xdpctl: {text}", err=True)
            ended = error if isinstance(error, Interrupted) else None
        else:
            documents.append(render.report_data(command, report))
            if not settings.json:
                render.change(command, report, settings)
                if command == "swap-dispatcher" and not settings.quiet and not settings.dry_run:
                    old = report.before.root
                    print(f"{interface.name}: root {old.id if old else 0} → {report.root_id}")
            ended = None
        if ended:
            left = found[number + 1 :]
            failed += [(one, ended) for one in left]
            documents += [{"interface": one.name, "error": ended.as_dict()} for one in left]
            break
    if settings.json:
        render.print_json(
            {"command": command, "interfaces": documents, "dry_run": settings.dry_run}
        )
    if failed:
        names = ", ".join(interface.name for interface, _error in failed)
        click.echo(f"xdpctl: {len(failed)} of {len(found)} interfaces failed: {names}", err=True)
        codes = {error.exit_code for _interface, error in failed}
        raise click.exceptions.Exit(codes.pop() if len(codes) == 1 else XdpctlError.exit_code)


def _progress(
    command: str, found: Sequence[Interface], settings: Settings
) -> Iterator[tuple[int, Interface]]:
    """The interfaces with their numbers, behind a progress bar where a person looks on."""
    if not sys.stderr.isatty() or settings.quiet or settings.json:
        yield from enumerate(found)
        return
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    yield from track(enumerate(found), command, total=len(found), console=console, transient=True)
