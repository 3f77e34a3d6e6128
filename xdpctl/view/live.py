"""The one loop of everything that is shown live: look, draw, wait, until a signal ends it."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

from ..errors import Interrupted, RaceError
from ..host import signals
from .style import Line, Style, console, is_dumb, on_terminal, paint, rich_text

T = TypeVar("T")


class Screen(NamedTuple, Generic[T]):
    """How a look is shown: as a picture that changes in its place, or as lines or documents."""

    picture: Callable[[T], Sequence[Line]]
    """For a terminal."""
    lines: Callable[[T], None]
    """Prints, for scripts; documents with --json."""


def live(
    look: Callable[[], T],
    screen: Screen[T],
    style: Style,
    interval: float,
    *,
    changing: Callable[[T], object] | None = None,
) -> None:
    """Look each `interval` seconds and show it, from now on.

    With `changing` only a look that this gives something else for than for the one before.
    """
    with contextlib.ExitStack() as ending, contextlib.suppress(Interrupted):
        draw = _drawer(screen, style, ending)
        last: object = None
        while True:
            signals.hold()  # no half a line, and no link or program left open by a look
            with contextlib.suppress(RaceError):  # seen when it comes to rest
                found = look()
                state = changing(found) if changing else None
                if state is None or state != last:
                    draw(found)
                last = state
            signals.release()
            time.sleep(interval)


def intervals(
    look: Callable[[], T],
    screen: Screen[T],
    style: Style,
    interval: float,
    *,
    empty: T,
    enough: Callable[[T], bool],
) -> None:
    """Show what came in each `interval` seconds, at its end, until there is `enough`.

    Shows the `empty` picture first; after a signal what came since the last look.
    """
    with contextlib.ExitStack() as ending:
        draw = _drawer(screen, style, ending, empty)
        with contextlib.suppress(Interrupted):
            while True:
                signals.release()
                time.sleep(interval)
                signals.hold()
                found = look()
                draw(found)
                if enough(found):
                    return
        draw(look())


def _drawer(
    screen: Screen[T], style: Style, ending: contextlib.ExitStack, empty: T | None = None
) -> Callable[[T], None]:
    if style.json or not on_terminal():
        return screen.lines
    if is_dumb():
        return lambda found: paint([*screen.picture(found), []])
    from rich.console import Group
    from rich.live import Live

    def picture(found: T) -> Group:
        return Group(*map(rich_text, screen.picture(found)))

    first = None if empty is None else picture(empty)
    # Without its thread: it would draw while a signal ends the command.
    # Remarks on standard error go where that goes, and above the picture if it is the terminal.
    shown = ending.enter_context(
        Live(first, console=console(), auto_refresh=False, redirect_stderr=sys.stderr.isatty())
    )
    return lambda found: shown.update(picture(found), refresh=True)
