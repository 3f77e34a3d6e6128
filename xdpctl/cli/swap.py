"""xdpctl swap-dispatcher."""

from __future__ import annotations

import click

from .. import render
from ..chain import Chain
from ..commit import transact
from ..errors import NotFoundError
from ..holders import Holder, holders
from ..kernel import libbpf
from ..observe import State
from ..pins import Interface
from . import complete
from .common import Settings, common_options


@click.command("swap-dispatcher")
@click.argument("interface", shell_complete=complete.interfaces)
@common_options(changes=True)
@click.pass_obj
def command(settings: Settings, interface: str) -> None:
    """Rebuild an interface's dispatcher under its running chain, and show how.

    Loads a second root, hooks every program onto it, flips the interface over and lets the first
    root go: the seven steps, with the ids, the holders and the time of each.
    """
    before: dict[int, list[Holder]] = {}
    shown = not settings.json and not settings.quiet

    def target(state: State) -> Chain:
        if state.root is None:
            raise NotFoundError(
                f"no XDP program is loaded on {interface}",
                hint=f"load one first: xdpctl load {interface} FILE",
            )
        before.clear()
        before.update(holders([slot.link_id for slot in state.root.slots if slot.link_id]))
        if shown and state.root.owner == "xdpctl":
            render.first_steps(state, before)
        return state.chain

    report = transact(
        settings.enter(changes=True),
        Interface.named(interface),
        target,
        dry_run=settings.dry_run,
        on_step=render.step_printer(shown),
    )
    gone = None
    if report.before.root and not settings.dry_run:
        gone = libbpf.wait_gone(report.before.root.id)
    render.swap(report, before, gone, settings)
