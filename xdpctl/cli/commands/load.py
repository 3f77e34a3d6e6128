"""xdpctl load."""

from __future__ import annotations

import click

from ...errors import ChainFullError
from ...model.chain import Chain
from ...model.state import State
from ...programs import objects
from .. import complete
from ..common import Settings, change_options, first_options, program_options
from ..many import change


@click.command("load")
@click.argument("interface", metavar="INTERFACE|PATTERN", shell_complete=complete.interfaces)
@click.argument(
    "files", nargs=-1, required=True, metavar="FILE...", type=click.Path(readable=False)
)
@click.option(
    "-p",
    "--pin-path",
    metavar="PATH",
    help="Directory in a bpffs for the maps that ask to be pinned [the bpffs itself].",
)
@program_options()
@first_options()
@change_options()
@click.pass_obj
def command(
    settings: Settings,
    interface: str,
    files: tuple[str, ...],
    pin_path: str | None,
) -> None:
    """Add the XDP programs of object files or C sources to an interface's chain, or several.

    Several FILEs are one change: all of them run from the same packet on, or none does. A quoted
    PATTERN such as 'eth*' means every interface that it matches, each changed by itself.
    """
    bpffs = settings.enter(changes=True)
    new = [
        objects.member(
            path,
            **settings.program_asked,
            pin_path=pin_path or (bpffs.path if settings.pins_maps else None),
            first_of_several=settings.first_of_several,
        )
        for path in files
    ]

    def target(state: State) -> Chain:
        found = state.chain.with_added(new)
        if settings.most and len(found.members) > settings.most:
            raise ChainFullError(
                f"the chain would have {len(found.members)} programs",
                why=f"{settings.program} takes {settings.most}",
                hint="under its own name xdpctl takes more",
            )
        return found

    with objects.letting_go(new):
        change(settings, "load", bpffs, interface, target, settings.first_asked)
