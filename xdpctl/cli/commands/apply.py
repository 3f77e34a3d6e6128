"""xdpctl apply."""

from __future__ import annotations

from dataclasses import replace

import click

from ...programs import chainfile
from .. import complete
from ..many import change
from ..options import ChangeOptions, ChangingCommand, FirstOptions, change_options, first_options
from ..settings import Settings


@click.command("apply", cls=ChangingCommand)
@click.argument("interface", metavar="INTERFACE|PATTERN", shell_complete=complete.interfaces)
@click.argument("file", metavar="FILE", type=click.Path(readable=False))
@first_options()
@change_options()
@click.pass_obj
def command(
    settings: Settings, interface: str, file: str, first: FirstOptions, changing: ChangeOptions
) -> None:
    """Bring an interface to the chain that a file describes, whatever it runs now.

    It is one change: every packet meets the old chain or the new one. A program that is called like
    one that runs takes its place and its maps. An option here has precedence over the file, which
    xdpctl-chain(5) describes; - is standard input.

    \b
    Examples:
      xdpctl apply eth0 /etc/xdpctl/eth0.toml
      xdpctl apply eth0 eth0.toml --dry-run
      xdpctl test eth0 apply eth0.toml
    """
    bpffs = settings.enter(changes=True)
    with chainfile.opened(file, bpffs.path) as written:
        request = replace(first.request.completed(written.request), unless_same=True)
        change(settings, "apply", bpffs, interface, written.target, changing, request, keeps=True)
