"""How a command speaks: to a person on a terminal or to a script, and with nothing harmful."""

from __future__ import annotations

import sys
from dataclasses import dataclass


@dataclass
class Style:
    """How a command speaks."""

    json: bool = False
    verbose: int = 0
    quiet: bool = False
    dry_run: bool = False
    plain: bool = False
    """Rows on a terminal too, and of oddities only with -v."""


def on_terminal() -> bool:
    """Whether standard output is a terminal: rich draws there and nowhere else."""
    return sys.stdout.isatty()


def can_print(text: str) -> bool:
    """Whether standard output's encoding has all characters of a text."""
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except UnicodeError:
        return False
    return True


def printable(text: str, keep: str = "") -> str:
    """A text from outside on one line, with nothing in it that a terminal would obey.

    The characters to `keep` stay as they are.
    """
    return "".join(
        c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text
    )


def say(*lines: str, flush: bool = False) -> None:
    """Print lines on standard output. Whatever names are in them cannot control the terminal."""
    for line in lines:
        print(printable(line, keep="\t"), flush=flush)


def tell(*lines: str) -> None:
    """Print remarks on standard error, in the same way."""
    for line in lines:
        print(f"xdpctl: {printable(line, keep=chr(9))}", file=sys.stderr)
