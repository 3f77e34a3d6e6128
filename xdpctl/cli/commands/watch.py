"""xdpctl watch."""

from __future__ import annotations

import click

from ...errors import UsageError
from ...host import rights
from ...view import events
from ..hostfiles import Keeper, files_option
from ..numbers import interval_option
from ..settings import Settings, common_options


@click.command("watch")
@interval_option("Seconds between two looks for what no event tells.")
@click.option(
    "--apply",
    is_flag=True,
    help="Bring interfaces to the files of this host as they appear, or as the files change.",
)
@files_option("Where these files are.")
@common_options()
@click.pass_obj
def command(settings: Settings, interval: float, apply: bool, files: str) -> None:
    """Keep all chains and pins in order, until a signal ends it.

    It takes out programs whose owners are gone, closes the gaps that they leave, and cleans up
    after interfaces and network namespaces that go. It looks as soon as any of this happens.

    \b
    Examples:
      xdpctl watch
      xdpctl watch --apply
      xdpctl watch --interval 10 --json
    """
    from ...change.watch import watch

    if settings.dry_run:
        raise UsageError("watch has no dry run", hint="xdpctl clean --dry-run shows what is left")
    bpffs = settings.enter(changes=True)
    rights.require()
    bpffs.check()
    tell = events.event_printer(settings)
    if apply:
        watch(bpffs, interval, tell, Keeper(files, bpffs))
    else:
        watch(bpffs, interval, tell)
