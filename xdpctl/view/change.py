"""What a change did, or would do: steps, plans and results, for people and scripts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from ..errors import listed
from ..host.text import Json
from ..model.chain import format_actions
from ..model.difference import both_words, changed_words, differences
from ..model.kinds import TRAITS
from .document import member_data, pending_data, rules_data, show_change
from .remarks import place, remarks
from .style import Style, say, tell
from .words import alone, empty_line, rule_lines

_NAMED = 8
"""How many programs of a chain are named in one line."""

if TYPE_CHECKING:
    from ..change.report import Report, Step
    from ..model.plan import Plan
    from ..trial.fates import Trial


def step_line(step: Step) -> str:
    ids = " ".join(f"{name}={value}" for name, value in step.ids.items())
    return f"step {step.number:<2}  {step.text}  [{ids}]  {step.seconds * 1e3:.2f} ms".replace(
        "  []", ""
    )


def step_printer(shown: bool) -> Callable[[Step], None]:
    """Print each step as it happens, or nothing."""
    return (lambda step: say(step_line(step), flush=True)) if shown else (lambda _step: None)


def plan_data(plan: Plan) -> Json:
    return {
        "flip": plan.flip,
        "mode": plan.mode,
        "attach": plan.attach,
        "kind": plan.kind,
        "current": [member_data(member) for member in plan.current.members],
        "target": [member_data(member) for member in plan.target.members],
        "rules": rules_data(plan.target.rules),
    }


def _plan_lines(plan: Plan) -> list[str]:
    verbs = {
        "attach": "attach a new root",
        "update": "flip to a new root",
        "detach": "detach the root",
        "none": "nothing to do",
    }
    lines = [f"{plan.interface}: would {verbs[plan.flip]} ({plan.mode} mode, {plan.kind})"]
    if plan.flip == "none":
        lines = [f"{plan.interface}: {verbs[plan.flip]}"]
    runs_alone = TRAITS[plan.kind].alone
    for slot, member in enumerate(plan.target.members):
        if runs_alone:
            lines.append(f"  {member.known_as} {alone(plan.mode)}")
            continue
        what = f"keep id {member.id}" if member.id else "load"
        if member.replaces:
            what = f"replace id {member.replaces} with"
        lines.append(
            f"  slot {slot}: {what} {member.known_as} "
            f"(priority {member.priority}, goes on at {format_actions(member.actions)})"
        )
    replaced = {member.replaces for member in plan.joining}
    lines += [
        f"  unload id {member.id} {member.known_as}"
        for member in plan.leaving
        if member.id not in replaced
    ]
    if plan.target.kept:
        lines.append(f"  {empty_line(plan.target.rules)}")
    if plan.target.has_root:
        lines += [f"  {line}" for line in rule_lines(plan.target.rules)]
    return lines


def report_data(command: str, report: Report) -> Json:
    tried = _tried(report)
    return {
        "command": command,
        "interface": report.plan.interface,
        "plan": plan_data(report.plan),
        "old_root": report.before.root.id if report.before.root else None,
        "new_root": report.root_id or None,
        "programs": [member_data(member) for member in report.members],
        "steps": [
            {"step": step.number, "text": step.text, **step.ids, "seconds": step.seconds}
            for step in report.steps
        ],
        "removed": list(report.removed),
        "renewed": [{"old": old, "id": new} for old, new in report.renewed.items()],
        "rehooked": [{"pin": path, "link_id": link} for path, link in report.rehooked],
        "unconfirmed": pending_data(report.pending),
        "gone": [member_data(member) for member in report.gone],
        "unsettled": report.unsettled or None,
        "joined": report.joined or None,
        "unshared": report.unshared or None,
        "empty_arrays": [
            {"program": one.program, "array": one.array, "fitting": list(one.fitting)}
            for one in report.empty
        ],
        "shared_maps": [
            {
                "program": one.program,
                "map": one.name,
                "map_id": one.map_id,
                "pin": one.pin,
                "with": {
                    "interface": one.interface,
                    "id": one.other,
                    "name": one.other_name,
                },
            }
            for one in report.shared
        ],
        "trial": _trial_data(tried) if tried else None,
    }


def _trial_data(tried: Trial) -> Json:
    from . import trial

    return trial.data(tried)


def _tried(report: Report) -> Trial | None:
    """What came of a trial, if the change was only tried."""
    from ..trial.tried import Tried

    return report.trial if isinstance(report, Tried) else None


def tell_removed(paths: Sequence[str]) -> None:
    """That a command has removed what was left over."""
    tell(*(f"removed what was left over: {path}" for path in paths))


def change(command: str, report: Report, style: Style) -> None:
    """What a command did, or would do."""
    name = report.plan.interface
    tell_removed(report.removed)
    tell(*(f"{name}: {line}" for line in _lost_lines(report)))
    tell(*(f"{name}: {line}" for line in _empty_lines(report)))
    if report.unsettled:
        tell(
            "the change is live, but the old root's pins are still there "
            f"({report.unsettled}); the next command removes them"
        )
    if style.json:
        show_change(command, report_data(command, report), style)
    elif style.checks:
        say(f"{name}: {_difference(report.plan)}")
    elif style.dry_run:
        say(*_plan_lines(report.plan))
        if tried := _tried(report):
            from . import trial

            trial.show(name, tried, whole=style.verbose > 0)
    elif not style.quiet:
        done = list(_done_lines(command, report))
        if not done and command != "swap-dispatcher":
            done = ["nothing changed"]
        say(*(f"{name}: {line}" for line in done))
    if not (style.json or style.quiet) and report.root_id:
        tell(*(f"{name}: {line}" for line in remarks(report)))


def _difference(plan: Plan) -> str:
    """What is between the chain that runs and the one that is wanted."""
    if plan.flip == "none":
        return "as the file says"
    found = differences(plan.current, plan.target, both_words)
    return "; ".join(found) or f"the same programs, on a new root ({plan.kind})"


def _lost_lines(report: Report) -> Iterator[str]:
    """What the chain had lost before the change."""
    for slot in report.before.root.slots if report.before.root else ():
        if slot.member is None:
            what = f"ran program {slot.lost}, whose pin is gone" if slot.lost else "was vacant"
            yield f"slot {slot.number} {what}: it is lost and not carried over"
        elif slot.orphan and slot.origin:
            yield (
                f"{slot.member.name} (id {slot.member.id}) leaves: its owner's "
                f"link {slot.origin.link_id} is gone"
            )


def _empty_lines(report: Report) -> Iterator[str]:
    """Which program arrays have nothing in them, and what could be done about it."""
    called = {member.id: member.known_as for member in report.members}
    for one in report.empty:
        told = f"the program array {one.array} of {called[one.program]} (id {one.program}) is empty"
        if one.fitting:
            yield (
                f"{told}: {', '.join(one.fitting)} of the same object can go there "
                f"(--tail {one.array}[INDEX]=PROGRAM)"
            )
        else:
            yield f"{told}, and no other program of the object can go there"


def _done_lines(command: str, report: Report) -> Iterator[str]:
    """What was done to each program."""
    plan = report.plan
    joined = _joined_line(report)
    yield from [joined] if joined else _came_lines(command, report)
    for old, new in report.renewed.items():
        yield f"program {old} is {new} now: a program of another kind of root"
    pairs = zip(plan.target.members, report.members, strict=True)
    replaced = {before.replaces: after for before, after in pairs if before.replaces}
    for member in plan.leaving:
        if heir := replaced.get(member.id):
            yield f"replaced {member.known_as} (id {member.id}) with id {heir.id}"
        else:
            yield f"unloaded {member.known_as} (id {member.id})"
    for member in plan.staying if not joined else ():
        if member.id not in {one.id for one in plan.current.members}:
            yield f"brought back {member.known_as} (id {member.id})"
    for member in report.gone:
        yield f"{member.known_as} (id {member.id}) is gone and does not come back"
    yield from _changed_lines(plan)
    if plan.target.kept and not plan.current.kept:
        yield empty_line(plan.target.rules)


def _came_lines(command: str, report: Report) -> Iterator[str]:
    """Which programs came, and where they run."""
    plan = report.plan
    verb = "adopted" if command == "adopt" else "loaded"
    pairs = zip(plan.target.members, report.members, strict=True)
    for slot, (before, after) in enumerate(pairs):
        if before.id or before.replaces:
            continue
        where = place(report.members, slot)
        yield f"{verb} {after.known_as} (id {after.id})" + (f": {where}" if where else "")
        if TRAITS[plan.kind].alone:
            yield f"{after.known_as} {alone(plan.mode)}"


def _joined_line(report: Report) -> str:
    """That an interface runs another one's whole chain, which it has not run before."""
    ran = {one.id for one in report.plan.current.members}
    if not report.joined or any(one.id in ran for one in report.members):
        return ""
    names = listed([f"{one.known_as} (id {one.id})" for one in report.members], _NAMED)
    return f"runs the chain of {report.joined}: {names}"


def _changed_lines(plan: Plan) -> Iterator[str]:
    """What is different about programs that stay, and about the rules."""
    ran = {member.id: member for member in plan.current.members}
    # What else stays comes back from an earlier chain.
    kept = [member for member in plan.staying if member.id in ran]
    for member in kept:
        before = ran[member.id]
        if told := ", ".join(changed_words(before, member)):
            yield f"{before.known_as} (id {member.id}): {told}"
    numbers = [member.id for member in kept]
    if numbers != [number for number in ran if number in numbers]:
        yield f"order: {', '.join(member.known_as for member in plan.staying)}"
    old, new = plan.current.rules, plan.target.rules
    if plan.target.has_root and new._replace(counted=old.counted) != old:
        words = rules_data(new)
        yield f"on end {words['on_end']}, on vacant {words['on_vacant']}"
    if plan.target.has_root and new.counted != old.counted:
        yield f"packets are {'' if new.counted else 'not '}counted from now on"
