"""xdpctl history."""

from __future__ import annotations

import click

from ...bpffs.history import past
from ...host import rights
from ...host.interfaces import Interface
from ...observe.reading import View, observe
from ...view import history
from .. import complete
from ..settings import Settings, common_options


@click.command("history")
@click.argument("interface", metavar="INTERFACE|PATTERN", shell_complete=complete.interfaces)
@common_options()
@click.pass_obj
def command(settings: Settings, interface: str) -> None:
    """List the chains that an interface ran before, the latest first.

    Each is listed with the command that ended it, who ran that and what it changed, and the
    programs that are gone. Changes that went back follow, each with the reason.

    \b
    Examples:
      xdpctl history eth0
      xdpctl history 'eth*' --json
    """
    bpffs = settings.enter()
    rights.require()
    bpffs.check_safe()
    found = Interface.matching(interface)
    view = View() if len(found) > 1 else None
    states = [observe(one, bpffs, view=view) for one in found]
    pasts = [history.Past.of(state, *past(bpffs, state)) for state in states]
    history.history(pasts, settings)
