"""What one chain has that another has not, in words."""

from __future__ import annotations

from collections.abc import Iterator

from .chain import Chain, Member, Rules, format_actions, verdict_name


def differences(before: Chain, after: Chain) -> list[str]:
    """What turns a chain into another, a phrase each: ``added drop``, ``count: priority 50 to 10``.

    Programs are told apart by their ids. One that left, and another that is known by the same name
    and came, is ``replaced``.
    """
    old = {member.id: member for member in before.members}
    new = {member.id: member for member in after.members}
    came = [member for member in after.members if member.id not in old]
    names = [member.known_as for member in came]
    found = []
    for member in before.members:
        if member.id not in new:
            replaced = member.known_as in names
            found.append(f"{'replaced' if replaced else 'removed'} {member.known_as}")
            if replaced:
                names.remove(member.known_as)
    found += [f"added {name}" for name in names]
    stay = [number for number in old if number in new]
    if stay != (order := [number for number in new if number in old]):
        found.append("order: " + ", ".join(new[number].known_as for number in order))
    for number in order:
        found += (f"{new[number].known_as}: {text}" for text in _changed(old[number], new[number]))
    return [*found, *_rules(before.rules, after.rules)]


def _changed(before: Member, after: Member) -> Iterator[str]:
    if before.label != after.label:
        yield f"name {before.known_as} to {after.known_as}"
    if before.priority != after.priority:
        yield f"priority {before.priority} to {after.priority}"
    if before.actions != after.actions:
        yield f"chain actions {format_actions(before.actions)} to {format_actions(after.actions)}"
    for word, old, new in (
        ("before", before.before, after.before),
        ("after", before.after, after.after),
    ):
        if old != new:
            yield f"runs {word} {', '.join(new)}" if new else f"no longer has to run {word} others"


def _rules(before: Rules, after: Rules) -> Iterator[str]:
    if before.on_end != after.on_end:
        yield f"on end {verdict_name(before.on_end)} to {verdict_name(after.on_end)}"
    if before.on_vacant != after.on_vacant:
        yield f"on vacant {verdict_name(before.on_vacant)} to {verdict_name(after.on_vacant)}"
    if before.counted != after.counted:
        yield f"packets are {'counted' if after.counted else 'no longer counted'}"
