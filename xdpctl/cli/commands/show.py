"""xdpctl show."""

from __future__ import annotations

import functools

import click

from ...bpffs import homes
from ...bpffs.mount import Bpffs
from ...host import rights
from ...model.state import State
from ...roots import counting
from ...view import document, stats
from ...view.show import data, show
from ...view.status import shared_data
from .. import complete
from ..outcomes import progress
from ..settings import Settings, common_options
from .status import states, told


@click.command("show")
@click.argument("interface", metavar="{INTERFACE|PATTERN}", shell_complete=complete.interfaces)
@common_options()
@click.pass_obj
def command(settings: Settings, interface: str) -> None:
    """Draw the way of a packet through the chain of an interface.

    If packets are counted (xdpctl stats --on), it shows how many verdicts of each kind every
    program gave.

    \b
    Examples:
      xdpctl show eth0
      xdpctl show 'eth*'
    """
    bpffs = settings.enter()
    rights.require()
    bpffs.check_safe()
    found = states(bpffs, interface, functools.partial(progress, settings, "show"))
    drawn = [one for one in found if isinstance(one, State)]
    counts = {one: counted for state in drawn for one, counted in _counts(bpffs, state).items()}
    if settings.json:
        seen = [data(one, counts) for one in found]
        document.show("show", {"interfaces": seen, "shared": shared_data(found)})
    else:
        show(drawn, counts)
    told(found, settings)


def _counts(bpffs: Bpffs, state: State) -> dict[int, dict[str, int]]:
    """The verdicts that are counted of each program."""
    counted = state.root and state.root.rules.counted
    reading = counting.read(homes.at(bpffs, state.home)) if counted else None
    programs = reading.programs if reading else {}
    return {one: stats.by_name(counted.verdicts) for one, counted in programs.items()}
