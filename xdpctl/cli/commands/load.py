"""xdpctl load."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import click

from ...errors import ChainFullError, UsageError
from ...host.files import STANDARD_INPUT
from ...host.interfaces import Interface
from ...model.chain import Chain
from ...model.request import Request
from ...model.state import State
from ...programs import objects
from .. import complete, offered
from ..like import Like
from ..many import change, one_or_each, worker
from ..options import (
    ChangeOptions,
    FirstOptions,
    ProgramOptions,
    RulesOptions,
    change_options,
    first_options,
    program_options,
    rules_options,
    shared_option,
)
from ..parts import ByFile
from ..settings import Settings


@click.command("load", cls=ByFile)
@click.argument("interface", metavar="INTERFACE|PATTERN", shell_complete=complete.interfaces)
@click.argument(
    "files", nargs=-1, required=False, metavar="FILE...", type=click.Path(readable=False)
)
@click.option(
    "--empty",
    is_flag=True,
    help="Keep the interface ready with an empty root, on which every packet passes.",
)
@click.option(
    "-p",
    "--pin-path",
    metavar="PATH",
    shell_complete=offered.directories,
    help="Pin the maps that ask for it in this directory of a BPF file system [that of --bpffs].",
)
@click.option(
    "--like",
    metavar="OTHER",
    shell_complete=complete.interfaces,
    help="Run the chain that this interface runs, on the same root.",
)
@shared_option()
@program_options(ordered=True)
@rules_options()
@first_options()
@change_options()
@click.pass_obj
def command(
    settings: Settings,
    interface: str,
    files: tuple[str, ...],
    empty: bool,
    pin_path: str | None,
    like: str | None,
    shared: bool,
    programs: ProgramOptions,
    by_file: tuple[ProgramOptions, ...] | None,
    rules: RulesOptions,
    first: FirstOptions,
    changing: ChangeOptions,
) -> None:
    """Add the programs of object files or C sources to the chain of an interface.

    Several FILEs are one change: all of them run from the same packet on, or none does. A quoted
    PATTERN such as 'eth*' means every interface that it matches.

    Options about a program are for all FILEs if they stand in front of them or behind them. If one
    stands between two FILEs, each is for the FILE behind it.

    \b
    Examples:
      xdpctl load eth0 count.o
      xdpctl load eth0 -P 10 count.o -P 20 drop.o --before firewall
      xdpctl load 'eth*' filter.c -D LIMIT=5 --confirm-within 30s
    """
    if like is not None:
        said = files, empty, pin_path, programs, rules
        if said != ((), False, None, ProgramOptions(), RulesOptions()):
            raise UsageError(
                "--like takes the whole chain of another interface",
                hint="leave out FILE and what is said of programs and rules",
            )
        _load_like(settings, interface, like, first.request, changing)
        return
    if empty == bool(files):
        raise UsageError(
            "--empty loads no program" if empty else "say what to load",
            hint="give one or more FILEs, or --empty; see xdpctl load --help",
        )
    if empty and programs != ProgramOptions():
        raise UsageError(
            "--empty loads no program", hint="leave out what is said of one, or name a FILE"
        )
    bpffs, habits = settings.enter(changes=True), settings.habits
    if files.count(STANDARD_INPUT) > 1:
        raise UsageError("standard input is one object", hint="give - once")
    pinned = pin_path or (bpffs.path if habits.pins_maps else None)
    new = [
        member
        for options, paths in _alike(programs, by_file, files)
        for member in options.members(
            paths, pin_path=pinned, first_of_several=habits.first_of_several
        )
    ]
    if habits.pins_maps:  # else xdp-loader's own options, which it takes for any file
        objects.check_pinning(new, pin_path)
    request = replace(
        first.request,
        kind=first.kind or habits.kind,
        first_attach=habits.first_attach,
        unless_same=empty,
        shared=shared,
    )

    def target(state: State) -> Chain:
        found = state.chain.with_added(new)
        for member in new:
            found.check_asked(member, member.label, (*member.before, *member.after))
        found = replace(found, rules=found.rules._replace(**rules.values))
        if habits.most and len(found.members) > habits.most:
            raise ChainFullError(
                f"the chain would have {len(found.members)} programs",
                why=f"{habits.program} takes {habits.most}",
                hint="under its own name xdpctl takes more",
            )
        return found.if_empty(kept=empty)

    with objects.letting_go(new, tried=settings.dry_run or bool(changing.trial)):
        change(settings, "load", bpffs, interface, target, changing, request)


def _load_like(
    settings: Settings, interface: str, other: str, request: Request, changing: ChangeOptions
) -> None:
    bpffs = settings.enter(changes=True)
    like = Like(bpffs, Interface.named(other), request)
    work = worker(settings, "load", bpffs, like.wanted, changing, keeps=True)
    one_or_each(settings, "load", bpffs, interface, work)


def _alike(
    programs: ProgramOptions, by_file: Sequence[ProgramOptions] | None, files: Sequence[str]
) -> Iterator[tuple[ProgramOptions, Sequence[str]]]:
    """Files that have the same options, with these."""
    if by_file is None:
        yield programs, files
    else:
        yield from ((options, [path]) for options, path in zip(by_file, files, strict=True))
