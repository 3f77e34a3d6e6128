"""The chain: which programs an interface runs, in which order, and when one hands on to the next.

Pure data. A chain says nothing of roots, links or pins; those are how the kernel is made to run it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, NamedTuple, TypedDict, Unpack

from ..errors import NotFoundError, UsageError, meant, there
from ..value import Value

if TYPE_CHECKING:
    from .source import MapsAsked, Source

Kind = Literal["ext", "fused", "bare"]
"""What a root makes of the members: EXT programs on a dispatcher, functions of one program, or
nothing, as the only one is the root itself."""

DEFAULT_PRIORITY = 50
MAX_PRIORITY = 2**32 - 1

ACTIONS = ("XDP_ABORTED", "XDP_DROP", "XDP_PASS", "XDP_TX", "XDP_REDIRECT")
"""The verdicts of <linux/bpf.h>, each at the place of its number."""

XDP_ABORTED, XDP_DROP, XDP_PASS = 0, 1, 2
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
                hint=f"{meant(name, ACTIONS)} use some of {', '.join(ACTIONS)}, with or without "
                "XDP_, or none".lstrip(),
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


def verdict_name(code: int) -> str:
    return ACTIONS[code] if code < len(ACTIONS) else str(code)


def format_actions(mask: int) -> str:
    """A mask as xdp-loader writes it: ``XDP_PASS,XDP_TX``, or ``none``."""
    return ",".join(action_names(mask)) or "none"


class Rules(NamedTuple):
    """What an interface answers where no program does, as verdicts; and whether it counts.

    `on_end` is the verdict past the last slot. `on_vacant` is that of a slot whose program is gone:
    XDP_PASS runs the next one, XDP_DROP drops the packet. `counted` is 1 if each program's packets
    are counted, else 0.
    """

    on_end: int = XDP_PASS
    on_vacant: int = XDP_PASS
    counted: int = 0


USUAL = Rules()

ON_END = {"pass": XDP_PASS, "drop": XDP_DROP, "aborted": XDP_ABORTED}
ON_VACANT = {"pass": XDP_PASS, "drop": XDP_DROP}

_LABEL = r"[A-Za-z0-9_.:-]{1,64}"


def check_label(text: str) -> str:
    """A label, which a program may be called by. Raises UsageError for what cannot be one."""
    if re.fullmatch(_LABEL, text) and not text.isdecimal() and text.strip("-"):
        return text
    raise UsageError(
        f"{text!r} cannot be a label",
        why="it has to be 1 to 64 letters, digits and _ . : -, and not a number",
    )


class Standing(TypedDict, total=False):
    """How a member stands in a chain: fields of it that are to be others."""

    priority: int
    actions: int
    before: tuple[str, ...]
    after: tuple[str, ...]
    label: str


class Member(Value):
    """A program of the chain. A new one has a source and no id yet.

    `actions` is a mask: bit n set means that the next program runs after return code n. `size` is
    in bytes, `load_time` in ns since boot; both serve the order alone. A `held` one belongs to the
    process that loads it and goes with that: its link is not pinned, or on a fused root it is
    called through a program array (`array_id`). A `devbound` one asks the device about packets, and
    is bound to it.

    A `label` is what its user calls it. It runs `before` and `after` others of the chain, named by
    label or name, whatever the priorities are. A new one that takes the place of another `replaces`
    that one's id. The `image` that it was loaded from is in a registry, with its digest.
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
    label: str = ""
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    replaces: int = 0
    image: str = ""

    @property
    def known_as(self) -> str:
        """Its label, else its name."""
        return self.label or self.name

    def instead_of(self, old: Member, maps: MapsAsked) -> Member:
        """A new one that is to take an old one's place, with the maps that are asked for."""
        assert self.source is not None
        source = replace(
            self.source,
            maps_of=old.id if maps.keeps else 0,
            forced=True,
            replaces=True,
            maps=maps.single,
        )
        return replace(self, source=source, replaces=old.id)

    def handed_on(self, rules: Rules) -> int:
        """The return codes that run the next slot: a bit each, that of a vacant slot included."""
        return self.actions & ~(1 << VACANT) | (rules.on_vacant == XDP_PASS) << VACANT

    @property
    def order(self) -> tuple[int, str, bool, int, str, int]:
        """libxdp's order: priority, name, loaded before new, size of new ones, tag, load time."""
        size = 0 if self.id else self.size
        return (self.priority, self.known_as, not self.id, size, self.tag, self.load_time)


def verdict_of(code: int, actions: int, rules: Rules = USUAL) -> int | None:
    """The verdict that a slot's return code is; None where the next program runs."""
    if code == VACANT:
        return None if rules.on_vacant == XDP_PASS else rules.on_vacant
    return None if code < 32 and actions >> code & 1 else code


def takes_entry(members: Sequence[Member], rules: Rules = USUAL) -> bool:
    """Whether a chain's only program can take the root's own place: no dispatch at all.

    Its return value is then the verdict; that is what the chain means if nothing but XDP_PASS
    hands on, since past the last slot the verdict is XDP_PASS.
    """
    plain = rules._replace(counted=0) == USUAL
    return plain and len(members) == 1 and members[0].actions & ~(1 << XDP_PASS) == 0


