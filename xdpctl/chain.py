"""The chain: which programs an interface runs, in which order, and when one hands on to the next.

Pure data. A chain says nothing of roots, links or pins; those are how the kernel is made to run it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from .errors import NotFoundError, UsageError

Kind = Literal["ext", "fused"]
"""What a root makes of the members: EXT programs on a dispatcher, or functions of one program."""

DEFAULT_PRIORITY = 50
MAX_PRIORITY = 2**32 - 1

ACTIONS = ("XDP_ABORTED", "XDP_DROP", "XDP_PASS", "XDP_TX", "XDP_REDIRECT")
"""The verdicts of <linux/bpf.h>, each at the place of its number."""

XDP_PASS = 2
DEFAULT_ACTIONS = 1 << XDP_PASS
VACANT = 31
"""What a slot answers that no program replaces: libxdp's XDP_DISPATCHER_RETVAL."""


def parse_actions(text: str) -> int:
    """The mask of a list such as ``XDP_PASS,drop``; ``none`` is the empty one.

    Raises UsageError for a name that is no XDP action.
    """
    if text.strip().lower() == "none":
        return 0
    mask = 0
    for word in text.split(","):
        name = word.strip().upper()
        name = name if name.startswith("XDP_") else f"XDP_{name}"
        if name not in ACTIONS:
            raise UsageError(
                f"unknown chain action {word.strip()!r}",
                hint=f"use some of {', '.join(ACTIONS)}, with or without XDP_, or none",
            )
        mask |= 1 << ACTIONS.index(name)
    return mask


def action_names(mask: int) -> list[str]:
    """The names of a mask's bits; a bit without a name shows as its number."""
    return [
        ACTIONS[bit] if bit < len(ACTIONS) else str(bit)
        for bit in range(32)
        if mask >> bit & 1 and bit != VACANT
    ]


def format_actions(mask: int) -> str:
    """A mask as xdp-loader writes it: ``XDP_PASS,XDP_TX``, or ``none``."""
    return ",".join(action_names(mask)) or "none"


class Source(NamedTuple):
    """An object file's bytes and the program in it that a new member is loaded from.

    `maps_of` is the id of a program whose maps it shares, 0 for none, and whose code it has to have
    unless it is `forced`.
    """

    path: str
    data: bytes
    program: str
    pin_path: str | None = None
    maps_of: int = 0
    forced: bool = False


@dataclass(frozen=True)
class Member:
    """A program of the chain. A new one has a source and no id yet.

    `actions` is a mask: bit n set means that the next program runs after return code n. `size` is
    in bytes, `load_time` in ns since boot; both serve the order alone. A `held` one belongs to the
    process that loads it and goes with that: its link is not pinned, or on a fused root it is
    called through a program array (`array_id`). A `devbound` one was loaded for its device alone.
    """

    name: str
    priority: int = DEFAULT_PRIORITY
    actions: int = DEFAULT_ACTIONS
    frags: bool = False
    id: int = 0
    tag: str = ""
    size: int = 0
    load_time: int = 0
    source: Source | None = None
    held: bool = False
    array_id: int = 0
    devbound: bool = False

    @property
    def order(self) -> tuple[int, str, bool, int, str, int]:
        """libxdp's order: priority, name, loaded before new, size of new ones, tag, load time."""
        size = 0 if self.id else self.size
        return (self.priority, self.name, not self.id, size, self.tag, self.load_time)


def takes_entry(members: Sequence[Member]) -> bool:
    """Whether a chain's only program can take the root's own place: no dispatch at all.

    Its return value is then the verdict; that is what the chain means if nothing but XDP_PASS
    hands on, since past the last slot the verdict is XDP_PASS.
    """
    return len(members) == 1 and members[0].actions & ~(1 << XDP_PASS) == 0


@dataclass(frozen=True)
class Chain:
    """Members in the order in which they run."""

    members: tuple[Member, ...] = ()

    def with_added(self, new: Iterable[Member]) -> Chain:
        """The chain with new members in their places."""
        return Chain(tuple(sorted((*self.members, *new), key=lambda member: member.order)))

    def without(self, ids: Iterable[int] = (), names: Iterable[str] = ()) -> Chain:
        """The chain without the members named by id or by name.

        Raises NotFoundError for one that is not there and UsageError for a name that several have.
        """
        leaving = set()
        for number in ids:
            if not any(member.id == number for member in self.members):
                raise NotFoundError(
                    f"no program with id {number} in the chain", hint="see xdpctl status"
                )
            leaving.add(number)
        for name in names:
            named = [member.id for member in self.members if member.name == name]
            if not named:
                raise NotFoundError(
                    f"no program named {name} in the chain", hint="see xdpctl status"
                )
            if len(named) > 1:
                raise UsageError(
                    f"{len(named)} programs of the chain are named {name}",
                    hint=f"name one by id: {' or '.join(f'-i {number}' for number in named)}",
                )
            leaving.add(named[0])
        return Chain(tuple(member for member in self.members if member.id not in leaving))
