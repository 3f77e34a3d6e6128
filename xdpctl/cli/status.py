"""xdpctl status."""

from __future__ import annotations

import click
from click.core import ParameterSource

from .. import render, rights, status
from ..bpffs import Bpffs
from ..errors import UsageError, VanishedError
from ..interfaces import Interface, is_pattern
from ..observe import View, observe
from ..state import State
from . import complete
from .common import Settings, common_options


@click.command("status")
@click.argument(
    "interface", required=False, metavar="[INTERFACE|PATTERN]", shell_complete=complete.interfaces
)
@click.option("-w", "--watch", is_flag=True, help="Go on, and show what changes.")
@click.option(
    "--interval",
    metavar="SECONDS",
    type=click.FloatRange(0.05),
    default=1.0,
    show_default=True,
    help="How often --watch looks.",
)
@common_options()
@click.pass_context
def command(context: click.Context, interface: str | None, watch: bool, interval: float) -> None:
    """Show what runs on an interface, on those that match a pattern, or on all of them."""
    settings: Settings = context.obj
    if not watch and context.get_parameter_source("interval") is not ParameterSource.DEFAULT:
        raise UsageError("--interval is for --watch", hint="add --watch")
    bpffs = settings.enter()
    rights.require()
    bpffs.check_safe()
    if watch:
        status.live(lambda: states(bpffs, interface), settings, interval)
        return
    found = states(bpffs, interface)
    if settings.json:
        render.print_json(
            {"command": "status", "interfaces": [status.state_data(state) for state in found]}
        )
    else:
        status.status(found, settings)


def states(bpffs: Bpffs, interface: str | None) -> list[State]:
    """What is meant by a name, a pattern or nothing, as it runs now.

    Raises NotFoundError where there is no such interface, VanishedError where a named one goes.
    """
    one = interface is not None and not is_pattern(interface)
    view = None if one else View()
    found = []
    for each in Interface.matching(interface) if interface else Interface.all():
        try:
            found.append(observe(each, bpffs, view=view))
        except VanishedError:
            if one:
                raise
    return found
