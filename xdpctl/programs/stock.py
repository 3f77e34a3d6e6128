"""Programs loaded ahead: several copies of one, for interfaces that a command comes to later.

Each load runs in a child process (loading.py), which costs more than what it does there.
Interfaces that are changed together each want programs and maps of their own of the same files, so
the second one has a child load copies for those that follow. They are attached and pinned nowhere:
the kernel drops what is not taken.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from ..model.source import Source
from . import loading
from .loading import Loaded

MOST = 32
"""Copies that one child loads: each is a descriptor here until it is taken."""


class _Wanted(NamedTuple):
    """What is loaded in the same way. An EXT program is for a `function` of a root of a `shape`."""

    source: Source
    frags: bool
    function: str
    shape: tuple[object, ...]


@dataclass
class Stock:
    """Copies for the interfaces that are `coming`, 0 if nobody knows. It has to be closed."""

    coming: int = 0
    _plain: list[_Wanted] = field(default_factory=list)
    """What was loaded once, and changed and needs nothing but itself."""
    copies: list[tuple[_Wanted, Loaded]] = field(default_factory=list)

    def load(
        self,
        source: Source,
        frags: bool,
        target: tuple[int, str] | None = None,
        shape: tuple[object, ...] = (),
    ) -> Loaded:
        """loading.load(), or a copy that it made before for a root of the same `shape`.

        An EXT program may be hooked onto another root than it was loaded for: Linux kernel commit
        4a1e7c0c63e0 "bpf: Support attaching freplace programs to multiple attach points" (v5.10).
        """
        wanted = _Wanted(source, frags, target[1] if target else "", shape)
        for number, (made, found) in enumerate(self.copies):
            if made == wanted:
                del self.copies[number]
                return found
        if source.image or not self.coming or wanted not in self._plain:
            found = loading.load(source, frags, target)
            if found.is_plain:
                self._plain.append(wanted)
            return found
        found, *more = loading.copies(source, frags, target, 1 + min(self.coming, MOST - 1))
        self.copies += [(wanted, one) for one in more]
        return found

    def close(self) -> None:
        """Let go of what nobody has taken."""
        for _wanted, one in self.copies:
            one.close()
        self.copies.clear()
