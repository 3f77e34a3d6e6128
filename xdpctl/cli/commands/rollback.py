"""xdpctl rollback."""

from __future__ import annotations

import click

from ...change.batch import Batch
from ...change.report import Report
from ...change.transact import go_back
from ...host.interfaces import Interface
from ...view import change
from .. import complete
from ..many import one_or_each
from ..numbers import Number
from ..options import confirm_option
from ..settings import Settings, common_options


@click.command("rollback")
@click.argument("interface", metavar="INTERFACE|PATTERN", shell_complete=complete.interfaces)
@click.option(
    "--to",
    "number",
    metavar="GENERATION",
    type=Number(1),
    shell_complete=complete.generations,
    help="Go back to the generation of this number [the latest].",
)
@confirm_option()
@common_options(changes=True)
@click.pass_obj
def command(settings: Settings, interface: str, number: int | None, confirm_within: float) -> None:
    """Go back to the chain that ran before the last change, or to an earlier one.

    A change that waits for its confirmation goes back at once.

    \b
    Examples:
      xdpctl rollback eth0
      xdpctl rollback eth0 --to 3 --dry-run
    """
    bpffs = settings.enter(changes=True)

    def work(one: Interface, batch: Batch | None) -> Report:
        return go_back(
            bpffs,
            one,
            number,
            within=confirm_within,
            dry_run=settings.dry_run,
            on_step=change.step_printer(settings.verbose > 0 and not settings.json),
            batch=batch,
        )

    one_or_each(settings, "rollback", bpffs, interface, work)
