"""What goes wrong with packets, as it happens: a table that changes, lines, documents."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ..host.text import Json
from . import document
from .live import Screen, intervals
from .style import Style, printable, say, short
from .table import Column, Table, picture

if TYPE_CHECKING:
    from ..traffic.incidents import Incident, NamedProgram


_COLUMNS = (
    Column("Interface", head=True),
    Column("Event", head=True),
    Column("Program", prose=True),
    Column("Reason", prose=True),
    Column("Packets", right=True),
    Column("Rate/s", right=True),
)


def incident_data(one: Incident) -> Json:
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


def _who(program: NamedProgram) -> str:
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

    def lines(found: Sequence[Incident]) -> None:
        for one in found:
            if one.packets and style.json:
                document.line({"time": time.time(), **incident_data(one)})
            elif one.packets:
                say(_line(one), flush=True)

    def enough(found: Sequence[Incident]) -> bool:
        return count is not None and sum(one.total for one in found) >= count

    screen = Screen(lambda found: picture(_table(found)), lines)
    nothing: Sequence[Incident] = ()
    intervals(look, screen, style, interval, empty=nothing, enough=enough)


def _line(one: Incident) -> str:
    where = f" {printable(one.interface)}" if one.interface else ""
    who = f", {_who(one.program)}" if one.program else ""
    packets = "1 packet" if one.packets == 1 else f"{one.packets} packets"
    numbers = f"{packets}, {one.rate:.0f}/s, {one.total} in all"
    return f"{time.strftime('%H:%M:%S')}{where} {one.event}: {_why(one)}{who}: {numbers}"


def _table(found: Sequence[Incident]) -> Table:
    shown = Table(_COLUMNS, notes=[] if found else ["nothing so far"])
    for one in found:
        shown.add(
            one.interface or "-",
            one.event,
            _who(one.program) if one.program else "-",
            short(_why(one)),
            str(one.total),
            f"{one.rate:.0f}",
            style="bold" if one.packets else "dim",  # what goes on stands out
        )
    return shown
