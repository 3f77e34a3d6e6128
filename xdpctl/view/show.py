"""A chain as it is drawn: the way of a packet, top to bottom."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from ..errors import listed
from ..host.text import Json
from ..model.chain import ACTIONS, XDP_PASS, format_actions
from .status import NOTHING, interface_remarks, oddity, once
from .status import data as status_data
from .style import Span, can_print, on_terminal, paint, printable, say, short, tell, width

if TYPE_CHECKING:
    from ..host.interfaces import Failure
    from ..model.state import Root, Slot, State


Counts = Mapping[int, Mapping[str, int]]
"""By program id: how many packets it gave which verdict."""

_ALL = (1 << len(ACTIONS)) - 1


class _Strokes(NamedTuple):
    """What lines are drawn with."""

    way: str = "│"
    slot: str = "├─"
    out: str = "├──▶"
    on: str = "▼"
    stop: str = "┴"
    end: str = "╰─"


_ASCII = _Strokes("|", "+-", "+-->", "v", "x", "`-")


def data(seen: State | Failure, counts: Counts) -> Json:
    """An interface as ``show --json`` gives it: as `status.data`, with what was counted."""
    found = status_data(seen)
    for slot in found.get("programs", ()):
        if "id" in slot:
            counted = counts.get(slot["id"])
            slot["packets"] = None if counted is None else sum(counted.values())
            slot["verdicts"] = counted
    return found


def show(states: Sequence[State], counts: Counts | None = None) -> None:
    """Draw chains; what is odd about their interfaces follows on standard error."""
    strokes = _Strokes() if can_print("".join(_Strokes())) else _ASCII
    pictures = (drawing(state, counts, strokes) for state in once(states))
    lines = [line for picture in pictures for line in (*picture, Span(""))][:-1]
    if on_terminal():
        paint([part] for line in lines for part in _broken(line, strokes))
    else:
        say(*(text for text, _style in lines))
    for state in states:
        tell(*(f"{state.interface.name}: {remark}" for remark in interface_remarks(state)))


def _broken(line: Span, strokes: _Strokes) -> Iterator[Span]:
    """A line of a drawing in as many as it takes on this terminal."""
    if len(line.text) <= width():
        yield line
        return
    import textwrap

    parts = textwrap.wrap(
        line.text,
        width(),
        subsequent_indent=f"{strokes.way}     ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    yield from (Span(part, line.style) for part in parts)


def drawing(
    state: State, counts: Counts | None = None, strokes: _Strokes = _ASCII
) -> Iterator[Span]:
    """The lines of an interface's drawing."""
    root = state.root
    name = printable(listed(state.sharing or [state.interface.name]))
    if root is None:
        yield Span(f"{name}  {NOTHING}", "dim")
        return
    yield Span(f"{name}  {printable(root.name)}  {_root_facts(root, state.sharing)}", "bold")
    if root.config is None:
        whose = "another tool's program" if root.owner == "other" else "one program, no dispatcher"
        yield Span(f"{strokes.end} {whose}: its verdict is the packet's")
        return
    yield Span(strokes.way)
    if state.chain.kept:
        yield Span(f"{strokes.way}  <empty, ready for a first program>", "dim")
    for slot in root.slots:
        yield from _slot_lines(slot, root, counts or {}, strokes)
    yield Span(f"{strokes.end} end: {short(ACTIONS[root.rules.on_end])}", "bold")


def _root_facts(root: Root, sharing: Sequence[str]) -> str:
    facts = [f"id {root.id}", f"{root.mode} mode"]
    if root.config:
        protocol = root.config.libxdp
        facts.append(f"{root.kind} root, protocol {protocol}" if protocol else f"{root.kind} root")
    link = f"link {root.link_id}" if not sharing else "a link each"  # which is its own
    facts += [link if root.link_id else "netlink", f"tag {root.tag}"]
    return ", ".join(facts)


def _slot_lines(slot: Slot, root: Root, counts: Counts, strokes: _Strokes) -> Iterator[Span]:
    assert root.config is not None
    way, member = strokes.way, slot.member
    odd = printable(oddity(slot, root.rules))
    actions = root.config.actions[slot.number]
    if member:
        names = [printable(member.known_as)]
        if member.label:
            names.append(f"({printable(member.name)})")
        facts = f"id {member.id}, priority {member.priority}, tag {member.tag}"
        yield Span(f"{strokes.slot} {slot.number}  {' '.join(names)}  {facts}", "bold")
        if asked := ", ".join(
            f"{word} {' and '.join(map(printable, others))}"
            for word, others in (("before", member.before), ("after", member.after))
            if others
        ):
            yield Span(f"{way}     runs {asked}")
        if (seen := counts.get(member.id)) is not None:
            each = ", ".join(
                f"{short(verdict)} {number}" for verdict, number in seen.items() if number
            )
            yield Span(f"{way}     {sum(seen.values())} packets{each and ': '}{each}")
    else:
        what = "lost" if slot.lost else "vacant"
        yield Span(f"{strokes.slot} {slot.number}  <{what}>", "bold red")
    if odd:
        yield Span(f"{way}     {odd}", "yellow" if member else "red")
    if member is None and not slot.lost:
        passed = root.rules.on_vacant == XDP_PASS
        actions = _ALL if passed else 0
        leaving = short(ACTIONS[root.rules.on_vacant])
    else:
        leaving = short(format_actions(_ALL & ~actions))
    if actions & _ALL != _ALL:
        yield Span(f"{strokes.out} leaves: {leaving}", "dim")
    if actions & _ALL:
        on = "all" if actions & _ALL == _ALL else short(format_actions(actions))
        yield Span(f"{strokes.on}    goes on: {on}", "dim")
    else:
        yield Span(f"{strokes.stop}    nothing goes on", "dim")
