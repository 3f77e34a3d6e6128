"""Numbers on a command line: what can be meant, and nothing else."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any, TypeVar

import click

from ..errors import UsageError

_Command = TypeVar("_Command", bound=Callable[..., object])

LONGEST = 1_000_000.0
"""Seconds, some eleven days: the system calls that wait take no times without end."""
MOST = 1 << 62


class _Untold:
    """A range whose ends are not told in the help: nobody asks for a number beyond."""

    def _describe_range(self) -> str:
        return ""


class Seconds(_Untold, click.FloatRange):
    """A time in seconds, from `least` on. Not a number, and infinity, are none."""

    def __init__(self, least: float = 0) -> None:
        super().__init__(least, LONGEST)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        found = super().convert(value, param, ctx)
        if not math.isfinite(found):
            self.fail(f"{value!r} is not a time.", param, ctx)
        return found


def interval_option(text: str) -> Callable[[_Command], _Command]:
    """Hands over `interval`, for commands that look now and then; `text` is its help."""
    return click.option(
        "--interval",
        metavar="SECONDS",
        type=Seconds(0.05),
        default=1.0,
        show_default=True,
        help=text,
    )


class Number(_Untold, click.IntRange):
    """A number of a range that the help tells in words, if it has to be told."""


class Count(Number):
    """How many of something, one at least."""

    def __init__(self) -> None:
        super().__init__(1, MOST)


_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}
_LONGEST = 24 * 3600


def seconds(text: str) -> float:
    """The seconds of ``30``, ``30s``, ``2m`` or ``1h``. Raises UsageError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text, flags=re.ASCII)
    found = float(match[1]) * _UNITS[match[2]] if match else 0
    if 0 < found <= _LONGEST:
        return found
    raise UsageError(f"{text!r} is not a time", hint="write 30, 30s, 2m or 1h; a day at most")
