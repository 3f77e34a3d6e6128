"""How earlier chains are shown, and a change that waits for its confirmation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from ..bpffs.history import is_there
from ..host.text import Json
from ..model.difference import differences
from ..model.generation import REASONS, Generation, WentBack
from . import document
from .change import tell_removed
from .document import member_data, pending_data, rules_data
from .style import Style, on_terminal, say
from .table import Column, Table, show
from .words import pending_line

if TYPE_CHECKING:
    from ..change.confirm import Confirmed
    from ..host.interfaces import Interface
    from ..model.chain import Chain, Member
    from ..model.state import State


_DIGEST = len("sha256:") + 12
_COLUMNS = (
    Column("Chain", right=True, head=True),
    Column("Until"),
    Column("Ended by", prose=True),
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


class Past(NamedTuple):
    """What an interface ran before: the generations and what went back, the latest first."""

    state: State
    generations: Sequence[Generation]
    went_back: Sequence[WentBack] = ()

    @classmethod
    def of(
        cls, state: State, generations: Sequence[Generation], went_back: Sequence[WentBack]
    ) -> Past:
        """Of what has the latest last."""
        return cls(state, generations[::-1], went_back[::-1])

    def ended(self) -> Iterator[tuple[Generation, Chain]]:
        """The generations, each with the chain that took its place."""
        after = self.state.chain
        for one in self.generations:
            yield one, after
            after = one.chain


def history(found: Iterable[Past], style: Style) -> None:
    """The chains that interfaces ran before."""
    if style.json:
        document.show("history", {"interfaces": [_past_data(past) for past in found]})
        return
    for past in found:
        if on_terminal():
            show(_table(past))
            continue
        state, name = past.state, past.state.interface.name
        say(f"{name}: now: {_known(state.chain)}")
        for one, after in past.ended():
            until = f"until {_by(one)} at {_when(one)}: {_did(one, after)}"
            say(f"{name}: {one.number}: {until}: {_what(one, state)}")
        for back in past.went_back:
            say(f"{name}: {_when(back)}: {_went(back)}")
        if state.pending:
            say(f"{name}: {pending_line(state.pending)}")


def _table(past: Past) -> Table:
    state = past.state
    shown = Table(_COLUMNS, title=state.interface.name)
    name = state.interface.name
    notes = [f"{name}: {_when(back)}: {_went(back)}" for back in past.went_back]
    if state.pending:
        notes.append(f"{name}: {pending_line(state.pending)}")
    shown.notes = notes
    shown.add("now", "", "", _known(state.chain), style="bold")
    for one, after in past.ended():
        ended = f"{_by(one)}: {_did(one, after)}"
        shown.add(str(one.number), _when(one), ended, _what(one, state))
    return shown


def _when(one: Generation | WentBack) -> str:
    """When a generation ended, or went back, in local time."""
    import time

    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(one.time))


def _by(one: Generation) -> str:
    """The command that ended a generation, and the user who ran it."""
    user = _user(one.user)
    return (one.command or "a change") + (f" by {user}" if user else "")


def _user(number: int | None) -> str:
    """The name of a user, the number where it has none; "" for nobody."""
    import pwd

    if number is None:
        return ""
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def _did(one: Generation, after: Chain) -> str:
    """What a change did to the chain."""
    return "; ".join(differences(one.chain, after)) or "the same chain on a new root"


def _went(back: WentBack) -> str:
    user = _user(back.user) if back.reason == "asked" else ""
    by = f" by {user}" if user else ""
    what = f": {back.what}" if back.what else ""
    command = back.command or "a change"
    return f"{command} went back to generation {back.number}, {REASONS[back.reason]}{by}{what}"


def _what(one: Generation, state: State) -> str:
    """The programs of a generation, and which of them are gone."""
    gone = one.restored(state, is_there)[1]
    told = f" (gone: {_listed(gone)})" if gone else ""
    return _known(one.chain) + told


def _known(chain: Chain) -> str:
    return _listed(chain.members) or ("an empty root" if chain.kept else "no program")


def _listed(members: Sequence[Member]) -> str:
    return ", ".join(f"{member.known_as} (id {member.id}{_digest(member)})" for member in members)


def _digest(member: Member) -> str:
    """The beginning of the digest of its image, if it has one."""
    digest = member.image.partition("@")[2]
    return f", {digest[:_DIGEST]}" if digest else ""


def _past_data(past: Past) -> Json:
    return {
        "interface": past.state.interface.name,
        "generations": [_generation_data(one, after) for one, after in past.ended()],
        "went_back": [_went_data(back) for back in past.went_back],
        "unconfirmed": pending_data(past.state.pending),
    }


def _went_data(back: WentBack) -> Json:
    return {
        "generation": back.number,
        "time": back.time,
        "command": back.command or None,
        "user": _user(back.user) or None,
        "reason": REASONS[back.reason],
        "changes": back.what,
    }


def _generation_data(one: Generation, after: Chain) -> Json:
    return {
        "generation": one.number,
        "replaced_at": one.time,
        "replaced_by": one.command or None,
        "user": _user(one.user) or None,
        "changes": differences(one.chain, after),
        "kind": one.kind,
        "mode": one.mode,
        "attach": one.attach,
        **rules_data(one.chain.rules),
        "programs": [
            {**member_data(member), "gone": not is_there(member.id)} for member in one.chain.members
        ],
    }
