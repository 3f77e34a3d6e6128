"""What a user should know of a change beside what it did: places, and what will surprise."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ..errors import errno_name, listed
from ..model.chain import Member
from ..model.kinds import TRAITS

if TYPE_CHECKING:
    from ..change.report import Report

_ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth")
_SHARERS = 3
"""How many programs are named that share a map."""
_COUNTS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def place(members: Sequence[Member], slot: int) -> str:
    """Where a member runs: ``second of three, before drop``; "" where it is alone."""
    count = len(members)
    if count < 2:
        return ""
    if count > len(_COUNTS):
        told = f"slot {slot}, {slot + 1} of {count}"
    else:
        told = f"{_ORDINALS[slot]} of {_COUNTS[count - 1]}"
    if slot + 1 < count:
        return f"{told}, before {members[slot + 1].known_as}"
    return f"{told}, after {members[slot - 1].known_as}"


def remarks(report: Report) -> Iterator[str]:
    """What the plan does not show: why a root is fused, code that runs twice, and so on."""
    plan, members = report.plan, report.members
    yield from _shared(report)
    if report.unshared:
        yield f"has a root of its own: {report.unshared}"
    if TRAITS[plan.kind].alone:
        return
    old = report.before.root
    if plan.why and (old is None or old.kind != plan.kind):
        yield (
            f"the root is fused, because EXT programs are refused here ({errno_name(plan.why)}): "
            "see xdpctl doctor"
        )
    ran = {member.id: member for member in plan.current.members}
    yield from _twice(report)
    for slot, member in enumerate(members[:-1]):
        if not member.handed_on(plan.target.rules._replace(on_vacant=0)):
            behind = members[slot + 1 :]
            before = ran.get(member.id)
            if any(one.id not in ran for one in (member, *behind)) or (
                before and before.actions != member.actions
            ):
                names = ", ".join(one.known_as for one in behind)
                yield f"{member.known_as} hands on no packet: {names} behind it will see none"
            break
    usual = sorted(members, key=lambda member: member.order)
    for slot, member in enumerate(members):
        before = ran.get(member.id)
        if before and before.priority != member.priority and usual[slot] != member:
            yield (
                f"the priority of {member.known_as} has no effect: --before and --after decide its "
                f"place (xdpctl set {plan.interface} {member.known_as} --anywhere ends that)"
            )


def _shared(report: Report) -> Iterator[str]:
    """Maps that new programs found pinned and that programs of other interfaces use."""
    called = {member.id: member.known_as for member in report.members}
    sharing = dict[tuple[int, str, str], list[str]]()
    for one in report.shared:
        key = (one.program, one.name, one.pin)
        sharing.setdefault(key, []).append(f"{one.other_name} on {one.interface}")
    for (program, name, path), others in sharing.items():
        yield (
            f"map {name} of {called[program]} is shared with {listed(others, _SHARERS)} "
            f"(pinned at {path})"
        )


def _twice(report: Report) -> Iterator[str]:
    """Programs that came although the same code runs already."""
    staying = {member.tag: member for member in report.plan.staying if member.tag}
    for before, after in zip(report.plan.target.members, report.members, strict=True):
        if not before.id and not before.replaces and (same := staying.get(after.tag)):
            yield (
                f"{after.known_as} (id {after.id}) is the same code as {same.known_as} "
                f"(id {same.id}), which runs as well: xdpctl replace would take its place"
            )
