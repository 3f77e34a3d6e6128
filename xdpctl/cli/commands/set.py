"""xdpctl set."""

from __future__ import annotations

from dataclasses import replace

import click

from ...errors import NotFoundError, UsageError
from ...model import chain
from ...model.chain import Chain, Standing, check_label
from ...model.state import State
from .. import complete, offered
from ..many import change
from ..numbers import Number
from ..options import (
    ChangeOptions,
    ChangingCommand,
    RootOptions,
    RulesOptions,
    change_options,
    order_options,
    root_options,
    rules_options,
)
from ..settings import Settings, together


@click.command("set", cls=ChangingCommand)
@click.argument("interface", metavar="INTERFACE|PATTERN", shell_complete=complete.interfaces)
@click.argument("program", required=False, metavar="[NAME|ID]", shell_complete=complete.programs)
@click.option(
    "-P",
    "--prio",
    metavar="PRIO",
    type=Number(0, chain.MAX_PRIORITY),
    help="Its run priority; the lowest runs first.",
)
@click.option(
    "-A",
    "--actions",
    metavar="ACTION,...|none",
    shell_complete=offered.actions,
    help="Verdicts after which the next program runs.",
)
@together(order_options())
@click.option("--anywhere", is_flag=True, help="Let go of all that --before and --after asked for.")
@click.option("--name", metavar="LABEL", help="Give the program this label.")
@rules_options()
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
    rules: RulesOptions,
    root: RootOptions,
    changing: ChangeOptions,
) -> None:
    """Change how a program stands in the chain, or the rules of the interface.

    The program runs on with its maps and its id, and no packet misses it.

    \b
    Examples:
      xdpctl set eth0 count -P 10
      xdpctl set eth0 monitor --before firewall --name early
      xdpctl set eth0 --on-vacant drop
    """
    values = _order(before, after, anywhere)
    if prio is not None:
        values["priority"] = prio
    if actions is not None:
        values["actions"] = chain.parse_actions(actions)
    if name is not None:
        values["label"] = check_label(name)
    if bool(values) != (program is not None):
        raise UsageError(
            "say what to set" if program else "name the program to set that for",
            hint="xdpctl set INTERFACE PROGRAM -P 10, or xdpctl set INTERFACE --on-end drop",
        )
    if not values and not rules.values:
        raise UsageError("say what to set", hint="see xdpctl set --help")

    def target(state: State) -> Chain:
        if state.root is None:
            raise NotFoundError(
                f"no XDP program is loaded on {state.interface.name}", hint="see xdpctl status"
            )
        found = state.chain
        if program is not None:
            member = found.find(program)
            found.check_asked(member, name or "", (*before, *after))
            found = found.with_changed(member.id, **values)
        return replace(found, rules=found.rules._replace(**rules.values))

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
