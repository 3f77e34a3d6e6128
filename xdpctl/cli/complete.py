"""Shell completion of what runs, and of what is in a file.

What it needs is imported at the press of a key: a command that runs needs none of it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from ..errors import XdpctlError
from .offered import fitting
from .settings import Settings

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from ..model.chain import Member
    from ..model.state import State
    from ..programs.choice import Candidate


def interfaces(context: click.Context, _parameter: click.Parameter, start: str) -> list[str]:
    from ..host.interfaces import Interface

    context.ensure_object(Settings).enter()
    head, comma, last = start.rpartition(",")
    return [head + comma + name for name in fitting((one.name for one in Interface.all()), last)]


def commands(context: click.Context, _parameter: click.Parameter, start: str) -> list[str]:
    """Those of the group, for `help`, which has a topic besides."""
    group = context.find_root().command
    assert isinstance(group, click.Group)
    return fitting([*group.list_commands(context), "options"], start)


# --- what an interface runs ----------------------------------------------------------------------


def ids(context: click.Context, _parameter: click.Parameter, start: str) -> list[CompletionItem]:
    """Ids of programs, each with its name."""
    from click.shell_completion import CompletionItem

    return [
        CompletionItem(
            str(member.id), help=member.known_as if member.known_as.isprintable() else ""
        )
        for member in _members(context)
        if str(member.id).startswith(start)
    ]


def names(context: click.Context, _parameter: click.Parameter, start: str) -> list[str]:
    return sorted(set(fitting((one.known_as for one in _members(context)), start)))


def programs(
    context: click.Context, parameter: click.Parameter, start: str
) -> list[CompletionItem]:
    from click.shell_completion import CompletionItem

    named = names(context, parameter, start)
    return [*map(CompletionItem, named), *ids(context, parameter, start)]


def generations(
    context: click.Context, _parameter: click.Parameter, start: str
) -> list[CompletionItem]:
    """Numbers of generations, the latest first, each with the command that replaced it."""
    from click.shell_completion import CompletionItem

    from ..bpffs.history import generations as recorded

    state = _state(context)
    if state is None:
        return []
    with contextlib.suppress(XdpctlError, OSError):
        found = recorded(context.ensure_object(Settings).enter(), state)
        return [
            CompletionItem(str(one.number), help=f"before {one.command}" if one.command else "")
            for one in reversed(found)
            if str(one.number).startswith(start)
        ]
    return []


def _members(context: click.Context) -> tuple[Member, ...]:
    state = _state(context)
    return state.chain.members if state else ()


def _words(context: click.Context) -> list[str]:
    """The arguments so far. After an option that waits for its value click has assigned none."""
    return [word for word in context.args if not word.startswith("-")]


def _state(context: click.Context) -> State | None:
    from ..host.interfaces import Interface
    from ..observe.reading import observe

    name = context.params.get("interface") or next(iter(_words(context)), None)
    try:
        bpffs = context.ensure_object(Settings).enter()
        interface = Interface.named(name) if name else None
        return observe(interface, bpffs) if interface else None
    except (XdpctlError, OSError):
        return None  # a completion has nobody to tell


# --- what is in a file ---------------------------------------------------------------------------


def functions(context: click.Context, _parameter: click.Parameter, start: str) -> list[str]:
    """The names of programs in the object files that are named."""
    return fitting(dict.fromkeys(one.name for one in _candidates(context)), start)


def sections(context: click.Context, _parameter: click.Parameter, start: str) -> list[str]:
    """The sections of programs in the object files that are named."""
    return fitting(dict.fromkeys(one.section for one in _candidates(context)), start)


def _candidates(context: click.Context) -> Iterator[Candidate]:
    from ..programs import objects

    given = [context.params.get(name) for name in ("file", "path")]
    paths = [*(context.params.get("files") or ()), *given, *_words(context)]
    for path in dict.fromkeys(one for one in paths if one and os.path.isfile(one)):
        with contextlib.suppress(XdpctlError, OSError):
            yield from objects.candidates(path)
