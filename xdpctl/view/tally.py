"""What was counted, for people and scripts: verdicts, paths, and what went wrong."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import Interrupted, RaceError
from ..host import signals
from ..model.chain import ACTIONS, verdict_name
from .render import Style, print_json, print_line, printable

if TYPE_CHECKING:
    from rich.table import Table

    from ..model.state import Slot, State
    from ..roots.count_code import Counted
    from ..roots.counting import Reading
    from ..traffic.incidents import Incident, Program
    from ..traffic.trace import Packet


OTHER = "other"
"""What codes are called that are no action."""

_NAMES = (*ACTIONS, OTHER)
_HEADS = ("Slot", "ID", "Program", "Packets", "Rate/s", "ns")


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


def data(look: Look) -> dict[str, Any]:
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
        print_json({"command": "stats", "interfaces": [data(look) for look in looks]})
        return
    for look in looks:
        if sys.stdout.isatty():
            from rich.console import Console

            Console().print(_table(look))
        else:
            print("\n".join(_lines(look)))


def live(look: Callable[[Look | None], Look], style: Style, interval: float) -> None:
    """Look each `interval` seconds, with the look before, until a signal ends it.

    On a terminal a table that changes, else a block of lines each time, or with --json a line.
    """
    with contextlib.ExitStack() as ending, contextlib.suppress(Interrupted):
        draw = _printer(style)
        if sys.stdout.isatty() and not style.json:
            draw = _drawer(ending)
        found: Look | None = None
        while True:
            signals.hold()  # no half a line, and nothing left open by a look
            with contextlib.suppress(RaceError):  # seen when it comes to rest
                found = look(found)
                draw(found)
            signals.release()
            time.sleep(interval)


def _printer(style: Style) -> Callable[[Look], None]:
    if style.json:
        return lambda look: print_line({"command": "stats", "interfaces": [data(look)]})
    return lambda look: print("\n".join(_lines(look)), flush=True)


def _drawer(ending: contextlib.ExitStack) -> Callable[[Look], None]:
    from rich.live import Live

    live = ending.enter_context(Live(auto_refresh=False))
    return lambda look: live.update(_table(look), refresh=True)


def _title(look: Look) -> str:
    seconds = round(look.reading.now - look.reading.since)
    hours, minutes = seconds // 3600, seconds // 60 % 60
    return f"{look.state.interface.name}: counted for {hours}:{minutes:02}:{seconds % 60:02}"


def _rows(look: Look) -> Iterator[tuple[list[str], list[str]]]:
    """A line a program: the first cells, then those of the verdicts.

    A verdict's cell has how often it was the last word, and if that was not always so, of how many.
    """
    for slot, counted, rate in look.programs():
        assert slot.member is not None
        first = [
            str(slot.number),
            str(slot.member.id),
            printable(slot.member.known_as),
            str(counted.packets),
            "-" if rate is None else f"{rate:.0f}",
            "-" if counted.mean_ns is None else f"{counted.mean_ns:.0f}",
        ]
        verdicts = [
            f"{last}/{count}" if last != count else str(count)
            for last, count in zip(counted.last_words, counted.verdicts, strict=True)
        ]
        yield first, verdicts


def _lines(look: Look) -> Iterator[str]:
    rows = [*_rows(look)]
    heads = [*_HEADS, *(name.removeprefix("XDP_") for name in _NAMES)]
    table = [heads, *([*first, *verdicts] for first, verdicts in rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    yield _title(look)
    for line in table:
        cells = zip(line, widths, strict=True)
        yield "  ".join(
            cell.ljust(width) if at == 2 else cell.rjust(width)
            for at, (cell, width) in enumerate(cells)
        ).rstrip()
    yield f"past the last program: {look.at_end}"


def _table(look: Look) -> Table:
    from rich.table import Table
    from rich.text import Text

    rows = [*_rows(look)]
    used = [at for at in range(len(_NAMES)) if any(cells[at] != "0" for _first, cells in rows)]
    table = Table(title=_title(look), caption=f"past the last program: {look.at_end}")
    for head in _HEADS:
        table.add_column(head, justify="left" if head == "Program" else "right", overflow="fold")
    for at in used:
        table.add_column(_NAMES[at].removeprefix("XDP_"), justify="right", overflow="fold")
    for first, cells in rows:
        # Names come from programs: text, never markup.
        table.add_row(*(Text(cell) for cell in [*first, *(cells[at] for at in used)]))
    return table


# --- packets and their paths --------------------------------------------------------------------


def comment(packet: Packet) -> str:
    """A packet's path in words: what each program answered, and who had the last word."""
    steps = [
        f"{printable(step.member.known_as)} (id {step.member.id}): {verdict_name(step.verdict)}"
        for step in packet.path
    ]
    end = "the last word" if packet.last else f"end of the chain: {verdict_name(packet.verdict)}"
    return f"{'; '.join(steps)}; {end}"


