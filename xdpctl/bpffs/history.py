"""Chains that an interface ran before: records in its directory, and what they keep (directory.py).

A *generation* is the chain that a change replaced. It is recorded before the flip, whole before it
counts, and says which root it was on and which one took its place. So the root that runs tells
whether the change came to its flip. Programs that left are kept in the kernel by pins where that
was asked for: with a confirmation until it comes, else until the next change.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ..errors import NotFoundError
from ..kernel import libbpf
from ..model.chain import Member
from ..model.labels import TEXT, size
from ..model.state import Live, State
from ..model.terms import Pending
from . import homes, pin
from .directory import InterfacePins
from .mount import Bpffs

if TYPE_CHECKING:
    from ..model.generation import Generation, WentBack


LIMIT = 8
"""How many generations are remembered."""

_NAME = r"(?:was|kept)-(\d+)(?:-(\d+))?"
_WENT = r"went-(\d+)"


def _in_parts(texts: Sequence[str]) -> Iterator[str]:
    """Members' texts, as many in one as fit."""
    part = ""
    for text in texts:
        if part and size(part) + size(text) >= TEXT:
            yield part
            part = ""
        part += f";{text}" if part else text
    if part:
        yield part


def _fitting(member: Member) -> str:
    """A member's text, without the names that it asks for where earlier versions took too many."""
    from ..model.member_record import member_text

    text = member_text(member)
    return text if size(text) <= TEXT else member_text(replace(member, before=(), after=()))


def _of_root(record: str) -> tuple[str, str]:
    """The root that a record of going back is for, and what it says."""
    number, _blank, rest = record.partition(" ")
    root, blank, rest = rest.partition(" ")
    return root, number + blank + rest


def is_there(program_id: int) -> bool:
    """Whether the kernel still has a program."""
    from ..kernel.program import Program

    with libbpf.absent_is_fine(), Program.by_id(program_id):
        return True
    return False


