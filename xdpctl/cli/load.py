"""xdpctl load."""

from __future__ import annotations

import click

from .. import chain, objects
from ..errors import UsageError
from . import complete
from .common import (
    Settings,
    build_options,
    common_options,
    confirm_option,
    gate_option,
    root_options,
)
from .many import change


@click.command("load")
@click.argument("interface", metavar="INTERFACE|PATTERN", shell_complete=complete.interfaces)
@click.argument(
    "files", nargs=-1, required=True, metavar="FILE...", type=click.Path(readable=False)
)
@click.option(
    "-m",
    "--mode",
    type=click.Choice(["native", "skb", "hw", "unspecified"]),
    help="How a first program is attached [native].",
)
@click.option(
    "--attach",
    type=click.Choice(["link", "netlink"]),
    help="What attaches a first root: a bpf_link, or netlink as libxdp does [link].",
)
@click.option("-s", "--section", help="Load the program of this ELF section.")
@click.option("-n", "--prog-name", metavar="PROG", help="Load the program of this name.")
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
    "-p",
    "--pin-path",
    metavar="PATH",
    help="Directory in a bpffs for the maps that ask to be pinned [the bpffs itself].",
)
@build_options()
@root_options()
@gate_option()
@confirm_option()
@common_options(changes=True)
@click.pass_obj
def command(
    settings: Settings,
    interface: str,
    files: tuple[str, ...],
    mode: str | None,
    attach: str | None,
    section: str | None,
    prog_name: str | None,
    prio: int | None,
    actions: str | None,
    pin_path: str | None,
) -> None:
    """Add the XDP programs of object files or C sources to an interface's chain, or several.

    Several FILEs are one change: all of them run from the same packet on, or none does. A quoted
    PATTERN such as 'eth*' means every interface that it matches, each changed by itself.
    """
    if section is not None and prog_name is not None:
        raise UsageError("-s and -n exclude each other", hint="give one of them")
    mask = chain.parse_actions(actions) if actions is not None else None
    bpffs = settings.enter(changes=True)
    new = [
        objects.member(
            path,
            section=section,
            program=prog_name,
            priority=prio,
            actions=mask,
            pin_path=pin_path or (bpffs.path if settings.pins_maps else None),
            first_of_several=settings.first_of_several,
            build=settings.build,
        )
        for path in files
    ]
    with objects.letting_go(new):
        change(
            settings,
            "load",
            bpffs,
            interface,
            lambda state: state.chain.with_added(new),
            mode=mode,
            attach=attach,
            first_attach=settings.first_attach,
            **settings.root_asked,
        )
