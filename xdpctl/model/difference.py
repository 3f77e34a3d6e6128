"""What one chain has that another has not, in words."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from .chain import Chain, Member, Rules, format_actions, verdict_name


def changed_words(before: Member, after: Member) -> Iterator[str]:
    """What is different about a program, a phrase each: ``priority 10``."""
    for word, _old, new in _changed(before, after):
        yield f"{word} {new}"


def both_words(before: Member, after: Member) -> Iterator[str]:
    """The same with what was: ``priority 50 → 10``."""
    for word, old, new in _changed(before, after):
        yield f"{word} {old} → {new}"


def _changed(before: Member, after: Member) -> Iterator[tuple[str, object, object]]:
    """What is different: what it is called, the old and the new one."""
    for word, old, new in (
        ("label", before.label, after.label),
        ("priority", before.priority, after.priority),
        ("goes on at", *map(format_actions, (before.actions, after.actions))),
        ("runs before", *(", ".join(one.before) for one in (before, after))),
        ("runs after", *(", ".join(one.after) for one in (before, after))),
    ):
        if old != new:
            none = 0 if isinstance(new, int) else "none"
            yield word, old or none, new or none


def differences(
    before: Chain,
    after: Chain,
    words_of: Callable[[Member, Member], Iterable[str]] = changed_words,
) -> list[str]:
    """What turns a chain into another, a phrase each: ``added drop``, ``count: priority 10``.

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
        if words := ", ".join(words_of(old[number], new[number])):
            found.append(f"{old[number].known_as}: {words}")
    if after.kept and not before.kept:
        found.append("left an empty root" if before.members else "added an empty root")
    elif before.kept and not after.has_root:
        found.append("removed the empty root")
    return [*found, *_rules(before.rules, after.rules)]


def _rules(before: Rules, after: Rules) -> Iterator[str]:
    if before.on_end != after.on_end:
        yield f"on end {verdict_name(after.on_end)}"
    if before.on_vacant != after.on_vacant:
        yield f"on vacant {verdict_name(after.on_vacant)}"
    if before.counted != after.counted:
        yield f"packets are {'counted' if after.counted else 'no longer counted'}"
