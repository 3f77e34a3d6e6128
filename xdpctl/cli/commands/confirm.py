"""xdpctl confirm."""

from __future__ import annotations

import click

from ...change.confirm import confirm
from ...errors import NotFoundError
from ...host import rights, signals
from ...host.interfaces import Interface, is_pattern
from ...observe.reading import observe
from ...view import history
from .. import complete
from ..settings import Settings, common_options


@click.command("confirm")
@click.argument("interface", metavar="INTERFACE|PATTERN", shell_complete=complete.interfaces)
@click.option(
    "--late", is_flag=True, help="Confirm after the time, too, if the change could not go back."
)
@common_options(changes=True)
@click.pass_obj
def command(settings: Settings, interface: str, late: bool) -> None:
    """Keep a change that was made with --confirm-within.

    A quoted PATTERN such as 'eth*' means those of the interfaces whose change waits.

    \b
    Examples:
      xdpctl load eth0 firewall.o --confirm-within 2m
      xdpctl confirm eth0
    """
    bpffs = settings.enter()
    rights.require()
    bpffs.check()
    found = Interface.matching(interface)
    if is_pattern(interface):
        found = [one for one in found if observe(one, bpffs).pending]
        if not found:
            raise NotFoundError(f"no change of {interface} waits for its confirmation")
    done = []
    for one in found:
        signals.release()
        done.append((one, confirm(bpffs, one, late=late, dry_run=settings.dry_run)))
    history.confirmed(done, settings)
