"""xdpctl adopt."""

from __future__ import annotations

from dataclasses import replace

import click

from ...errors import HookBusyError, NotFoundError, UsageError
from ...model import chain
from ...model.chain import Chain
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
)
from ..settings import Settings


@click.command("adopt", cls=ChangingCommand)
@click.argument("interface", metavar="INTERFACE|PATTERN", shell_complete=complete.interfaces)
@click.argument("file", required=False, metavar="FILE", type=click.Path(readable=False))
@click.option(
    "--object",
    "path",
    metavar="FILE",
    type=click.Path(readable=False),
    help="The file, as earlier versions had it.",
)
@click.option(
    "--force",
    is_flag=True,
    help="Adopt it even if somebody else's bpf_link holds it, or the file has other code.",
)
@program_options()
@root_options()
@change_options()
@click.pass_obj
def command(
    settings: Settings,
    interface: str,
    file: str | None,
    path: str | None,
    force: bool,
    programs: ProgramOptions,
    root: RootOptions,
    changing: ChangeOptions,
) -> None:
    """Make the program of another tool the first member of a chain.

    The program, which was attached without a dispatcher, runs until the root takes its place with
    the same code and the same maps. No packet misses it. FILE is the object that it was loaded
    from.

    \b
    Examples:
      xdpctl adopt eth0 count.o
      xdpctl adopt eth0 count.o --dry-run
    """
    if file is None:
        file = path
    elif path is not None:
        raise UsageError("FILE is given twice", hint="leave out --object")
    if file is None:
        raise UsageError(
            "say which FILE the running program was loaded from",
            hint=f"xdpctl adopt {interface} FILE",
        )
    bpffs = settings.enter(changes=True)
    (new,) = programs.members([file], pin_path=bpffs.path)

    def target(state: State) -> Chain:
        return Chain().with_added([_in_place_of(state, new, force)])

    with objects.letting_go([new], tried=settings.dry_run or bool(changing.trial)):
        request = replace(root.request, adopts=True)
        change(settings, "adopt", bpffs, interface, target, changing, request)


def _in_place_of(state: State, new: chain.Member, force: bool) -> chain.Member:
    """The member that stands for the program that runs, with its maps."""
    root, name = state.root, state.interface.name
    if root is None:
        raise NotFoundError(
            f"{name} runs no XDP program", hint=f"load one: xdpctl load {name} FILE"
        )
    if root.config is not None:
        raise HookBusyError(
            f"{name} runs a dispatcher already",
            why=f"its hook holds program {root.id} ({root.name})",
            hint=f"add a program to it: xdpctl load {name} FILE",
        )
    if root.link_id and root.owner == "other" and not force:
        raise HookBusyError(
            f"program {root.id} ({root.name}) on {name} hangs on a bpf_link of another's",
            why=f"whoever holds link {root.link_id} decides what it runs",
            hint="--force exchanges the program of that link and keeps the link alive",
        )
    assert new.source is not None
    return replace(new, source=replace(new.source, maps_of=root.id, forced=force))
