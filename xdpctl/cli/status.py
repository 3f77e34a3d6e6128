"""xdpctl status."""

from __future__ import annotations

import click

from .. import render, rights
from ..errors import VanishedError
from ..observe import observe
from ..pins import Interface
from . import complete
from .common import Settings, common_options


@click.command("status")
@click.argument("interface", required=False, shell_complete=complete.interfaces)
@common_options()
@click.pass_obj
def command(settings: Settings, interface: str | None) -> None:
    """Show what runs on an interface, or on all of them."""
    bpffs = settings.enter()
    rights.require()
    found = [Interface.named(interface)] if interface else Interface.all()
    states = []
    for one in found:
        try:
            states.append(observe(one, bpffs.interface(one)))
        except VanishedError:
            if interface:
                raise
    if settings.json:
        render.print_json(
            {"command": "status", "interfaces": [render.state_data(one) for one in states]}
        )
    else:
        render.status(states)
