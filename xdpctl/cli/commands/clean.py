"""xdpctl clean."""

from __future__ import annotations

import click

from ...change.sweep import clean
from ...host import rights
from ...host.interfaces import Interface
from ...view import events
from .. import complete
from ..settings import Settings, common_options


@click.command("clean")
@click.argument(
    "interface", required=False, metavar="[INTERFACE|PATTERN]", shell_complete=complete.interfaces
)
@common_options(changes=True)
@click.pass_obj
def command(settings: Settings, interface: str | None) -> None:
    """Remove the pins that belong to nothing.

    These are pins that an interrupted command left and, without INTERFACE, pins of interfaces and
    network namespaces that are gone. What an interface runs is left alone.

    \b
    Examples:
      xdpctl clean --dry-run
      xdpctl clean
    """
    bpffs = settings.enter()
    rights.require()
    bpffs.check()
    found = Interface.matching(interface) if interface else None
    events.events("clean", clean(bpffs, found, settings.dry_run), settings)
