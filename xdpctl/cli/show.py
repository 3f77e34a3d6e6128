"""xdpctl show."""

from __future__ import annotations

import click

from .. import counting, render, rights, status, tally
from ..show import show
from ..state import State
from . import complete
from .common import Settings, common_options
from .status import states


@click.command("show")
@click.argument("interface", metavar="{INTERFACE|PATTERN}", shell_complete=complete.interfaces)
@common_options()
@click.pass_obj
def command(settings: Settings, interface: str) -> None:
    """Draw the way of a packet through the chain of an interface, top to bottom."""
    bpffs = settings.enter()
    rights.require()
    bpffs.check_safe()
    found = states(bpffs, interface)
    if settings.json:
        render.print_json(
            {"command": "show", "interfaces": [status.state_data(state) for state in found]}
        )
    else:
        show(found, {one: counts for state in found for one, counts in _counts(state).items()})


def _counts(state: State) -> dict[int, dict[str, int]]:
    """The verdicts that are counted of each program."""
    counted = state.root and state.root.rules.counted
    reading = counting.read(state.home) if counted else None
    programs = reading.programs if reading else {}
    return {one: tally.by_name(counted.verdicts) for one, counted in programs.items()}
