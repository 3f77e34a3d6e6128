"""A chain that ran before, as data, and the text of its record."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, cast, get_args

from ..value import Value
from .chain import Chain, Kind, Member, Rules
from .difference import differences
from .kinds import TRAITS
from .labels import TEXT, Attach, in_range
from .member_record import parse_member
from .terms import Reason, Terms

if TYPE_CHECKING:
    from .plan import Plan
    from .state import State

REASONS: dict[Reason, str] = {
    "asked": "taken back",
    "late": "not confirmed in time",
    "ended": "the process that waited for the confirmation was told to end",
}

LATEST = 1 << 35
"""Seconds of the calendar: no record is of a later time."""


# What the record of a generation says of it in bits: it keeps its programs; its root had none.
_KEEPS, _EMPTY = 1, 2


class Generation(Value):
    """A chain that ran on the root `before`, until `command` put `after` there.

    The two are ids, None if there was no root. `time` is in seconds of the calendar; `user` is the
    id of the user who had logged in, None where that is not known. It `keeps` its programs until
    the next change. One that was `alone` is a program that had the hook to itself: xdpctl's, or
    another tool's until it was adopted.
    """

    number: int
    before: int | None
    after: int | None
    time: int
    mode: Literal["native", "skb", "hw"]
    attach: Attach
    kind: Kind
    protocol: int
    keeps: bool
    command: str
    chain: Chain
    user: int | None = None

    @property
    def alone(self) -> bool:
        return TRAITS[self.kind].alone

    @classmethod
    def of(
        cls,
        number: int,
        state: State,
        plan: Plan,
        after: int | None,
        terms: Terms,
        user: int | None = None,
    ) -> Generation:
        """What a change replaces."""
        root, chain = state.root, plan.current
        mode = root.mode if root else "native" if plan.mode == "unspecified" else plan.mode
        if root and plan.adopts:
            chain = Chain((Member(root.name, actions=0, id=root.id, tag=root.tag),))
        return cls(
            number=number,
            before=root.id if root else None,
            after=after,
            time=int(time.time()),
            mode=mode,
            attach=plan.attach,
            kind=root.kind if root else plan.kind,
            protocol=root.config.protocol if root and root.config else plan.protocol,
            keeps=terms.keeps,
            command=terms.command,
            chain=chain,
            user=user,
        )

    @property
    def words(self) -> str:
        """The chain, in words."""
        names = ", ".join(member.known_as for member in self.chain.members)
        return names or ("an empty root" if self.chain.kept else "no program")

    def head(self) -> str:
        """The text of its record; those of its members are apart."""
        flags = _KEEPS * self.keeps | _EMPTY * self.chain.kept
        numbers = (self.before or 0, self.after or 0, self.time, self.protocol, flags)
        rules = self.chain.rules
        words = (
            *numbers,
            rules.on_end,
            rules.on_vacant,
            rules.counted,
            self.mode,
            self.attach,
            self.kind,
            self.command,
        )
        return " ".join(map(str, (*words, _user_text(self.user))))

    @classmethod
    def parse(cls, number: int, head: str, members: str) -> Generation | None:
        """None where the record is one of a later xdpctl."""
        with contextlib.suppress(ValueError, TypeError):
            before, after, when, protocol, flags, end, vacant, counted, *rest = head.split(" ", 11)
            mode, attach, kind, last = rest
            command, _blank, user = last.partition(" ")
            rules = Rules(in_range(end), in_range(vacant), in_range(counted, 1))
            known = [parse_member(text) for text in members.split(";") if text]
            return cls(
                number=number,
                before=in_range(before) or None,
                after=in_range(after) or None,
                time=in_range(when, LATEST),
                mode=cast(Literal["native", "skb", "hw"], mode),
                attach=cast(Attach, attach),
                kind=cast(Kind, kind),
                protocol=in_range(protocol),
                keeps=bool(in_range(flags) & _KEEPS),
                command=command,
                chain=Chain(tuple(known), rules, kept=bool(in_range(flags) & _EMPTY)),
                user=_parse_user(user or "-"),
            )
        return None

    def restored(self, state: State, is_there: Callable[[int], bool]) -> tuple[Chain, list[Member]]:
        """The chain as it was, of what there is; and the members that are gone.

        `is_there` tells whether the kernel still has the program of an id.
        What a process holds goes on as that; it cannot come back once the process has let go.
        """
        running = {member.id: member for member in state.chain.members}
        found, gone = [], []
        for member in self.chain.members:
            if member.id in running:
                member = replace(member, array_id=running[member.id].array_id)
            elif member.array_id or not is_there(member.id):
                gone.append(member)
                continue
            found.append(member)
        rules = self.chain.rules
        if self.command != "stats":  # what is counted says nothing of packets' fate
            rules = rules._replace(counted=state.chain.rules.counted)
        return Chain(tuple(found), rules, self.chain.kept), gone


class WentBack(Value):
    """A change that went back: to which generation, when, why, and what that did to the chain.

    `command` is the one that had made the change. `user` is as for a generation.
    """

    number: int
    time: int
    reason: Reason
    command: str
    what: str
    user: int | None = None

    @classmethod
    def of(cls, left: Generation | None, plan: Plan, terms: Terms, user: int | None) -> WentBack:
        """What going back does; `left` is the generation that it goes back to."""
        assert terms.back is not None
        command = left.command if left else ""
        what = "; ".join(differences(plan.current, plan.target))
        what = what.encode(errors="surrogateescape")[:_WHAT].decode(errors="ignore")
        return cls(terms.back, int(time.time()), terms.reason, command, what, user)

    @property
    def words(self) -> str:
        """What happened: ``load, went back at 18:02:02: not confirmed in time (removed drop)``."""
        when = time.strftime("%H:%M:%S", time.localtime(self.time))
        what = f" ({self.what})" if self.what else ""
        return f"{self.command or 'a change'}, went back at {when}: {REASONS[self.reason]}{what}"

    def text(self) -> str:
        """The text of its record."""
        user, command = _user_text(self.user), self.command or "-"
        words = (self.number, self.time, user, self.reason, command, self.what)
        return " ".join(map(str, words))

    @classmethod
    def parse(cls, text: str) -> WentBack | None:
        """None where the record is one of a later xdpctl."""
        with contextlib.suppress(ValueError):
            number, when, user, reason, command, what = text.split(" ", 5)
            if reason in get_args(Reason):
                return cls(
                    in_range(number),
                    in_range(when, LATEST),
                    cast(Reason, reason),
                    "" if command == "-" else command,
                    what,
                    _parse_user(user),
                )
        return None


def _user_text(user: int | None) -> str:
    return "-" if user is None else str(user)


def _parse_user(text: str) -> int | None:
    return None if text == "-" else in_range(text)


_WHAT = TEXT // 4
"""Bytes of a record that tell what going back did."""
