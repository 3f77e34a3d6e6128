"""How a command speaks: to a person on a terminal or to a script, and with nothing harmful."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, TextIO

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

from ..host.text import printable as printable


@dataclass(eq=False, repr=False)
class Style:
    """How a command speaks."""

    json: bool = False
    verbose: int = 0
    quiet: bool = False
    dry_run: bool = False
    plain: bool = False
    """Rows on a terminal too, and of oddities only with -v."""
    checks: bool = False
    """What a dry run would change, and not the whole plan."""


def itself(stream: TextIO) -> TextIO:
    """What rich may write to, for a standard stream: its controls are not escaped there.

    While rich shows something live, a stream of its own stands in the place of standard output.
    That leads to ours, which escapes; it has no encoding, and before rich 14 it is no terminal.
    """
    while (inner := getattr(stream, "rich_proxied_file", None)) is not None:
        stream = inner
    return stream


def console(*, err: bool = False) -> Console:
    """For what rich draws on standard output, or on standard error."""
    from rich.console import Console

    return Console(file=itself(sys.stderr if err else sys.stdout))


def on_terminal() -> bool:
    """Whether standard output is a terminal: rich draws there and nowhere else."""
    return itself(sys.stdout).isatty()


def is_dumb() -> bool:
    """Whether the terminal can do nothing but print lines."""
    return os.environ.get("TERM", "") in ("dumb", "unknown")


def width() -> int:
    """How many columns the terminal has: what COLUMNS says, else what it says itself, else 80."""
    told = os.environ.get("COLUMNS", "")
    if told.isdecimal() and int(told):
        return int(told)
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or 80
    except (OSError, ValueError):
        return 80


def short(actions: str) -> str:
    """Names of verdicts as a terminal shows them: without what they all begin with."""
    return actions.replace("XDP_", "") if on_terminal() else actions


class Span(NamedTuple):
    """A part of a line on a terminal; the style is rich's."""

    text: str
    style: str = ""


Line = Sequence[Span]


def rich_text(line: Line) -> Text:
    """A line for rich: names are text, never markup."""
    from rich.text import Text

    return Text.assemble(*((printable(text), style) for text, style in line))


def paint(lines: Iterable[Line]) -> None:
    """Print lines on a terminal. None is broken: that is left to the terminal, for copying."""
    drawing = console()
    for line in lines:
        drawing.print(rich_text(line), soft_wrap=True)


def can_print(text: str) -> bool:
    """Whether standard output's encoding has all characters of a text."""
    try:
        text.encode(itself(sys.stdout).encoding or "ascii")
    except UnicodeError:
        return False
    return True


def say(*lines: str, flush: bool = False) -> None:
    """Print lines on standard output. Whatever names are in them cannot control the terminal."""
    for line in lines:
        print(printable(line, keep="\t"), flush=flush)


def tell(*lines: str) -> None:
    """Print remarks on standard error, in the same way."""
    for line in lines:
        print(f"xdpctl: {printable(line, keep=chr(9))}", file=sys.stderr)
