"""xdpctl stats."""

from __future__ import annotations

import contextlib
import time
from dataclasses import replace

import click

from ...bpffs import homes
from ...bpffs.mount import Bpffs
from ...errors import NotFoundError, UsageError
from ...host import rights
from ...host.interfaces import Interface, is_pattern, is_several
from ...model.chain import Chain
from ...model.request import Request
from ...model.state import State
from ...observe.reading import observe
from ...roots import counting
from ...view import stats
from ...view.stats import Look
from .. import complete
from ..many import change
from ..numbers import Seconds
from ..options import ChangeOptions, RootOptions, confirm_option, root_options
from ..settings import Settings, common_options

_INTERVAL = 1.0


@click.command("stats")
@click.argument("interface", metavar="{INTERFACE|PATTERN}", shell_complete=complete.interfaces)
@click.option("--on/--off", "switch", default=None, help="Begin to count, or stop.")
@click.option("-w", "--watch", is_flag=True, help="Go on until a signal ends it.")
@click.option(
    "--interval",
    metavar="SECONDS",
    type=Seconds(),
    help=f"Seconds over which rates are measured; 0 measures none [{_INTERVAL:g}].",
)
@root_options()
@confirm_option()
@common_options(changes=True)
@click.pass_obj
def command(
    settings: Settings,
    interface: str,
    switch: bool | None,
    watch: bool,
    interval: float | None,
    root: RootOptions,
    confirm_within: float,
) -> None:
    """Show what each program does with packets: verdicts, rate, time, last word.

    Counting costs some time for each packet, so it is off until --on. The counts go on through
    every change of the chain; those of a program end when it leaves.

    \b
    Examples:
      xdpctl stats eth0 --on
      xdpctl stats eth0 --watch
      xdpctl stats eth0 --off
    """
    if switch is not None:
        if watch or interval is not None:
            raise UsageError("--on and --off show nothing", hint="run xdpctl stats again to look")
        changing = ChangeOptions(confirm_within=confirm_within)
        _switch(settings, interface, changing, root.request, on=switch)
        return
    if root != RootOptions() or settings.dry_run or confirm_within:
        raise UsageError("this is for --on and --off", hint="see xdpctl stats --help")
    if watch and is_several(interface):
        raise UsageError("--watch shows one interface", hint="name it")
    bpffs = settings.enter()
    rights.require()
    bpffs.check_safe()
    found = Interface.matching(interface)
    seconds = _INTERVAL if interval is None else interval
    if watch:
        stats.live(lambda before: _look(bpffs, found[0], before), settings, max(seconds, 0.05))
        return
    looks = []
    for one in found:
        with contextlib.suppress(*([NotFoundError] if is_pattern(interface) else [])):
            looks.append(_look(bpffs, one))
    if not looks:
        raise _not_counted(interface)
    if seconds:
        time.sleep(seconds)
        looks = [_look(bpffs, look.state.interface, look) for look in looks]
    stats.show(looks, settings)


def _not_counted(name: str) -> NotFoundError:
    return NotFoundError(
        f"nothing is counted on {name}",
        why="counting costs time, and is off until it is asked for",
        hint=f"xdpctl stats {name} --on",
    )


def _look(bpffs: Bpffs, interface: Interface, before: Look | None = None) -> Look:
    """What is counted on an interface. Raises NotFoundError where nothing is."""
    state = observe(interface, bpffs)
    counted = state.root and state.root.rules.counted
    reading = counting.read(homes.at(bpffs, state.home)) if counted else None
    if reading is None:
        raise _not_counted(interface.name)
    return Look(state, reading, before.reading if before else None)


def _switch(
    settings: Settings, interface: str, changing: ChangeOptions, request: Request, *, on: bool
) -> None:
    def target(state: State) -> Chain:
        if state.root is None:
            raise NotFoundError(
                f"no XDP program is loaded on {state.interface.name}", hint="see xdpctl status"
            )
        found = state.chain
        return replace(found, rules=found.rules._replace(counted=int(on)))

    bpffs = settings.enter(changes=True)
    change(settings, "stats", bpffs, interface, target, changing, request)
