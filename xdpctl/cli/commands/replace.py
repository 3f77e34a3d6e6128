"""xdpctl replace."""

from __future__ import annotations

from dataclasses import replace

import click

from ...model.chain import Chain
from ...model.source import MapsAsked
from ...model.state import State
from ...programs import objects
from .. import complete
from ..many import change
from ..options import (
    ChangeOptions,
    ChangingCommand,
    ProgramOptions,
    RootOptions,
    change_options,
    program_options,
    root_options,
    shared_option,
)
from ..settings import Settings


@click.command("replace", cls=ChangingCommand)
@click.argument("interface", metavar="INTERFACE|PATTERN", shell_complete=complete.interfaces)
@click.argument("program", metavar="NAME|ID", shell_complete=complete.programs)
@click.argument("file", metavar="FILE", type=click.Path(readable=False))
@click.option(
    "--maps",
    multiple=True,
    metavar="keep|new|MAP=keep|new|PIN",
    help="Whose maps it uses: the old program's, new ones, or for one map a pinned one [keep].",
)
@program_options(placed=False)
@root_options()
@shared_option()
@change_options()
@click.pass_obj
def command(
    settings: Settings,
    interface: str,
    program: str,
    file: str,
    maps: tuple[str, ...],
    programs: ProgramOptions,
    root: RootOptions,
    shared: bool,
    changing: ChangeOptions,
) -> None:
    """Put new code in the place of a program: the same slot, the same maps.

    Every packet meets the old program or the new one. The old one is kept for xdpctl rollback,
    until the next change.

    \b
    Examples:
      xdpctl replace eth0 firewall firewall-2.o
      xdpctl replace eth0 firewall firewall-2.o --maps new
      xdpctl replace eth0 17 firewall-2.o --maps blocked=new
    """
    asked = MapsAsked.parse(maps, "--maps")
    bpffs = settings.enter(changes=True)
    (new,) = programs.members([file], pin_path=bpffs.path)

    def target(state: State) -> Chain:
        old = state.chain.find(program)
        kept = old.actions if programs.actions is None else new.actions
        return state.chain.with_replaced(old, replace(new.instead_of(old, asked), actions=kept))

    with objects.letting_go([new], tried=settings.dry_run or bool(changing.trial)):
        change(
            settings,
            "replace",
            bpffs,
            interface,
            target,
            changing,
            replace(root.request, shared=shared),
            keeps=True,
        )
