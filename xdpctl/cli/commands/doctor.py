"""xdpctl doctor."""

from __future__ import annotations

import click

from ...doctor import probes
from ...doctor.checks import examine
from ...host.interfaces import Interface, is_several
from ...view import doctor, document
from .. import complete
from ..settings import Settings, common_options


@click.command("doctor")
@click.argument(
    "interface", required=False, metavar="[INTERFACE|PATTERN]", shell_complete=complete.interfaces
)
@common_options()
@click.pass_obj
def command(settings: Settings, interface: str | None) -> int:
    """Find out what this kernel, these rights and these interfaces can do.

    Everything is tried, and nothing is left behind. A fault is shown with its consequence and its
    remedy. It ends with 0 if a chain can be run here, else with the exit code of the first
    error that a load would meet.

    \b
    Examples:
      xdpctl doctor
      xdpctl doctor eth0 -q
    """
    bpffs = settings.enter()
    found = Interface.matching(interface) if interface else Interface.all()
    named = interface is not None and not is_several(interface)
    diagnosis = examine(probes.gather(bpffs, found), named=named)
    if settings.json:
        document.show("doctor", doctor.diagnosis_data(diagnosis))
    else:
        doctor.diagnosis(diagnosis, quiet=settings.quiet)
    return diagnosis.exit_code
