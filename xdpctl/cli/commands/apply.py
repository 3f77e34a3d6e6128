"""xdpctl apply."""

from __future__ import annotations

import click

from ...programs import chainfile
from .. import complete
from ..common import Settings, change_options, first_options
from ..many import change


@click.command("apply")
@click.argument("interface", metavar="INTERFACE|PATTERN", shell_complete=complete.interfaces)
@click.argument("file", metavar="FILE", type=click.Path(readable=False))
@first_options()
@change_options()
@click.pass_obj
def command(settings: Settings, interface: str, file: str) -> None:
    """Bring an interface to the chain that a file describes, whatever it runs now.

    It is one change: every packet meets the old chain or the new one. A program that is called like
    one that runs takes its place, and its maps. So chains come back after a reboot. An option here
    goes before what the file says.
    """
    bpffs = settings.enter(changes=True)
    with chainfile.opened(file, bpffs.path) as written:
        request = settings.first_asked.completed(written.request)
        change(settings, "apply", bpffs, interface, written.target, request, keeps=True)
