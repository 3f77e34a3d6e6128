"""xdpctl set."""

from __future__ import annotations

from dataclasses import replace

import click

from ...errors import NotFoundError, UsageError
from ...model import chain
from ...model.chain import ON_END, ON_VACANT, Chain, Standing, check_label
from ...model.state import State
from .. import complete
from ..many import change
from ..options import ChangeOptions, ChangingCommand, RootOptions, change_options, root_options
from ..settings import Settings


@click.command("set", cls=ChangingCommand)
@click.argument("interface", metavar="INTERFACE|PATTERN", shell_complete=complete.interfaces)
@click.argument("program", required=False, metavar="[NAME|ID]", shell_complete=complete.programs)
@click.option(
    "-P", "--prio", type=click.IntRange(0, chain.MAX_PRIORITY), help="Its priority, lowest first."
)
@click.option(
    "-A",
    "--actions",
    metavar="ACTION,...|none",
    help="Verdicts after which the next program runs.",
)
@click.option("--before", multiple=True, metavar="NAME", help="It runs before this program.")
@click.option("--after", multiple=True, metavar="NAME", help="It runs after this program.")
@click.option("--anywhere", is_flag=True, help="Forget what it has to run before and after.")
@click.option("--name", metavar="LABEL", help="What it is called from now on.")
@click.option(
    "--on-end",
    type=click.Choice(list(ON_END)),
    help="The interface's verdict past the last program.",
)
@click.option(
    "--on-vacant",
    type=click.Choice(list(ON_VACANT)),
    help="What a slot does whose program is gone: go on, or drop the packet.",
)
@root_options()
@change_options()
@click.pass_obj
def command(
    settings: Settings,
    interface: str,
    program: str | None,
    prio: int | None,
    actions: str | None,
    before: tuple[str, ...],
    after: tuple[str, ...],
    anywhere: bool,
    name: str | None,
    on_end: str | None,
    on_vacant: str | None,
    root: RootOptions,
    changing: ChangeOptions,
) -> None:
    """Change how a program that runs stands in the chain, or the rules of the interface.

    The program goes on with its maps and its id; no packet misses it.
    """
    values = _order(before, after, anywhere)
    if prio is not None:
        values["priority"] = prio
    if actions is not None:
        values["actions"] = chain.parse_actions(actions)
    if name is not None:
        values["label"] = check_label(name)
    rules = {
        key: value
        for key, value in (
            ("on_end", ON_END.get(on_end or "")),
            ("on_vacant", ON_VACANT.get(on_vacant or "")),
        )
        if value is not None
    }
    if bool(values) != (program is not None):
        raise UsageError(
            "say what to set" if program else "say of which program to set that",
            hint="xdpctl set INTERFACE PROGRAM -P 10, or xdpctl set INTERFACE --on-end drop",
        )
    if not values and not rules:
        raise UsageError("say what to set", hint="see xdpctl set --help")

    def target(state: State) -> Chain:
        if state.root is None:
            raise NotFoundError(
                f"no XDP program is loaded on {state.interface.name}", hint="see xdpctl status"
            )
        found = state.chain
        if program is not None:
            member = found.find(program)
            for other in (*before, *after):
                if found.find(other).id == member.id:
                    raise UsageError(f"{other} cannot run before or after itself")
            if name is not None:
                _check_free(found, member, name)
            found = found.with_changed(member.id, **values)
        return replace(found, rules=found.rules._replace(**rules))

    bpffs = settings.enter(changes=True)
    change(settings, "set", bpffs, interface, target, changing, root.request)


def _order(before: tuple[str, ...], after: tuple[str, ...], anywhere: bool) -> Standing:
    """What a program is to run before and after."""
    values = Standing()
    if anywhere:
        values["before"] = values["after"] = ()
    if before:
        values["before"] = tuple(check_label(one) for one in before)
    if after:
        values["after"] = tuple(check_label(one) for one in after)
    return values


def _check_free(found: Chain, member: chain.Member, name: str) -> None:
    for other in found.members:
        if other.id != member.id and name in (other.label, other.name):
            raise UsageError(
                f"another program is called {name}", why=f"it is the one with id {other.id}"
            )
