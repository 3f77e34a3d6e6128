"""Shell completion: interfaces and loaded programs."""

from __future__ import annotations

from collections.abc import Iterable

import click

from ..errors import XdpctlError
from ..host.interfaces import Interface
from ..model.chain import Member
from ..model.state import State
from ..observe.reading import observe
from .settings import Settings


def interfaces(context: click.Context, _parameter: click.Parameter, start: str) -> list[str]:
    context.ensure_object(Settings).enter()
    head, comma, last = start.rpartition(",")
    return [head + comma + name for name in _fitting((one.name for one in Interface.all()), last)]


def ids(context: click.Context, _parameter: click.Parameter, start: str) -> list[str]:
    numbers = [str(member.id) for member in _members(context)]
    return [number for number in numbers if number.startswith(start)]


def names(context: click.Context, _parameter: click.Parameter, start: str) -> list[str]:
    return sorted(set(_fitting((one.known_as for one in _members(context)), start)))


def programs(context: click.Context, parameter: click.Parameter, start: str) -> list[str]:
    return names(context, parameter, start) + ids(context, parameter, start)


def _fitting(names: Iterable[str], start: str) -> list[str]:
    """Those that begin so, and that a shell can show: no control characters, no bytes."""
    return [name for name in names if name.startswith(start) and name.isprintable()]


def _members(context: click.Context) -> tuple[Member, ...]:
    state = _state(context)
    return state.chain.members if state else ()


def _state(context: click.Context) -> State | None:
    # After an option that waits for its value click has not assigned the arguments yet.
    words = [word for word in context.args if not word.startswith("-")]
    name = context.params.get("interface") or (words[0] if words else None)
    try:
        bpffs = context.ensure_object(Settings).enter()
        interface = Interface.named(name) if name else None
        return observe(interface, bpffs) if interface else None
    except (XdpctlError, OSError):
        return None  # a completion has nobody to tell