class History:
    """The generations of one interface, in its directory. `live` in here is the root that runs."""

    def __init__(self, paths: InterfacePins) -> None:
        self.paths = paths
        self.confirm = f"{paths.directory}/confirm"
        self.back = f"{paths.directory}/back"

    def _path(self, *words: object) -> str:
        return f"{self.paths.directory}/{'-'.join(map(str, words))}"

    def _names(self) -> dict[str, int]:
        """The names of all that is of a generation, with its number."""
        found = ((name, re.fullmatch(_NAME, name)) for name in self.paths.entries())
        return {name: int(match[1]) for name, match in found if match}

    def recorded(self) -> list[Generation]:
        """The generations whose records are whole, the latest last."""
        found: list[Generation] = []
        names = self._names()
        if not names:
            return found
        from ..model.generation import Generation

        for number in sorted({names[name] for name in names if name.count("-") == 1}):
            parts: list[str] = []
            while f"was-{number}-{len(parts)}" in names:
                parts.append(self._path("was", number, len(parts)))
            with contextlib.suppress(OSError):  # gone, or something else stands in its place
                members = ";".join(map(os.readlink, parts))
                one = Generation.parse(number, os.readlink(self._path("was", number)), members)
                if one:
                    found.append(one)
        return found

    def generations(self, live: Live) -> list[Generation]:
        """The chains before the one that runs, the latest last."""
        found = self.recorded()
        if back := self._back(live):
            number = int(back.partition(" ")[0])
            found = [one for one in found if one.number < number]  # gone back to
        if found and found[-1].before == live:
            found.pop()  # that change did not come to its flip
        if isinstance(live, int):
            return found[-LIMIT:]
        # Nothing runs: all is forgotten, unless it may have to come back.
        last = found[-1] if found and live is None else None
        wanted = last and last.after is None and (self._keeps(last) or self._noted(last))
        return found[-LIMIT:] if wanted else []

    def _back(self, live: Live) -> str:
        """What `back` says of the root that runs: the generation, and why it went back; or ""."""
        with contextlib.suppress(OSError, ValueError):
            root, text = _of_root(os.readlink(self.back))
            if (int(root) or None) == live and int(text.partition(" ")[0]) >= 0:
                return text
        return ""

    def went_back(self, live: Live) -> list[WentBack]:
        """The changes that went back, the latest last."""
        paths = [path for _number, path in self._went()] if isinstance(live, int) else []
        records = [pin.text(path) or "" for path in paths]
        texts = [*(_of_root(record)[1] for record in records), self._back(live)]
        if not any(texts):
            return []
        from ..model.generation import WentBack

        return [one for one in map(WentBack.parse, texts) if one]

    def _went(self) -> list[tuple[int, str]]:
        """The paths of records of changes that went back, by number."""
        found = ((name, re.fullmatch(_WENT, name)) for name in self.paths.entries())
        return sorted((int(match[1]), self._path(name)) for name, match in found if match)

    def _keeps(self, last: Generation) -> bool:
        return last.keeps and any(name.startswith(f"kept-{last.number}-") for name in self._names())

    def _noted(self, last: Generation) -> Pending | None:
        """The record of a confirmation that the change after this generation waits for."""
        with contextlib.suppress(OSError):
            pending = Pending.parse(os.readlink(self.confirm))
            return pending if pending and pending.number == last.number else None
        return None

    def pending(self, live: Live) -> Pending | None:
        """What waits for its confirmation."""
        if not os.path.lexists(self.confirm):
            return None
        found = self.generations(live)
        return self._noted(found[-1]) if found and found[-1].after == live else None

    def left_over(self, live: Live) -> list[str]:
        """The paths that are of no use (any longer)."""
        names = self._names()
        loose = [path for path in (self.confirm, self.back) if os.path.lexists(path)]
        went = [path for _number, path in self._went()]
        loose += went[:-LIMIT] if isinstance(live, int) else went
        if not names and not loose:
            return []
        found = self.generations(live)
        last = found[-1] if found else None
        pending = self._noted(last) if last and last.after == live else None
        known = {one.number for one in found}
        keeping = last.number if last and (last.keeps or pending) else None
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
        texts = [_fitting(member) for member in one.chain.members]
        with pin.failing("make a record in", self.paths.bpffs.path):
            for part, text in enumerate(_in_parts(texts)):
                os.symlink(text, self._path("was", one.number, part))
            os.symlink(one.head(), self._path("was", one.number))

    def next_number(self) -> int:
        return max(self._names().values(), default=0) + 1

    def keep(self, number: int, program_id: int) -> None:
        """Keep a program of a generation in the kernel."""
        from ..kernel.program import Program

        with (
            Program.by_id(program_id) as program,
            pin.failing("pin a program in", self.paths.bpffs.path),
        ):
            program.pin(self._path("kept", number, program_id))

    def note(self, path: str, text: object) -> None:
        """Make one of the other records: `confirm`, or `back`."""
        with pin.failing("make a record in", self.paths.bpffs.path):
            os.symlink(str(text), path)

    def forget(self, number: int) -> None:
        """Remove a generation, what it keeps, and the wait for its confirmation."""
        of_it = [self._path(name) for name, one in self._names().items() if one == number]
        self._remove(lambda: [self.confirm, *of_it])

    def tidy(self, live: Live) -> None:
        """Remove what is of no use any longer, and give what went back its place in the history."""
        if isinstance(live, int) and " " in self._back(live):
            went = self._went()
            loose = {*self.left_over(live), *(path for _number, path in went[: 1 - LIMIT])}
            self._remove(lambda: [*(loose - {self.back})])
            with pin.failing("make a record in", self.paths.bpffs.path):
                os.rename(self.back, self._path("went", went[-1][0] + 1 if went else 1))
        self._remove(lambda: self.left_over(live))

    def confirmed(self, live: Live) -> None:
        """Nothing goes back any more."""
        self._remove(lambda: [self.confirm])
        self.tidy(live)

    def _remove(self, paths: Callable[[], list[str]]) -> None:
        with pin.failing("remove a record from", self.paths.bpffs.path):
            # What makes the others count goes first, and what makes them not count last.
            for path in sorted(paths(), key=lambda path: (path == self.back, path.count("-"))):
                pin.remove(path)


def generations(bpffs: Bpffs, state: State) -> list[Generation]:
    """The chains that an interface ran before, the latest last."""
    home = homes.at(bpffs, state.home)
    return History(home).generations(state.live(home.directory))


def past(bpffs: Bpffs, state: State) -> tuple[list[Generation], list[WentBack]]:
    """The chains that an interface ran before, and its changes that went back, the latest last."""
    home = homes.at(bpffs, state.home).listed()
    chains, live = History(home), state.live(home.directory)
    return chains.generations(live), chains.went_back(live)


def find(bpffs: Bpffs, state: State, number: int | None = None) -> Generation:
    """The generation of a number, or the latest. Raises NotFoundError."""
    found = [one for one in generations(bpffs, state) if number in (None, one.number)]
    if not found:
        which = "earlier generation" if number is None else f"generation {number}"
        raise NotFoundError(
            f"no {which} of {state.interface.name} is kept",
            hint=f"see xdpctl history {state.interface.name}",
        )
    return found[-1]
