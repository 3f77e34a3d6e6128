"""How earlier chains are shown, and a change that waits for its confirmation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from ..bpffs.history import is_there
from ..model.generation import Generation
from . import document
from .change import tell_removed
from .document import member_data, pending_data, rules_data
from .style import Style, on_terminal, say
from .table import Column, Table, show
from .words import pending_line

if TYPE_CHECKING:
    from ..change.confirm import Confirmed
    from ..host.interfaces import Interface
    from ..model.chain import Member
    from ..model.state import State


_COLUMNS = (
    Column("Chain", right=True, head=True),
    Column("Until"),
    Column("Ended by"),
    Column("Programs", prose=True),
)


def confirmed(done: Iterable[tuple[Interface, Confirmed]], style: Style) -> None:
    """The changes that stay now, or would."""
    if style.json:
        found = [
            {
                "interface": one.name,
                "generation": now.generation.number,
                "removed": list(now.removed),
            }
            for one, now in done
        ]
        document.show_change("confirm", {"interfaces": found}, style)
        return
    for one, now in done:
        tell_removed(now.removed)
        if not style.quiet or style.dry_run:
            verb = "would be confirmed" if style.dry_run else "confirmed"
            say(f"{one.name}: {verb}: does not go back to {now.generation.words}")


def history(found: Iterable[tuple[State, Sequence[Generation]]], style: Style) -> None:
    """The chains that interfaces ran before."""
    if style.json:
        interfaces = [
            {
                "interface": state.interface.name,
                "generations": [_generation_data(one) for one in past],
                "unconfirmed": pending_data(state.pending),
            }
            for state, past in found
        ]
        document.show("history", {"interfaces": interfaces})
        return
    for state, past in found:
        if on_terminal():
            show(_table(state, past))
            continue
        name = state.interface.name
        say(f"{name}: now: {_known(state.chain.members) or 'no program'}")
        for one in past:
            until = f"until {one.command or 'a change'} at {_when(one)}"
            say(f"{name}: {one.number}: {until}: {_what(one, state)}")
        if state.pending:
            say(f"{name}: {pending_line(state.pending)}")


def _table(state: State, past: Sequence[Generation]) -> Table:
    shown = Table(_COLUMNS, title=state.interface.name)
    if state.pending:
        shown.caption = f"{state.interface.name}: {pending_line(state.pending)}"
    shown.add("now", "", "", _known(state.chain.members) or "no program", style="bold")
    for one in past:
        shown.add(str(one.number), _when(one), one.command or "a change", _what(one, state))
    return shown


def _when(one: Generation) -> str:
    """When a generation ended, in local time."""
    import time

    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(one.time))


def _what(one: Generation, state: State) -> str:
    """The programs of a generation, and which of them are gone."""
    gone = one.restored(state, is_there)[1]
    told = f" (gone: {_known(gone)})" if gone else ""
    return (_known(one.chain.members) or "no program") + told


def _known(members: Sequence[Member]) -> str:
    return ", ".join(f"{member.known_as} (id {member.id})" for member in members)


def _generation_data(one: Generation) -> dict[str, Any]:
    return {
        "generation": one.number,
        "replaced_at": one.time,
        "replaced_by": one.command or None,
        "kind": one.kind,
        "mode": one.mode,
        "attach": one.attach,
        **rules_data(one.chain.rules),
        "programs": [
            {**member_data(member), "gone": not is_there(member.id)} for member in one.chain.members
        ],
    }
