"""xdpctl status."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import click
from click.core import ParameterSource

from ...bpffs import homes
from ...bpffs.mount import Bpffs
from ...errors import Interrupted, UsageError, VanishedError
from ...host import rights
from ...host.interfaces import Failure, Interface, is_several
from ...model.state import State
from ...observe.reading import View, observe
from ...view import document, status
from .. import complete
from ..numbers import interval_option
from ..outcomes import each, end, progress, tell
from ..settings import Settings, common_options


@click.command("status")
@click.argument(
    "interface", required=False, metavar="[INTERFACE|PATTERN]", shell_complete=complete.interfaces
)
@click.option(
    "-a",
    "--all",
    "every",
    is_flag=True,
    help="Show interfaces without a program, too, on a terminal.",
)
@click.option("-w", "--watch", is_flag=True, help="Go on, and show what changes.")
@interval_option("Seconds between two looks of --watch.")
@common_options()
@click.pass_context
def command(
    context: click.Context, interface: str | None, every: bool, watch: bool, interval: float
) -> None:
    """Show what runs on an interface, on some that a pattern matches, or on all.

    \b
    Examples:
      xdpctl status
      xdpctl status eth0 --watch
      xdpctl status 'eth*' --json
    """
    settings: Settings = context.obj
    if not watch and context.get_parameter_source("interval") is not ParameterSource.DEFAULT:
        raise UsageError("--interval is for --watch", hint="add --watch")
    bpffs = settings.enter()
    rights.require()
    bpffs.check_safe()
    every = every or interface is not None
    if watch:
        status.live(lambda: states(bpffs, interface), settings, interval, every=every)
        return
    found = states(bpffs, interface, functools.partial(progress, settings, "status"))
    if settings.json:
        document.show("status", status.document_of(found))
    else:
        status.status([one for one in found if isinstance(one, State)], settings, every=every)
    told(found, settings)


def states(
    bpffs: Bpffs,
    interface: str | None,
    bar: Callable[[Sequence[Interface]], Iterable[Interface]] = iter,
) -> list[State | Failure]:
    """What is meant by a name, a pattern or nothing, as it runs now.

    Of several interfaces those that cannot be read are there, too, and those that go are not.
    Raises what it is that a named one cannot be read for, and NotFoundError.
    """
    if interface is not None and not is_several(interface):
        state = observe(Interface.named(interface), bpffs)
        shared = state.root and state.root.config and homes.has_sharers(bpffs, state.root.id)
        return [_with_sharing(state, View()) if shared else state]
    view = View()
    found = Interface.matching(interface, view.names) if interface else Interface.all()
    outcomes: list[State | Failure] = []
    for outcome in each(bar(found), lambda one: observe(one, bpffs, view=view)):
        error = outcome.error if isinstance(outcome, Failure) else None
        if isinstance(error, Interrupted):
            raise error
        if not isinstance(error, VanishedError):
            shown = outcome if isinstance(outcome, Failure) else _with_sharing(outcome, view)
            outcomes.append(shown)
    return outcomes


def _with_sharing(state: State, view: View) -> State:
    root = state.root
    sharing = view.sharing.get(root.id, ()) if root and root.config else ()
    return replace(state, sharing=sharing) if sharing else state


def told(found: Sequence[State | Failure], settings: Settings) -> None:
    """End a command that has shown what interfaces run, with those that could not be read."""
    if not settings.json:
        for one in found:
            if isinstance(one, Failure):
                tell(one, settings)
    end(found, settings)
