"""Shell completion of what no chain has to be read for: namespaces, directories, actions."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import click
    from click.shell_completion import CompletionItem

NAMESPACES = "/run/netns"
"""Where ip-netns(8) keeps the names of network namespaces."""


def fitting(names: Iterable[str], start: str) -> list[str]:
    """Those that begin so, and that a shell can show: no control characters, no bytes."""
    return [name for name in names if name.startswith(start) and name.isprintable()]


def namespaces(
    _context: click.Context, _parameter: click.Parameter, start: str
) -> list[CompletionItem] | list[str]:
    """Names of network namespaces; for what has a slash, files."""
    if "/" in start:
        return _paths("file", start)
    try:
        return fitting(sorted(os.listdir(NAMESPACES)), start)
    except OSError:
        return []  # there are none


def directories(
    _context: click.Context, _parameter: click.Parameter, start: str
) -> list[CompletionItem]:
    return _paths("dir", start)


def files(_context: click.Context, _parameter: click.Parameter, start: str) -> list[CompletionItem]:
    return _paths("file", start)


def actions(_context: click.Context, _parameter: click.Parameter, start: str) -> list[str]:
    """What chain actions may be: verdicts, or none of them."""
    return [*_verdicts(start), *fitting(["none"], start)]


def verdicts(_context: click.Context, _parameter: click.Parameter, start: str) -> list[str]:
    return _verdicts(start)


def _verdicts(start: str) -> list[str]:
    """A list of verdicts with commas, with one more at its end."""
    from ..model.chain import ACTIONS

    given, comma, last = start.rpartition(",")
    used = {word.upper().removeprefix("XDP_") for word in given.split(",")}
    left = [name for name in ACTIONS if name.removeprefix("XDP_") not in used]
    # With or without XDP_, in upper or lower case, as parse_actions takes them.
    for form in (str, str.lower, _short, lambda name: _short(name).lower()):
        found = [form(name) for name in left if form(name).startswith(last)]
        if found:
            return [f"{given}{comma}{name}" for name in found]
    return []


def _short(name: str) -> str:
    return name.removeprefix("XDP_")


def _paths(kind: str, start: str) -> list[CompletionItem]:
    from click.shell_completion import CompletionItem

    return [CompletionItem(start, type=kind)]
