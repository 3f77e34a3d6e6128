"""What `clean` and `watch` put in order."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from . import document
from .style import Style, say

if TYPE_CHECKING:
    from ..change.sweep import Event


def events(command: str, found: Iterable[Event], style: Style) -> None:
    """What was put in order, or would be."""
    if style.json:
        fields = {"events": [event._asdict() for event in found]}
        document.show_change(command, fields, style)
        return
    for event in found:
        if not style.quiet or style.dry_run:
            verb = "would have " if style.dry_run else ""
            say(_line(event, verb))


def event_printer(style: Style) -> Callable[[Event], None]:
    """Print each event as it happens, with --json a document a line."""

    def show(event: Event) -> None:
        if style.json:
            document.line(event._asdict())
        elif not style.quiet:
            say(_line(event), flush=True)

    return show


def _line(event: Event, verb: str = "") -> str:
    """What happened; of no interface that is there, it names none."""
    where = "" if event.where == "-" else f"{event.where}: "
    return f"{where}{verb}{event.what}: {event.why}"
