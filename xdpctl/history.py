"""Chains that an interface ran before: records in its directory, and what they keep (pins.py).

A *generation* is the chain that a change replaced. It is recorded before the flip, whole before it
counts, and says which root it was on and which one took its place. So the root that runs tells
whether the change came to its flip. Programs that left are kept in the kernel by pins where that
was asked for: with a confirmation until it comes, else until the next change.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, NamedTuple, cast

from . import pin
from .chain import Chain, Kind, Member, Rules
from .kernel import libbpf
from .pins import Attach, InterfacePins

if TYPE_CHECKING:
    from .plan import Plan
    from .state import State

LIMIT = 8
"""How many generations are remembered."""

_TEXT = 4000
"""Bytes of a symbolic link's text; the kernel takes 4095."""
_NAME = re.compile(r"(?:was|kept)-(\d+)(?:-(\d+))?")


class Terms(NamedTuple):
    """How a change can be taken back.

    The chain before is recorded as replaced by `command`; without one it is not. The change goes
    back by itself unless it is confirmed `within` so many seconds. `keeps` its programs without
    that. A change that goes `back` to a generation uses that up, and those after it; one that may
    itself be taken back uses nothing up.
    """

    command: str = ""
    within: float = 0
    keeps: bool = False
    back: int = 0

    @property
    def uses_up(self) -> bool:
        """Whether a generation is gone back to for good."""
        return bool(self.back) and not self.within


UNRECORDED = Terms()


class Pending(NamedTuple):
    """A change that waits for its confirmation: the generation it goes back to, and when.

    `deadline` is in ns since boot; `pid` is the process that goes back then.
    """

    number: int
    deadline: int
    pid: int

    @classmethod
    def parse(cls, text: str) -> Pending | None:
        words = text.split(" ")
        numbers = [int(word) for word in words if word.isascii() and word.isdecimal()]
        return cls(*numbers) if len(words) == len(numbers) == 3 else None

    def __str__(self) -> str:
        return f"{self.number} {self.deadline} {self.pid}"

    @property
    def left(self) -> float:
        """Seconds."""
        return (self.deadline - now()) / 1e9


def now() -> int:
    """Nanoseconds since boot, suspended or not: a confirmation waits for people."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


@dataclass(frozen=True)
class Generation:
    """A chain that ran on the root `before`, until `command` put `after` there (0: no root).

    `time` is in seconds of the calendar. It `keeps` its programs until the next change. A `bare`
    one is a program that had the hook to itself: xdpctl's, or another tool's until it was adopted.
    """

    number: int
    before: int
    after: int
    time: int
    mode: Literal["native", "skb", "hw"]
    attach: Attach
    kind: Kind
    protocol: int
    keeps: bool
    command: str
    chain: Chain

    @property
    def bare(self) -> bool:
        return self.kind == "bare"

    @classmethod
    def of(cls, number: int, state: State, plan: Plan, after: int, terms: Terms) -> Generation:
        """What a change replaces."""
        root, chain = state.root, plan.current
        mode = root.mode if root else "native" if plan.mode == "unspecified" else plan.mode
        if root and plan.adopts:
            chain = Chain((Member(root.name, actions=0, id=root.id, tag=root.tag),))
        return cls(
            number=number,
            before=root.id if root else 0,
            after=after,
            time=int(time.time()),
            mode=mode,
            attach=plan.attach,
            kind=root.kind if root else plan.kind,
            protocol=root.config.protocol if root and root.config else plan.protocol,
            keeps=terms.keeps,
            command=terms.command,
            chain=chain,
        )

    @property
    def words(self) -> str:
        """The chain, in words."""
        names = ", ".join(member.known_as for member in self.chain.members)
        return names or "no program"

    def head(self) -> str:
        """The text of its record; those of its members are apart."""
        numbers = (self.before, self.after, self.time, self.protocol, int(self.keeps))
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
        return " ".join(map(str, words))

    @classmethod
    def parse(cls, number: int, head: str, members: str) -> Generation | None:
        """None where the record is one of a later xdpctl."""
        with contextlib.suppress(ValueError, TypeError):
            before, after, when, protocol, keeps, end, vacant, counted, *rest = head.split(" ", 11)
            mode, attach, kind, command = rest
            known = [_parse_member(text) for text in members.split(";") if text]
            return cls(
                number=number,
                before=int(before),
                after=int(after),
                time=int(when),
                mode=cast(Literal["native", "skb", "hw"], mode),
                attach=cast(Attach, attach),
                kind=cast(Kind, kind),
                protocol=int(protocol),
                keeps=keeps == "1",
                command=command,
                chain=Chain(tuple(known), Rules(int(end), int(vacant), int(counted))),
            )
        return None

    def restored(self, state: State) -> tuple[Chain, list[Member]]:
        """The chain as it was, of what there is; and the members that are gone.

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
        return Chain(tuple(found), rules), gone


def is_there(program_id: int) -> bool:
    """Whether the kernel still has a program."""
    with libbpf.absent_is_fine(), libbpf.owned(libbpf.prog_fd(program_id)):
        return True
    return False


def _member_text(member: Member) -> str:
    flags = (
        libbpf.BPF_F_XDP_HAS_FRAGS * member.frags
        | libbpf.BPF_F_XDP_DEV_BOUND_ONLY * member.devbound
    )
    numbers = (member.id, member.priority, member.actions, flags, member.array_id)
    names = (member.label, ",".join(member.before), ",".join(member.after))
    return " ".join(map(str, (*numbers, member.name, *names)))


