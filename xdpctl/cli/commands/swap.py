"""xdpctl swap-dispatcher."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import click

from ...bpffs import homes
from ...bpffs.mount import Bpffs
from ...change.batch import Batch
from ...change.report import Report
from ...change.transact import transact
from ...errors import KernelError, NotFoundError, UsageError
from ...host.holders import Holder, holders
from ...host.interfaces import Interface, is_pattern, is_several
from ...kernel import libbpf
from ...kernel.records import Handle
from ...model.chain import Chain
from ...model.request import Request
from ...model.state import State
from ...model.terms import Terms
from ...observe.reading import View
from ...view import change, steps
from .. import complete
from ..many import change_each
from ..options import RootOptions, confirm_option, root_options, shared_option
from ..settings import Settings, common_options
from ..waiting import waited_for


@click.command("swap-dispatcher")
@click.argument(
    "interface", required=False, metavar="[INTERFACE|PATTERN]", shell_complete=complete.interfaces
)
@click.option(
    "-a", "--all", "everything", is_flag=True, help="Every interface that runs a chain of xdpctl's."
)
@root_options()
@shared_option()
@confirm_option()
@common_options(changes=True)
@click.pass_obj
def command(
    settings: Settings,
    interface: str | None,
    everything: bool,
    root: RootOptions,
    shared: bool,
    confirm_within: float,
) -> None:
    """Exchange the root of a running chain for a new one, and show how.

    A second root is loaded, every program is hooked onto it, the interface is flipped over, and
    the first root goes: seven steps, each with its ids, holders and time. A quoted PATTERN means
    those of the interfaces that run a chain.

    \b
    Examples:
      xdpctl swap-dispatcher eth0
      xdpctl swap-dispatcher eth0 --root fused --dry-run
      xdpctl swap-dispatcher --all
    """
    if everything == (interface is not None):
        raise UsageError(
            "say which interfaces are meant", hint="name one or a pattern, or give --all"
        )
    bpffs = settings.enter(changes=True)
    terms = Terms("swap-dispatcher", confirm_within)
    request = replace(root.request, shared=shared, dry_run=settings.dry_run, terms=terms)
    if interface is not None and not is_several(interface):
        _one(settings, bpffs, Interface.named(interface), request)
        return
    view = View()
    found = Interface.matching(interface, view.names) if interface else Interface.all()
    if interface is None or is_pattern(interface):
        found = _with_chains(bpffs, found, view)

    def work(one: Interface, batch: Batch | None) -> Report:
        return transact(bpffs, one, _same, request, batch=batch)

    with waited_for(settings, bpffs, work) as noted:
        change_each(settings, "swap-dispatcher", found, noted, Batch(view))


def _with_chains(bpffs: Bpffs, found: list[Interface], view: View) -> list[Interface]:
    """Those of some interfaces that run a root of ours."""
    roots = {root_id for home in homes.every(bpffs) for root_id in home.chains()}
    running = [one for one in found if view.programs.get(one.ifindex, (0, 0))[0] in roots]
    if not running:
        raise NotFoundError(
            "no interface runs a chain", hint="load one first: xdpctl load INTERFACE FILE"
        )
    return running


def _same(state: State) -> Chain:
    if state.root is None:
        raise NotFoundError(
            f"no XDP program is loaded on {state.interface.name}",
            hint=f"load one first: xdpctl load {state.interface.name} FILE",
        )
    return state.chain


def _one(settings: Settings, bpffs: Bpffs, interface: Interface, request: Request) -> None:
    before: dict[Handle, list[Holder]] = {}
    shown = not settings.json and not settings.quiet

    def target(state: State) -> Chain:
        chain = _same(state)
        assert state.root is not None
        again = bool(before)
        before.clear()
        before.update(holders([slot.handle for slot in state.root.slots if slot.handle]))
        if shown and not again and state.root.owner == "xdpctl" and state.root.config:
            steps.first_steps(state, before)
        return chain

    def work(one: Interface, batch: Batch | None) -> Report:
        on_step = change.step_printer(shown)
        return transact(bpffs, one, target, request, on_step=on_step, batch=batch)

    with waited_for(settings, bpffs, work) as noted:
        report, gone = noted(interface, None), None
        if report.before.root and not settings.dry_run:
            with contextlib.suppress(KernelError):  # the swap is made, whatever this may say
                gone = libbpf.wait_gone(report.before.root.id)
        steps.swap(report, before, gone, settings)
