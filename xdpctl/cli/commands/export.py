"""xdpctl export."""

from __future__ import annotations

import click

from ...host import output, rights
from ...host.interfaces import Interface
from ...observe.reading import observe
from ...programs import export
from ...view import document
from .. import complete
from ..settings import Settings, common_options


@click.command("export")
@click.argument("interface", metavar="INTERFACE", shell_complete=complete.interfaces)
@common_options()
@click.pass_obj
def command(settings: Settings, interface: str) -> None:
    """Print the chain of an interface as a file for xdpctl apply.

    A comment stands where a program's file is not known, is gone, or has changed since it was
    loaded.

    \b
    Examples:
      xdpctl export eth0
      xdpctl export eth0 > /etc/xdpctl/eth0.toml
    """
    bpffs = settings.enter()
    rights.require()
    bpffs.check_safe()
    text = export.text(observe(Interface.named(interface), bpffs), bpffs.path)
    if settings.json:
        document.show("export", {"interface": interface, "file": text})
    else:
        output.say(text.rstrip("\n"))