def _parse_member(text: str) -> Member:
    number, priority, actions, flags, array, name, label, before, after = text.split(" ")
    return Member(
        name,
        priority=int(priority),
        actions=int(actions),
        frags=bool(int(flags) & libbpf.BPF_F_XDP_HAS_FRAGS),
        id=int(number),
        array_id=int(array),
        devbound=bool(int(flags) & libbpf.BPF_F_XDP_DEV_BOUND_ONLY),
        label=label,
        before=tuple(filter(None, before.split(","))),
        after=tuple(filter(None, after.split(","))),
    )


def _in_parts(texts: Sequence[str]) -> Iterator[str]:
    """Members' texts, as many in one as fit."""
    part = ""
    for text in texts:
        if part and len(part) + len(text) >= _TEXT:
            yield part
            part = ""
        part += f";{text}" if part else text
    if part:
        yield part


class History:
    """The generations of one interface, in its directory.

    `live` in here is the root that runs: 0 for none, -1 for one that these are not the records of.
    """

    def __init__(self, paths: InterfacePins) -> None:
        self.paths = paths
        self.confirm = f"{paths.directory}/confirm"
        self.back = f"{paths.directory}/back"

    def _path(self, *words: object) -> str:
        return f"{self.paths.directory}/{'-'.join(map(str, words))}"

    def _names(self) -> dict[str, int]:
        """The names of all that is of a generation, with its number."""
        found = ((name, _NAME.fullmatch(name)) for name in self.paths.entries())
        return {name: int(match[1]) for name, match in found if match}

    def recorded(self) -> list[Generation]:
        """The generations whose records are whole, the latest last."""
        found = []
        names = self._names()
        for number in sorted({names[name] for name in names if name.count("-") == 1}):
            parts: list[str] = []
            while f"was-{number}-{len(parts)}" in names:
                parts.append(self._path("was", number, len(parts)))
            with contextlib.suppress(FileNotFoundError):
                members = ";".join(map(os.readlink, parts))
                one = Generation.parse(number, os.readlink(self._path("was", number)), members)
                if one:
                    found.append(one)
        return found

    def generations(self, live: int) -> list[Generation]:
        """The chains before the one that runs, the latest last."""
        found = self.recorded()
        with contextlib.suppress(OSError, ValueError):
            number, root = map(int, os.readlink(self.back).split(" "))
            if root == live:
                found = [one for one in found if one.number < number]  # gone back to
        if found and found[-1].before == live:
            found.pop()  # that change did not come to its flip
        if live > 0:
            return found[-LIMIT:]
        # Nothing runs: all is forgotten, unless it may have to come back.
        last = found[-1] if found and live == 0 else None
        wanted = last and last.after == 0 and (self._keeps(last) or self._noted(last))
        return found[-LIMIT:] if wanted else []

    def _keeps(self, last: Generation) -> bool:
        return last.keeps and any(name.startswith(f"kept-{last.number}-") for name in self._names())

    def _noted(self, last: Generation) -> Pending | None:
        """The record of a confirmation that the change after this generation waits for."""
        with contextlib.suppress(OSError):
            pending = Pending.parse(os.readlink(self.confirm))
            return pending if pending and pending.number == last.number else None
        return None

    def pending(self, live: int) -> Pending | None:
        """What waits for its confirmation."""
        if not os.path.lexists(self.confirm):
            return None
        found = self.generations(live)
        return self._noted(found[-1]) if found and found[-1].after == live else None

    def left_over(self, live: int) -> list[str]:
        """The paths that are of no use (any longer)."""
        names = self._names()
        loose = [path for path in (self.confirm, self.back) if os.path.lexists(path)]
        if not names and not loose:
            return []
        found = self.generations(live)
        last = found[-1] if found else None
        pending = self._noted(last) if last and last.after == live else None
        known = {one.number for one in found}
        keeping = last.number if last and (last.keeps or pending) else 0
        stale = [
            name
            for name, number in names.items()
            if number != keeping and (number not in known or name.startswith("kept-"))
        ]
        loose = [path for path in loose if path != self.confirm or not pending]
        return [*loose, *(self._path(name) for name in stale)]

    # --- under the interface's lock -------------------------------------------------------------

    def record(self, one: Generation) -> None:
        """Record a generation; what makes it count comes last."""
        texts = [_member_text(member) for member in one.chain.members]
        with pin.failing("make a record in", self.paths.bpffs.path):
            for part, text in enumerate(_in_parts(texts)):
                os.symlink(text, self._path("was", one.number, part))
            os.symlink(one.head(), self._path("was", one.number))

    def next_number(self) -> int:
        return max(self._names().values(), default=0) + 1

    def keep(self, number: int, program_id: int) -> None:
        """Keep a program of a generation in the kernel."""
        with (
            libbpf.owned(libbpf.prog_fd(program_id)) as fd,
            pin.failing("pin a program in", self.paths.bpffs.path),
        ):
            libbpf.pin(fd, self._path("kept", number, program_id))

    def note(self, path: str, text: object) -> None:
        """Make one of the other records: `confirm`, or `back`."""
        with pin.failing("make a record in", self.paths.bpffs.path):
            os.symlink(str(text), path)

    def forget(self, number: int) -> None:
        """Remove a generation, what it keeps, and the wait for its confirmation."""
        of_it = [self._path(name) for name, one in self._names().items() if one == number]
        self._remove(lambda: [self.confirm, *of_it])

    def tidy(self, live: int) -> None:
        """Remove what is of no use any longer."""
        self._remove(lambda: self.left_over(live))

    def confirmed(self, live: int) -> None:
        """Nothing goes back any more."""
        self._remove(lambda: [self.confirm])
        self.tidy(live)

    def _remove(self, paths: Callable[[], list[str]]) -> None:
        with pin.failing("remove a record from", self.paths.bpffs.path):
            # What makes the others count goes first, and what makes them not count last.
            for path in sorted(paths(), key=lambda path: (path == self.back, path.count("-"))):
                pin.remove(path)
