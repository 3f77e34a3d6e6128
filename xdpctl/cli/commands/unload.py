"""xdpctl unload."""

from __future__ import annotations

import click

from ...errors import NotFoundError, UsageError
from ...host.interfaces import is_pattern
from ...model.chain import Chain
from ...model.state import State
from .. import complete
from ..many import change
from ..options import ChangeOptions, ChangingCommand, change_options
from ..settings import Settings


@click.command("unload", cls=ChangingCommand)
@click.argument("interface", metavar="INTERFACE|PATTERN", shell_complete=complete.interfaces)
@click.argument("programs", nargs=-1, metavar="[NAME|ID]...", shell_complete=complete.programs)
@click.option(
    "-i",
    "--id",
    "ids",
    metavar="ID",
    type=int,
    multiple=True,
    shell_complete=complete.ids,
    help="The program with this id.",
)
@click.option(
    "-n",
    "--name",
    "names",
    metavar="NAME",
    multiple=True,
    shell_complete=complete.names,
    help="The program with this label or name.",
)
@click.option("-a", "--all", "everything", is_flag=True, help="The whole chain.")
@click.option("--keep", is_flag=True, help="Keep the programs in the kernel, for xdpctl rollback.")
@click.option(
    "--empty", is_flag=True, help="Leave an empty root if no program stays: all packets pass."
)
@change_options()
@click.pass_obj
def command(
    settings: Settings,
    interface: str,
    programs: tuple[str, ...],
    ids: tuple[int, ...],
    names: tuple[str, ...],
    everything: bool,
    keep: bool,
    empty: bool,
    changing: ChangeOptions,
) -> None:
    """Take programs out of the chain of an interface, by id, label or name.

    When the last program leaves, the root goes too, unless --empty is given.

    \b
    Examples:
      xdpctl unload eth0 count
      xdpctl unload eth0 17 19
      xdpctl unload eth0 --all --keep
    """
    named = [*programs, *map(str, ids), *names]
    if bool(named) == everything:
        raise UsageError("say what to unload", hint="name programs, by name or id, or give --all")

    def target(state: State) -> Chain:
        if state.root is None and everything and is_pattern(interface):
            return Chain()  # as is wanted of all that it matches
        if state.root is None:
            raise NotFoundError(
                f"no XDP program is loaded on {state.interface.name}", hint="see xdpctl status"
            )
        if everything and not empty:
            return Chain()
        ours = [one.id for one in state.chain.members]
        left = state.chain.without(ours if everything else named)
        return left.if_empty(kept=empty)

    change(
        settings, "unload", settings.enter(changes=True), interface, target, changing, keeps=keep
    )
