"""xdpctl status."""

from __future__ import annotations

import click

from .. import render, rights
from ..errors import VanishedError
from ..interfaces import Interface, is_pattern
from ..observe import View, observe
from . import complete
from .common import Settings, common_options


@click.command("status")
@click.argument(
    "interface", required=False, metavar="[INTERFACE|PATTERN]", shell_complete=complete.interfaces
)
@common_options()
@click.pass_obj
def command(settings: Settings, interface: str | None) -> None:
    """Show what runs on an interface, on those that match a pattern, or on all of them."""
    bpffs = settings.enter()
    rights.require()
    bpffs.check_safe()
    one = interface is not None and not is_pattern(interface)
    found = Interface.matching(interface) if interface else Interface.all()
    view = None if one else View()
    states = []
    for each in found:
        try:
            states.append(observe(each, bpffs, view=view))
        except VanishedError:
            if one:
                raise
    if settings.json:
        render.print_json(
            {"command": "status", "interfaces": [render.state_data(state) for state in states]}
        )
    else:
        render.status(states, settings)
