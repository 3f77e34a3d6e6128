"""What an interface runs, for people and scripts: rows, a table, what is odd, JSON.

rich draws on terminals only, so that scripts do not pay for it; elsewhere the rows are
xdp-loader's, which scripts parse.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ..errors import RaceError, errno_name, listed
from ..host.interfaces import Failure
from ..host.text import Json
from ..model.chain import USUAL, XDP_PASS, Rules, format_actions
from ..model.kinds import TRAITS
from . import document, table
from .document import member_data, pending_data, rules_data
from .style import Line, Span, Style, on_terminal, printable, say, short, tell
from .table import Column, Table
from .words import OFF, alone, empty_line, failure_text, pending_line, rule_lines

if TYPE_CHECKING:
    from ..model.state import Root, Slot, State


NOTHING = "<No XDP program loaded!>"
_COLUMNS = (
    Column("Interface, programs", head=True),
    Column("Prio", right=True),
    Column("Mode", drop=2),
    Column("ID", right=True),
    Column("Tag", drop=1),
    Column("Chain actions"),
)


def data(seen: State | Failure) -> Json:
    """An interface as ``status --json`` gives it, or that it could not be read."""
    return seen.as_dict() if isinstance(seen, Failure) else state_data(seen)


def document_of(found: Sequence[State | Failure]) -> Json:
    """What ``status --json`` gives of interfaces."""
    return {"interfaces": [data(one) for one in found], "shared": shared_data(found)}


def shared_data(found: Sequence[State | Failure]) -> list[Json]:
    """The roots that several interfaces run, with the names of all of these."""
    return [
        {"root": root_id, "interfaces": list(names)}
        for root_id, names in _sharing(_read(found)).items()
    ]


def _sharing(states: Sequence[State]) -> dict[int, tuple[str, ...]]:
    return {one.root.id: one.sharing for one in states if one.root and one.sharing}


def state_data(state: State) -> Json:
    """An interface as it was read."""
    root = state.root
    return {
        "interface": state.interface.name,
        "ifindex": state.interface.ifindex,
        "netns": state.interface.netns,
        "root": root
        and {
            "id": root.id,
            "name": root.name,
            "tag": root.tag,
            "mode": root.mode,
            "owner": root.owner,
            "kind": None if root.owner == "other" and not root.config else root.kind,
            "ext_refused": errno_name(root.config.why) if root.config else None,
            "attach": root.attach,
            "link_id": root.link_id or None,
            "link_pin": root.link_pin,
            "protocol": (root.config.libxdp or None) if root.config else None,
            "frags": root.config.frags if root.config else None,
            **rules_data(root.rules),
        },
        "programs": [_slot_data(slot) for slot in root.slots] if root else [],
        "off": [member_data(member) for member in state.off.chain.members] if state.off else None,
        "residue": list(state.residue),
        "unconfirmed": pending_data(state.pending),
    }


def _slot_data(slot: Slot) -> Json:
    return {
        "slot": slot.number,
        "function": slot.function,
        "vacant": slot.member is None and not slot.lost,
        "lost": slot.lost or None,
        **(member_data(slot.member) if slot.member else {}),
        "link_id": slot.link_id or None,
        "pin": slot.pin,
        "array_id": slot.array_id or None,
        "borrowed": slot.origin
        and {
            "link_id": slot.origin.link_id,
            "pid": slot.origin.pid or None,
            "name": slot.origin.name or None,
            "gone": slot.orphan,
        },
    }


def status(states: Sequence[State], style: Style | None = None, *, every: bool = True) -> None:
    """The rows of xdp-loader, or a table on a terminal; then what is not as it should be.

    The table has `every` interface, or those that run something.
    """
    style = style or Style()
    if on_terminal() and not style.plain:
        table.show(_table(states, every))
    else:
        print("CURRENT XDP PROGRAM STATUS:\n")
        _row("Interface", "Prio", "Program name", "Mode", "ID", "Tag", "Chain actions")
        print("-" * 86)
        for state in states:
            for row in _rows(state):
                _row(*row)
        print()
        tell(*(sharing_lines(states) if style.verbose or not style.plain else ()))
    tell(*(_remark_lines(states) if style.verbose or not style.plain else ()))


def live(
    look: Callable[[], Sequence[State | Failure]],
    style: Style,
    interval: float,
    *,
    every: bool = True,
) -> None:
    """What interfaces run, looked up each `interval` seconds until a signal ends it.

    On a terminal a table that changes, of `every` interface or those that run something; else each
    state that is another than the last, with --json as a document on a line.
    """

    from .live import Screen
    from .live import live as shown_live

    def settled() -> Sequence[State | Failure]:
        seen = look()
        for one in seen:
            if isinstance(one, Failure) and isinstance(one.error, RaceError):
                raise one.error
        return seen

    def lines(seen: Sequence[State | Failure]) -> None:
        if style.json:
            document.line({"command": "status", **document_of(seen)})
            return
        status(_read(seen), style)
        sys.stdout.flush()
        for one in _failures(seen):
            print(f"xdpctl: {failure_text(one, style)}", file=sys.stderr)

    def state(seen: Sequence[State | Failure]) -> list[Json]:
        return [data(one) for one in seen]

    def picture(seen: Sequence[State | Failure]) -> list[Line]:
        states = _read(seen)
        drawn = table.picture(_table(states, every))
        drawn += [[Span(line, "yellow")] for line in _remark_lines(states)]
        texts = [failure_text(one, Style()) for one in _failures(seen)]
        return [*drawn, *([Span(line, "red")] for text in texts for line in text.splitlines())]

    shown_live(settled, Screen(picture, lines), style, interval, changing=state)


def _read(seen: Sequence[State | Failure]) -> list[State]:
    return [one for one in seen if not isinstance(one, Failure)]


def _failures(seen: Sequence[State | Failure]) -> list[Failure]:
    return [one for one in seen if isinstance(one, Failure)]


def _remark_lines(states: Sequence[State]) -> list[str]:
    return [
        printable(f"{state.interface.name}: {remark}")
        for state in states
        for remark in remarks(state)
    ]


def _row(*cells: object) -> None:
    # xdp-loader's columns to the blank: scripts cut them by number, too.
    widths = (16, 6, 16, 8, 4, 17, 0) if cells[0] == " =>" else (16, 5, 17, 8, 4, 17, 0)
    texts = (printable(str(cell)) for cell in cells)
    text = " ".join(f"{cell:<{width}}" for cell, width in zip(texts, widths, strict=True))
    say(text.rstrip())


def slots_shown(root: Root | None) -> tuple[Slot, ...]:
    """The slots that have a row: xdp-loader shows a root that is the only program on one."""
    return root.slots if root and not TRAITS[root.kind].alone else ()


def _rows(state: State) -> list[tuple[object, ...]]:
    """An interface's rows: the root, then a row a slot that starts with =>."""
    root = state.root
    if root is None:
        return [(state.interface.name, "", NOTHING, "", "", "", "")]
    rows: list[tuple[object, ...]] = [
        (state.interface.name, "", root.name, root.mode, root.id, root.tag, "")
    ]
    for slot in slots_shown(root):
        member = slot.member
        if member is None:
            what = "lost" if slot.lost else "vacant"
            rows.append((" =>", "-", f"<{what}:prog{slot.number}>", "", "-", "-", "-"))
        else:
            actions = format_actions(member.actions)
            name = member.known_as
            rows.append((" =>", member.priority, name, "", member.id, member.tag, actions))
    return rows


