"""xdpctl show."""

from __future__ import annotations

import functools

import click

from .. import counting, render, rights, status, tally
from ..show import show
from ..state import State
from . import complete
from .common import Settings, common_options
from .outcomes import progress
from .status import states, told


@click.command("show")
@click.argument("interface", metavar="{INTERFACE|PATTERN}", shell_complete=complete.interfaces)
@common_options()
@click.pass_obj
def command(settings: Settings, interface: str) -> None:
    """Draw the way of a packet through the chain of an interface, top to bottom."""
    bpffs = settings.enter()
    rights.require()
    bpffs.check_safe()
    found = states(bpffs, interface, functools.partial(progress, settings, "show"))
    if settings.json:
        render.print_json({"command": "show", "interfaces": [status.data(one) for one in found]})
    else:
        drawn = [one for one in found if isinstance(one, State)]
        show(drawn, {one: counts for state in drawn for one, counts in _counts(state).items()})
    told(found, settings)


def _counts(state: State) -> dict[int, dict[str, int]]:
    """The verdicts that are counted of each program."""
    counted = state.root and state.root.rules.counted
    reading = counting.read(state.home) if counted else None
    programs = reading.programs if reading else {}
    return {one: tally.by_name(counted.verdicts) for one, counted in programs.items()}
