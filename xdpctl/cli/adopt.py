"""xdpctl adopt."""

from __future__ import annotations

from dataclasses import replace

import click

from .. import chain, objects
from ..chain import Chain
from ..errors import HookBusyError, NotFoundError, UsageError
from ..observe import State
from . import complete
from .common import Settings, build_options, common_options, gate_option, root_options
from .many import change


@click.command("adopt")
@click.argument("interface", metavar="INTERFACE", shell_complete=complete.interfaces)
@click.option(
    "--object",
    "path",
    required=True,
    metavar="FILE",
    type=click.Path(readable=False),
    help="The object file that the running program was loaded from.",
)
@click.option("-s", "--section", help="The program of this ELF section.")
@click.option("-n", "--prog-name", metavar="PROG", help="The program of this name.")
@click.option(
    "-P",
    "--prio",
    type=click.IntRange(0, chain.MAX_PRIORITY),
    help="Run priority, lowest first [the object's, or 50].",
)
@click.option(
    "-A",
    "--actions",
    metavar="ACTION,...|none",
    help="Verdicts after which the next program runs [the object's, or XDP_PASS].",
)
@click.option(
    "--force", is_flag=True, help="Also where another's bpf_link holds it, or the code differs."
)
@build_options()
@root_options()
@gate_option()
@common_options(changes=True)
@click.pass_obj
def command(
    settings: Settings,
    interface: str,
    path: str,
    section: str | None,
    prog_name: str | None,
    prio: int | None,
    actions: str | None,
    force: bool,
) -> None:
    """Make the XDP program that an interface runs the first member of a chain.

    The program, which another tool attached without a dispatcher, goes on running until the root
    takes its place with the same code and the same maps: no packet misses it.
    """
    if section is not None and prog_name is not None:
        raise UsageError("-s and -n exclude each other", hint="give one of them")
    bpffs = settings.enter(changes=True)
    new = objects.member(
        path,
        section=section,
        program=prog_name,
        priority=prio,
        actions=chain.parse_actions(actions) if actions is not None else None,
        pin_path=bpffs.path,
        build=settings.build,
    )

    def target(state: State) -> Chain:
        return state.chain.with_added([_in_place_of(state, new, force)])

    with objects.letting_go([new]):
        change(settings, "adopt", bpffs, interface, target, **settings.root_asked, adopts=True)


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
    if root.link_id and not force:
        raise HookBusyError(
            f"program {root.id} ({root.name}) on {name} hangs on a bpf_link of another's",
            why=f"whoever holds link {root.link_id} decides what it runs",
            hint="--force exchanges the program of that link and keeps the link alive",
        )
    assert new.source is not None
    return replace(new, source=new.source._replace(maps_of=root.id, forced=force))
