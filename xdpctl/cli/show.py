"""xdpctl show."""

from __future__ import annotations

import click

from .. import render, rights, status
from ..show import show
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
        show(found)
