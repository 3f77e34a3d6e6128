"""How a trial is shown: tables, rows, JSON, pcap files."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from ..errors import UsageError
from ..host.text import Json
from ..model.chain import ACTIONS, XDP_PASS, verdict_name
from . import table
from .style import say, short
from .table import Column, Row, Table

if TYPE_CHECKING:
    from ..trial.fates import Fate, Outcome, Trial


_SHOWN = 20
"""As many packets are shown one by one."""


def difference(before: bytes, after: bytes) -> dict[str, int | None] | None:
    """What was changed in a packet: its length, how many bytes differ, and the first that does.

    None if nothing was. Of two lengths, what they have in common is compared from the start or from
    the end on, whichever leaves more as it was.
    """
    if before == after:
        return None
    common = min(len(before), len(after))
    start = [n for n in range(common) if before[n] != after[n]]
    old, new = len(before) - common, len(after) - common
    end = [new + n for n in range(common) if before[old + n] != after[new + n]]
    fewer = min(start, end, key=len)
    return {
        "length_before": len(before),
        "length_after": len(after),
        "bytes": len(fewer),
        "first": fewer[0] if fewer else None,
    }


def difference_text(before: bytes, after: bytes) -> str:
    found = difference(before, after)
    if found is None:
        return ""
    text = []
    if len(before) != len(after):
        text.append(f"{len(before)} → {len(after)} bytes")
    if found["bytes"] == 1:
        text.append(f"byte {found['first']} differs")
    elif found["bytes"]:
        text.append(f"{found['bytes']} bytes differ, from byte {found['first']} on")
    return ", ".join(text)


def _tally(codes: Iterable[int]) -> list[tuple[str, int]]:
    return [(verdict_name(code), number) for code, number in sorted(Counter(codes).items())]


def _slots(trial: Trial) -> list[Json]:
    """What each program said, in slot order."""
    fates = [one.after for one in trial.outcomes if one.after]
    return [
        {
            "slot": slot,
            "name": member.known_as,
            "id": member.id or None,
            "verdicts": [
                {"verdict": name, "packets": number}
                for name, number in _tally(
                    one.codes[slot] for one in fates if slot < len(one.codes)
                )
            ],
            "decided": sum(one.slot == slot for one in fates),
            "changed": sum(slot in one.changed for one in fates),
        }
        for slot, member in enumerate(trial.target.members)
    ]


def _count(packets: int) -> str:
    return {0: "no packet", 1: "1 packet"}.get(packets, f"{packets} packets")


def _verdicts(fates: Iterable[Fate | None]) -> list[Json]:
    return [
        {"verdict": name, "packets": number}
        for name, number in _tally(one.verdict for one in fates if one)
    ]


def data(trial: Trial) -> Json:
    """A trial as ``test --json`` gives it."""
    return {
        "verdicts": _verdicts(one.after for one in trial.outcomes),
        "verdicts_now": None if trial.unknown else _verdicts(one.before for one in trial.outcomes),
        "unknown": trial.unknown or None,
        "not_run": sum(one.after is None for one in trial.outcomes),
        "other_fate": sum(one.changes for one in trial.outcomes),
        "slots": _slots(trial),
        "fates": [_fate_data(one) for one in trial.outcomes],
    }


def _fate_data(one: Outcome) -> Json:
    def side(fate: Fate | None) -> Json | None:
        if fate is None:
            return None
        return {
            "verdict": verdict_name(fate.verdict),
            "slot": fate.slot,
            "answers": [verdict_name(code) for code in fate.codes],
            "changed_by": list(fate.changed),
            "difference": difference(one.packet.data, fate.packet),
            "packet": fate.packet.hex() if fate.packet != one.packet.data else None,
        }

    return {
        "name": one.packet.name,
        "length": len(one.packet.data),
        "cut": one.packet.is_cut,
        "then": side(one.after),
        "now": side(one.before),
        "changes": one.changes,
        "why": one.why or None,
    }


_PROGRAMS = (
    *(Column(title, head=True) for title in ("Slot", "Program", "Verdict")),
    *map(Column, ("Packets", "Decided", "Changed")),
)
_PACKETS = (
    Column("Packet", head=True),
    *map(Column, ("Now", "Then", "Decided by", "Changed by")),
    Column("Change", prose=True),
)


def show(interface: str, trial: Trial, *, whole: bool = False) -> None:
    """The sums, a row a program and verdict, then packets: all of a few, else those that change."""
    sums = [f"{one['packets']} {short(one['verdict'])}" for one in _verdicts(_after(trial))]
    if not_run := _after(trial).count(None):
        sums.append(f"{not_run} not run")
    say(f"{interface}: {len(trial.outcomes)} packets: {', '.join(sums) or 'none'}")
    table.show(_table(_PROGRAMS, _program_rows(trial)))
    changing = [one for one in trial.outcomes if one.changes]
    chosen = trial.outcomes if whole or len(trial.outcomes) <= _SHOWN else changing
    if chosen:
        shown = chosen if whole else chosen[:_SHOWN]
        table.show(_table(_PACKETS, (_packet_row(one, trial) for one in shown)))
        if len(chosen) > len(shown):
            say(f"and {len(chosen) - len(shown)} more (-v shows all)")
    if trial.unknown:
        say(f"{interface}: what packets meet now is not known: {trial.unknown}")
    else:
        say(f"{interface}: {_count(len(changing))} would fare differently than now")
    if cut := sum(one.packet.is_cut for one in trial.outcomes):
        say(f"{interface}: not whole, as they were captured: {cut} packets")


def _after(trial: Trial) -> list[Fate | None]:
    return [one.after for one in trial.outcomes]


def _program_rows(trial: Trial) -> Iterable[tuple[object, ...]]:
    for one in _slots(trial):
        counts = one["decided"], one["changed"]
        for said in one["verdicts"] or [{"verdict": "-", "packets": 0}]:
            yield one["slot"], one["name"], short(said["verdict"]), said["packets"], *counts
            counts = "", ""
    past = sum(fate is not None and fate.slot is None for fate in _after(trial))
    end = trial.target.rules.on_end if trial.target.has_root else XDP_PASS
    yield "-", "past the last", short(verdict_name(end)), past, past, 0


def _packet_row(one: Outcome, trial: Trial) -> tuple[object, ...]:
    now = short(verdict_name(one.before.verdict)) if one.before else "?"
    if one.after is None:
        return one.packet.name, now, "not run", "-", "-", one.why
    slot, changed = one.after.slot, one.after.changed
    return (
        one.packet.name,
        now,
        short(verdict_name(one.after.verdict)),
        "-" if slot is None else trial.target.members[slot].known_as,
        ",".join(trial.target.members[number].known_as for number in changed) or "-",
        difference_text(one.packet.data, one.after.packet) or "-",
    )


def _table(columns: Sequence[Column], rows: Iterable[Sequence[object]]) -> Table:
    return Table(columns, [Row([str(cell) for cell in row]) for row in rows])


def write(directory: str, interface: str, trial: Trial) -> None:
    """Write the packets as they are afterwards, a file a verdict, also one without packets.

    Raises UsageError.
    """
    from ..traffic import pcap

    try:
        os.makedirs(directory, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot make {directory}", why=os.strerror(error.errno or 0)) from error
    for name in (*ACTIONS, "other"):
        packets = [
            one.packet._replace(data=one.after.packet)
            for one in trial.outcomes
            if one.after and dict(enumerate(ACTIONS)).get(one.after.verdict, "other") == name
        ]
        file = f"{interface}-{name.removeprefix('XDP_').lower()}.pcap"
        pcap.write(os.path.join(directory, file), packets)
