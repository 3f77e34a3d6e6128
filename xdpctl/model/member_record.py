"""Members as the records of chains have them, and what is too long for one."""

from __future__ import annotations

from collections.abc import Iterable

from ..errors import UsageError
from ..kernel import uapi
from .chain import Member
from .labels import TEXT, in_range, size


def member_text(member: Member) -> str:
    """The text of a member's record."""
    flags = (
        uapi.BPF_F_XDP_HAS_FRAGS * member.frags | uapi.BPF_F_XDP_DEV_BOUND_ONLY * member.devbound
    )
    numbers = (member.id, member.priority, member.actions, flags, member.array_id)
    names = (member.label, ",".join(member.before), ",".join(member.after))
    # Earlier versions read nine words: one more is written only if there is something to say.
    image = (member.image,) if member.image else ()
    return " ".join(map(str, (*numbers, member.name, *names, *image)))


_NUMBERS = 2 * 10
"""Digits of the ids that a member gets when it is loaded."""


def check_records(members: Iterable[Member]) -> None:
    """Raise UsageError for a member of which a record would be too long, before it is loaded.

    A chain is recorded when it is changed: what could not be recorded could not be changed again.
    """
    for member in members:
        if size(member_text(member)) + _NUMBERS > TEXT:
            names = len(member.before) + len(member.after)
            raise UsageError(
                f"{member.known_as[:64]} has names that are too long together",
                why=f"its own, its label and the {names} that it runs before and after have to fit "
                f"a record of {TEXT} bytes",
                hint="name fewer programs with --before and --after, or give them shorter labels",
            )
        path = member.source.pin_path if member.source else None
        if path is not None and size(path) + _NAME_MAX + _NUMBERS > TEXT:
            raise UsageError(
                f"the path for maps of {member.known_as} is too long",
                why=f"with a map's name it has to fit a record of {TEXT} bytes",
                hint="choose a directory with a shorter path",
            )


_NAME_MAX = 255


def parse_member(text: str) -> Member:
    """The member of a record. Raises ValueError."""
    number, priority, actions, flags, array, name, label, before, after, *more = text.split(" ")
    (image,) = more or [""]
    return Member(
        name,
        priority=in_range(priority),
        actions=in_range(actions),
        frags=bool(in_range(flags) & uapi.BPF_F_XDP_HAS_FRAGS),
        id=in_range(number),
        array_id=in_range(array),
        devbound=bool(in_range(flags) & uapi.BPF_F_XDP_DEV_BOUND_ONLY),
        label=label,
        before=tuple(filter(None, before.split(","))),
        after=tuple(filter(None, after.split(","))),
        image=image,
    )
