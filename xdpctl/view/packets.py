"""Packets and the paths that they took through a chain."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..model.chain import verdict_name
from . import document
from .style import Style, printable, say

if TYPE_CHECKING:
    from ..traffic.trace import Packet


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
        fields = {
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
        document.line(fields)
    else:
        say(f"{when:%H:%M:%S.%f} {packet.length} B: {comment(packet)}", flush=True)
