"""What was counted of each program: verdicts, rates, times, for people and scripts."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from ..host.text import Json
from ..model.chain import ACTIONS
from . import document, table
from .live import Screen
from .live import live as shown_live
from .style import Style, on_terminal, say
from .table import Column, Table

if TYPE_CHECKING:
    from ..model.state import Slot, State
    from ..roots.count_code import Counted
    from ..roots.counting import Reading


OTHER = "other"
"""What codes are called that are no action."""

_NAMES = (*ACTIONS, OTHER)
_COLUMNS = (
    Column("Slot", right=True, head=True, drop=1),
    Column("ID", right=True),
    Column("Program", head=True),
    Column("Packets", right=True),
    Column("Rate/s", right=True),
    Column("ns", right=True, drop=2),
)


class Look(NamedTuple):
    """An interface, what was counted there, and what an earlier look had found."""

    state: State
    reading: Reading
    before: Reading | None = None

    @property
    def seconds(self) -> float:
        """What rates are measured over; 0: nothing."""
        return self.reading.now - self.before.now if self.before else 0.0

    def programs(self) -> Iterator[tuple[Slot, Counted, float | None]]:
        """The slots that are counted, with a rate each."""
        for slot in self.state.root.slots if self.state.root else ():
            counted = slot.member and self.reading.programs.get(slot.member.id)
            if slot.member and counted:
                old = self.before.programs.get(slot.member.id) if self.before else None
                past = counted.packets - (old.packets if old else 0)
                yield slot, counted, past / self.seconds if self.seconds else None

    @property
    def at_end(self) -> int:
        """How many packets no program had the last word about."""
        return sum(counted.at_end for _slot, counted, _rate in self.programs())


def data(look: Look) -> Json:
    """A look as ``stats --json`` gives it."""
    return {
        "interface": look.state.interface.name,
        "kind": look.state.root.kind if look.state.root and look.state.root.config else None,
        "since": look.reading.since,
        "seconds": look.reading.now - look.reading.since,
        "interval": look.seconds or None,
        "end_of_chain": look.at_end,
        "programs": [
            {
                "slot": slot.number,
                "id": slot.member.id,
                "name": slot.member.name,
                "label": slot.member.label or None,
                "packets": counted.packets,
                "bytes": counted.known_bytes,
                "rate": rate,
                "mean_ns": counted.mean_ns,
                "timed": counted.timed,
                "verdicts": by_name(counted.verdicts),
                "last_word": by_name(counted.last_words),
            }
            for slot, counted, rate in look.programs()
            if slot.member
        ],
    }


def by_name(values: Sequence[int]) -> dict[str, int]:
    """Numbers of verdicts, but those that are 0."""
    return {name: value for name, value in zip(_NAMES, values, strict=True) if value}


def show(looks: Sequence[Look], style: Style) -> None:
    """Print what was counted."""
    if style.json:
        document.show("stats", {"interfaces": [data(look) for look in looks]})
        return
    for look in looks:
        table.show(_table(look, every=not on_terminal()))


def live(look: Callable[[Look | None], Look], style: Style, interval: float) -> None:
    """Look each `interval` seconds, with the look before, until a signal ends it.

    On a terminal a table that changes, else a block of lines each time, or with --json a line.
    """
    before: Look | None = None

    def again() -> Look:
        nonlocal before
        before = look(before)
        return before

    def lines(look: Look) -> None:
        if style.json:
            document.line({"command": "stats", "interfaces": [data(look)]})
        else:
            say(*table.lines(_table(look, every=True)))
            sys.stdout.flush()

    screen = Screen(lambda look: table.picture(_table(look)), lines)
    shown_live(again, screen, style, interval)


def _title(look: Look) -> str:
    seconds = round(look.reading.now - look.reading.since)
    hours, minutes = seconds // 3600, seconds // 60 % 60
    return f"{look.state.interface.name}: counted for {hours}:{minutes:02}:{seconds % 60:02}"


def _table(look: Look, *, every: bool = False) -> Table:
    """A row a program, with a column for `every` verdict, or for those that there are.

    A verdict's cell has how often it was the last word, and if that was not always so, of how many.
    """
    programs = [*look.programs()]
    used = [
        at
        for at in range(len(_NAMES))
        if every or any(one.last_words[at] or one.verdicts[at] for _, one, _ in programs)
    ]
    verdicts = [Column(_NAMES[at].removeprefix("XDP_"), right=True) for at in used]
    shown = Table(
        [*_COLUMNS, *verdicts],
        title=_title(look),
        notes=[f"past the last program: {look.at_end}"],
    )
    for slot, counted, rate in programs:
        assert slot.member is not None
        cells = zip(counted.last_words, counted.verdicts, strict=True)
        words = [f"{last}/{count}" if last != count else str(count) for last, count in cells]
        shown.add(
            str(slot.number),
            str(slot.member.id),
            slot.member.known_as,
            str(counted.packets),
            "-" if rate is None else f"{rate:.0f}",
            "-" if counted.mean_ns is None else f"{counted.mean_ns:.0f}",
            *(words[at] for at in used),
        )
    return shown