class Chain(Value):
    """Members in the order in which they run, and the interface's rules.

    A chain without members that is `kept` has a root all the same, on which every packet comes to
    its end at once. With members there is nothing to keep.
    """

    members: tuple[Member, ...] = ()
    rules: Rules = USUAL
    kept: bool = False

    @property
    def has_root(self) -> bool:
        """Whether an interface that runs the chain has a root."""
        return self.kept or bool(self.members)

    def if_empty(self, *, kept: bool) -> Chain:
        """The chain, with a root without members or without one if it has none."""
        return replace(self, kept=kept and not self.members)

    def with_added(self, new: Iterable[Member]) -> Chain:
        """The chain with new members in their places. Raises UsageError: see `arranged`."""
        added = replace(self, members=arranged((*self.members, *new)))
        return added.if_empty(kept=self.kept)

    def with_changed(self, program_id: int, **values: Unpack[Standing]) -> Chain:
        """The chain with other values for a member, which may move it.

        Raises UsageError: see `arranged`.
        """
        changed = (
            replace(member, **values) if member.id == program_id else member
            for member in self.members
        )
        return replace(self, members=arranged(changed))

    def with_replaced(self, old: Member, new: Member) -> Chain:
        """The chain with a new member in an old one's place, called and ordered as that was."""
        label = old.label or (old.name if old.name != new.name else "")
        heir = replace(
            new,
            priority=old.priority,
            label=label,
            before=old.before,
            after=old.after,
            replaces=old.id,
        )
        members = tuple(heir if member.id == old.id else member for member in self.members)
        return replace(self, members=members)

    def find(self, word: str) -> Member:
        """The member that a user means by an id, a label or a name.

        Raises NotFoundError for one that is not there and UsageError for a name that several have.
        """
        if word.isascii() and word.isdecimal():
            for member in self.members:
                if str(member.id) == word.lstrip("0"):
                    return member
            raise NotFoundError(f"no program with id {word} in the chain", hint=self._choices(word))
        labelled = [member for member in self.members if member.label == word]
        called = labelled or [member for member in self.members if member.known_as == word]
        named = called or [member for member in self.members if member.name == word]
        if not named:
            raise NotFoundError(f"no program named {word} in the chain", hint=self._choices(word))
        if len(named) > 1:
            raise UsageError(
                f"{len(named)} programs of the chain are named {word}",
                hint=f"name one by id: {' or '.join(str(member.id) for member in named)}",
            )
        return named[0]

    def _choices(self, word: str) -> str:
        likely = meant(word, (name for one in self.members for name in (one.known_as, one.name)))
        if not self.members:
            return "the chain is empty"
        known = there(f"{one.known_as} (id {one.id})" for one in self.members)
        return f"{likely} {known}".lstrip()

    def check_asked(self, member: Member, label: str, beside: Iterable[str]) -> None:
        """Raise for a label that another member has, and for nobody to run before or after.

        NotFoundError for a name that no program has, UsageError for one that several have, and for
        a program that is to run before or after itself.
        """
        for name in beside:
            if self.find(name) is member:
                raise UsageError(f"{name} cannot run before or after itself")
        for other in self.members:
            if label and other is not member and label in (other.label, other.name):
                raise UsageError(
                    f"another program is called {label}",
                    why=f"it is the one with id {other.id}" if other.id else "it is a new one, too",
                )

    def without(self, words: Iterable[str | int]) -> Chain:
        """The chain without members, each named as `find` takes it, which raises.

        The root goes with the last one.
        """
        leaving = {self.find(str(word)).id for word in words}
        return replace(
            self, members=tuple(member for member in self.members if member.id not in leaving)
        )


def arranged(members: Iterable[Member]) -> tuple[Member, ...]:
    """Members in libxdp's order, each that has to run before or after others moved to there.

    Raises UsageError where that cannot be.
    """
    found = sorted(members, key=lambda member: member.order)
    for _round in range(len(found) + 1):
        moved = False
        for member in list(found):
            here = next(n for n, one in enumerate(found) if one is member)  # others may be equal
            first = [n for n, one in enumerate(found) if _is_meant(one, member, member.before)]
            last = [n for n, one in enumerate(found) if _is_meant(one, member, member.after)]
            if first and min(first) < here:
                found.insert(min(first), found.pop(here))
                moved = True
            elif last and max(last) > here:
                found.insert(max(last), found.pop(here))
                moved = True
        if not moved:
            return tuple(found)
    asked = [
        f"{member.known_as} {word} {', '.join(names)}"
        for member in sorted(found, key=lambda member: member.order)
        for word, names in (("before", member.before), ("after", member.after))
        if names
    ]
    raise UsageError(
        "the programs cannot be put in such an order",
        why="; ".join(asked),
        hint="xdpctl set INTERFACE PROGRAM --anywhere lets go of what was asked for one",
    )


def _is_meant(other: Member, member: Member, names: Sequence[str]) -> bool:
    return other is not member and (other.known_as in names or other.name in names)