def packet(packet: Packet, style: Style) -> None:
    """Print a packet: a line, or a document."""
    import datetime

    when = datetime.datetime.fromtimestamp(packet.time / 1e9, datetime.UTC).astimezone()
    if style.json:
        document = {
            "time": packet.time / 1e9,
            "length": packet.length,
            "verdict": verdict_name(packet.verdict),
            "last_word": packet.last.id if packet.last else None,
            "path": [
                {
                    "id": step.member.id,
                    "name": step.member.name,
                    "label": step.member.label or None,
                    "verdict": verdict_name(step.verdict),
                }
                for step in packet.path
            ],
            "data": packet.data.hex(),
        }
        print_line(document)
    else:
        print(f"{when:%H:%M:%S.%f} {packet.length} B: {comment(packet)}", flush=True)


# --- what went wrong ----------------------------------------------------------------------------

_COLUMNS = ("Interface", "Event", "Program", "Reason", "Packets", "Rate/s")


def incident_data(one: Incident) -> dict[str, Any]:
    """A kind of packets as ``monitor --json`` gives it."""
    program, to = one.program, one.to
    return {
        "event": one.event,
        "interface": one.interface,
        "ifindex": one.ifindex or None,
        "program": program
        and {
            "id": program.id,
            "name": program.name or None,
            "kind": program.kind,
            "programs": [
                {"id": member.id, "name": member.name, "label": member.label or None}
                for member in program.members
            ],
        },
        "reason": one.reason,
        "verdict": one.verdict,
        "error": one.error,
        "map": one.map and {"id": one.map.id, "name": one.map.name or None},
        "to": to and {to[0]: to[1], "name": one.target},
        "packets": one.packets,
        "total": one.total,
        "rate": one.rate,
    }


def _who(program: Program) -> str:
    """Whose doing it was. A root answers for its members: the kernel does not tell which."""
    if not program.name:
        return f"program {program.id}, which is gone"
    name = f"{program.name} (id {program.id})"
    members = ", ".join(member.known_as for member in program.members)
    return printable(f"{name} of {members}" if members else name)


def _why(one: Incident) -> str:
    words = [one.reason if one.error is None else f"{one.reason} ({one.error})"]
    if one.map:
        words.append(f"map {one.map.name or 'that is gone'} (id {one.map.id})")
    if one.to:
        words.append(f"to {one.target}" if one.target else f"{one.to[0]} {one.to[1]}")
    return printable(", ".join(words))


def incidents(
    look: Callable[[], Sequence[Incident]], style: Style, interval: float, count: int | None
) -> None:
    """Show what goes wrong, looked up each `interval` seconds until a signal or `count` packets.

    On a terminal a table that changes, else a line a kind of packets that there were more of, with
    --json a document.
    """
    with contextlib.ExitStack() as ending:
        draw = _incident_printer(style)
        if sys.stdout.isatty() and not style.json:
            draw = _incident_drawer(ending)
        with contextlib.suppress(Interrupted):
            while True:
                signals.release()
                time.sleep(interval)
                signals.hold()  # no half a line
                found = look()
                draw(found)
                if count is not None and sum(one.total for one in found) >= count:
                    return
        draw(look())  # and what came since


def _incident_printer(style: Style) -> Callable[[Sequence[Incident]], None]:
    def draw(found: Sequence[Incident]) -> None:
        for one in found:
            if not one.packets:
                continue
            if style.json:
                print_line({"time": time.time(), **incident_data(one)})
                continue
            where = f" {printable(one.interface)}" if one.interface else ""
            who = f", {_who(one.program)}" if one.program else ""
            packets = "1 packet" if one.packets == 1 else f"{one.packets} packets"
            numbers = f"{packets}, {one.rate:.0f}/s, {one.total} in all"
            when = time.strftime("%H:%M:%S")
            print(f"{when}{where} {one.event}: {_why(one)}{who}: {numbers}", flush=True)

    return draw


def _incident_drawer(ending: contextlib.ExitStack) -> Callable[[Sequence[Incident]], None]:
    from rich.console import Console
    from rich.live import Live

    table = _incident_table(())
    live = ending.enter_context(Live(table, console=Console(), auto_refresh=False))
    return lambda found: live.update(_incident_table(found), refresh=True)


def _incident_table(found: Sequence[Incident]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(caption=None if found else "nothing so far")
    for column in _COLUMNS:
        numeric = column in ("Packets", "Rate/s")
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for one in found:
        cells = (
            printable(one.interface or "-"),
            one.event,
            _who(one.program) if one.program else "-",
            _why(one),
            str(one.total),
            f"{one.rate:.0f}",
        )
        # Names come from programs: text, never markup. What goes on stands out.
        table.add_row(*map(Text, cells), style="bold" if one.packets else "dim")
    return table
