"""xdpctl monitor."""

from __future__ import annotations

import contextlib

import click

from ...errors import Interrupted, UsageError
from ...host import output, rights
from ...view import incidents
from .. import complete
from ..numbers import Count, interval_option
from ..settings import Settings, common_options


@click.command("monitor")
@click.argument(
    "interface", required=False, metavar="[INTERFACE|PATTERN]", shell_complete=complete.interfaces
)
@interval_option("Seconds between two looks, over which rates are measured.")
@click.option("-c", "--count", metavar="COUNT", type=Count(), help="End after so many packets.")
@common_options()
@click.pass_obj
def command(settings: Settings, interface: str | None, interval: float, count: int | None) -> None:
    """Show what goes wrong with packets around XDP, until a signal ends it.

    It counts aborted packets, verdicts that are none, redirects that fail, and what device maps,
    CPU maps and XDP sockets drop: how many, why, and by which program. It needs BCC and the
    kernel's headers.

    \b
    Examples:
      xdpctl monitor
      xdpctl monitor eth0 --interval 5
    """
    from ...traffic.incidents import Scene
    from ...traffic.monitor import Monitor

    if settings.dry_run:
        raise UsageError("monitor changes nothing", hint="leave --dry-run out")
    bpffs = settings.enter()
    rights.require()
    bpffs.check_safe()
    with contextlib.suppress(Interrupted), Monitor() as counts:
        scene = Scene(counts, bpffs, interface)
        if not settings.quiet:
            lacking = f"; this kernel has no {', '.join(counts.lacking)}" if counts.lacking else ""
            output.say(f"xdpctl: counting on {interface or 'all interfaces'}{lacking}", err=True)
        incidents.incidents(scene.look, settings, interval, count)
        if scene.lost:
            output.say(f"xdpctl: {scene.lost} more packets were of too many kinds", err=True)