def _table(states: Sequence[State], every: bool) -> Table:
    shown = Table(_COLUMNS)
    empty = [] if every else [state for state in states if state.root is None]
    if empty:
        ran = "interface runs" if len(empty) == 1 else "interfaces run"
        shown.notes = [f"{len(empty)} {ran} no XDP program (-a shows all)"]
    for state in once(states):
        if state in empty:
            continue
        root, *slots = ([str(cell) for cell in row] for row in _rows(state))
        # One column for both names: there is room for longer ones then.
        _add(shown, f"{_head(state)}  {root[2]}", root, "bold" if state.root else "dim")
        for cells, slot in zip(slots, slots_shown(state.root), strict=True):
            _add(shown, f" => {cells[2]}", cells, "" if slot.member else "red")
    shown.notes = [*shown.notes, *sharing_lines(states)]
    return shown


def once(states: Sequence[State]) -> list[State]:
    """The states that are drawn: of interfaces that run one root, that of the first alone."""
    firsts = {one.root.id: one for one in reversed(states) if one.root and one.sharing}
    return [one for one in states if not (one.root and one.sharing) or one is firsts[one.root.id]]


def sharing_lines(states: Sequence[State]) -> list[str]:
    """Which interfaces run one root."""
    return [
        printable(f"{listed(names)} run one root (id {root_id})")
        for root_id, names in _sharing(states).items()
    ]


