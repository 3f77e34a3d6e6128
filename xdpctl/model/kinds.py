"""The kinds of root as data: what differs between them for who plans a change, or shows one.

How a root of a kind is built and pinned is in roots/, how one is read in observe/slots.
"""

from __future__ import annotations

from typing import Literal, cast

from ..value import Value
from .chain import Kind


class Traits(Value):
    """What is so of each root of a kind.

    `told` completes "a chain can be run here". One that is `alone` is a program that has the hook
    to itself: it has no chain actions, and nothing stands beside it. On one that is `hooked` each
    member is a program of its own behind a link; else the members' code is in the root. `protocols`
    tells that its record may be one of libxdp's. `holding` is what a process has of a held member.
    `instead` is the kind that is taken if the kernel refuses this one and the choice is free.
    """

    told: str
    alone: bool = False
    hooked: bool = False
    protocols: bool = False
    holding: Literal["link", "array"] | None = None
    instead: Kind | None = None


TRAITS: dict[Kind, Traits] = {
    "ext": Traits(
        told="of EXT programs on a dispatcher",
        hooked=True,
        protocols=True,
        holding="link",
        instead="fused",
    ),
    "fused": Traits(told="in a fused root", holding="array"),
    "bare": Traits(told="of one program that has the hook to itself", alone=True),
}

FIRST: Kind = "ext"
"""The kind that is taken if the choice is free."""
OFFLOADED: Kind = "bare"
"""The kind of what a card takes: one plain program."""

AskedKind = Kind | Literal["auto"]
"""`auto` takes EXT programs where the kernel allows them."""

CHOICES = (
    *(kind for kind, one in TRAITS.items() if not one.alone),
    *cast(tuple[AskedKind, ...], ("auto",)),
)
"""What a user may ask of the root of a chain."""
