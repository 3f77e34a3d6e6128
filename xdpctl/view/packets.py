"""Packets and the paths that they took through a chain."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from ..model.chain import verdict_name
from . import document
from .style import Style, on_terminal, printable, say, short, width

if TYPE_CHECKING:
    from ..traffic.trace import TracedPacket


def comment(packet: TracedPacket) -> str:
    """A packet's path in words: what each program answered, and who had the last word."""
    return "; ".join(_steps(packet, verdict_name))


def _steps(packet: TracedPacket, name: Callable[[int], str]) -> Iterator[str]:
    for step in packet.path:
        yield f"{printable(step.member.known_as)} (id {step.member.id}): {name(step.verdict)}"
    yield "the last word" if packet.last else f"end of the chain: {name(packet.verdict)}"


def _lines(head: str, packet: TracedPacket) -> Iterator[str]:
    """A packet on a line; where a terminal has no room for that, a step on each line."""
    steps = [*_steps(packet, lambda verdict: short(verdict_name(verdict)))]
    line = f"{head} {'; '.join(steps)}"
    if not on_terminal() or len(line) <= width():
        yield line
        return
    yield head
    yield from (f"  {step}" for step in steps)


def packet(packet: TracedPacket, style: Style, *, several: bool = False) -> None:
    """Print a packet: a line, which names the interface if there are `several`; or a document."""
    import datetime

    when = datetime.datetime.fromtimestamp(packet.time / 1e9, datetime.UTC).astimezone()
    if style.json:
        fields = {
            "time": packet.time / 1e9,
            "interface": packet.interface,
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
        document.line(fields)
    else:
        where = f"{printable(packet.interface)} " if several else ""
        say(*_lines(f"{when:%H:%M:%S.%f} {where}{packet.length} B:", packet), flush=True)