def _head(state: State) -> str:
    """What a row calls an interface, or several whose root it is."""
    others = len(state.sharing) - 1
    return f"{state.interface.name} +{others}" if others > 0 else state.interface.name


def _add(shown: Table, name: str, row: Sequence[str], style: str) -> None:
    _interface, priority, _program, mode, number, tag, actions = row
    shown.add(name, priority, mode, number, tag, short(actions), style=style)


def remarks(state: State) -> list[str]:
    """What is odd about an interface and its slots: vacant ones, unpinned links, foreign roots."""
    slots, rules = (state.root.slots, state.root.rules) if state.root else ((), USUAL)
    odd = (f"{_subject(slot)} {what}" for slot in slots if (what := oddity(slot, rules)))
    return [*interface_remarks(state), *odd]


def interface_remarks(state: State) -> list[str]:
    """The same of the interface and its root alone."""
    found = []
    root = state.root
    if root is not None:
        found += rule_lines(root.rules)
        how = f"link {root.link_id}" if root.link_id else "netlink"
        if root.owner == "libxdp":
            found.append(f"the dispatcher is not xdpctl's (attached by {how})")
        if root.owner == "other" and root.config is not None:
            found.append(f"chain {root.id} ({root.name}) has its pins in another bpffs ({how})")
        elif root.owner == "other":
            found.append(f"program {root.id} ({root.name}) of another tool owns the hook ({how})")
        if TRAITS[root.kind].alone and root.owner == "xdpctl":
            found.append(f"program {root.id} ({root.name}) {alone(root.mode)} ({how})")
        if state.chain.kept:
            found.append(empty_line(root.rules))
    if state.pending:
        found.append(pending_line(state.pending))
    if state.stranded:
        found.append(f"root {state.stranded} was loaded here and runs on an interface that moved")
    if state.off:
        names = ", ".join(member.known_as for member in state.off.chain.members) or "an empty root"
        found.append(f"{names}: off the hook; {OFF}")
        found.append(f"xdpctl rollback {state.interface.name} brings the chain back")
    found += [f"left over: {path} (the next change removes it)" for path in state.residue]
    return found


def _subject(slot: Slot) -> str:
    if slot.member:
        return f"{slot.member.name} (id {slot.member.id})"
    return f"slot {slot.number}"


def oddity(slot: Slot, rules: Rules) -> str:
    """What is not as usual about a slot or its program, as said of it; empty if nothing is."""
    if slot.lost:
        return f"runs program {slot.lost}, whose pin is gone: the next change leaves it out"
    if slot.member is None:
        what = "the process that held it" if slot.array_id else "its link"
        passed = rules.on_vacant == XDP_PASS
        then = "packets pass it by" if passed else "packets end there"
        return f"is vacant: {what} is gone and {then}"
    if slot.origin and slot.pin:
        gone = ", which is gone: the next change takes it out" if slot.orphan else ""
        return f"is borrowed from link {slot.origin.link_id} of {slot.origin.holder}{gone}"
    if slot.array_id:
        return "belongs to a process: it goes when that does"
    if slot.pin is None and slot.link_id:
        return (
            f"hangs on link {slot.link_id}, which xdpctl did not pin: it goes when its holder does"
        )
    return ""
