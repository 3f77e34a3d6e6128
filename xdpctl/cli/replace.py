"""xdpctl replace."""

from __future__ import annotations

from dataclasses import replace

import click

from .. import objects
from ..chain import Chain
from ..errors import UsageError
from ..observe import State
from . import complete
from .common import (
    Settings,
    common_options,
    confirm_option,
    gate_option,
    program_options,
    root_options,
)
from .many import change


@click.command("replace")
@click.argument("interface", metavar="INTERFACE|PATTERN", shell_complete=complete.interfaces)
@click.argument("program", metavar="NAME|ID", shell_complete=complete.programs)
@click.argument("file", metavar="FILE", type=click.Path(readable=False))
@click.option(
    "--maps",
    multiple=True,
    metavar="keep|new|MAP=keep|new|PIN",
    help="Whose maps it uses: the old program's, new ones, or for one MAP a pinned one [keep].",
)
@program_options(placed=False)
@root_options()
@gate_option()
@confirm_option()
@common_options(changes=True)
@click.pass_obj
def command(
    settings: Settings,
    interface: str,
    program: str,
    file: str,
    maps: tuple[str, ...],
) -> None:
    """Put new code in the place of a program: the same slot, the same maps.

    Every packet meets the old program or the new one. The old one is kept for xdpctl rollback,
    until the next change.
    """
    keeps, single = _maps(maps)
    bpffs = settings.enter(changes=True)
    new = objects.member(file, **settings.program_asked, pin_path=bpffs.path)

    def target(state: State) -> Chain:
        old = state.chain.find(program)
        assert new.source is not None
        source = new.source._replace(
            maps_of=old.id if keeps else 0, forced=True, replaces=True, maps=single
        )
        kept = old.actions if settings.actions is None else new.actions
        return state.chain.with_replaced(old, replace(new, source=source, actions=kept))

    with objects.letting_go([new]):
        change(settings, "replace", bpffs, interface, target, keeps=True, **settings.root_asked)


def _maps(words: tuple[str, ...]) -> tuple[bool, tuple[tuple[str, str], ...]]:
    """Whether the old maps are kept, and what is said of single ones."""
    all_of_them = [word for word in words if "=" not in word]
    single = tuple((name, how) for name, _, how in (word.partition("=") for word in words) if how)
    if len(all_of_them) + len(single) < len(words) or len(all_of_them) > 1:
        raise UsageError("--maps takes keep or new once, and MAP=keep, MAP=new or MAP=PIN")
    for word in all_of_them:
        if word not in ("keep", "new"):
            raise UsageError(
                f"--maps {word} says nothing", hint="use keep, new, or MAP=keep|new|PIN"
            )
    if all_of_them == ["new"] and single:
        raise UsageError("--maps new leaves no single map to speak of", hint="leave out --maps new")
    return all_of_them != ["new"], single
