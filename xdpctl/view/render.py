"""What people and scripts read: how commands speak, changes and events, the data of programs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..model.chain import ON_END, ON_VACANT, USUAL, Member, Rules, action_names, format_actions
from . import trial

if TYPE_CHECKING:
    from ..change.report import Report, Step
    from ..change.sweep import Event
    from ..errors import XdpctlError
    from ..host.interfaces import Failure
    from ..model.plan import Plan
    from ..model.request import AskedMode
    from ..model.terms import Pending
    from ..trial.trial import Trial


SCHEMA = 1
"""Version of the JSON documents: raised when a field changes its meaning or goes."""


@dataclass
class Style:
    """How a command speaks."""

    json: bool = False
    verbose: int = 0
    quiet: bool = False
    dry_run: bool = False
    plain: bool = False
    """Rows on a terminal too, and of oddities only with -v."""


def error_text(error: XdpctlError, style: Style) -> str:
    """What failed, why, what to do, a line each; with -v all details."""
    lines = [error.what]
    if error.why:
        lines.append("  why: " + error.why.replace("\n", "\n       "))
    if error.hint:
        lines.append(f"  do: {error.hint}")
    if style.verbose and error.details:
        lines.append(error.details)
    return "\n".join(lines)


def failure_text(failure: Failure, style: Style) -> str:
    """The same of one of many interfaces."""
    return f"{failure.interface.name}: {error_text(failure.error, style)}"


def printable(text: str) -> str:
    """A text of somebody else's on one line, with nothing in it that a terminal would obey."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def print_json(document: Mapping[str, Any]) -> None:
    import json

    print(json.dumps({"schema": SCHEMA, **document}, indent=2))


def print_line(document: Mapping[str, Any]) -> None:
    """One of many documents, on a line of its own."""
    import json

    print(json.dumps({"schema": SCHEMA, **document}), flush=True)


# --- programs -----------------------------------------------------------------------------------


def member_data(member: Member) -> dict[str, Any]:
    return {
        "id": member.id or None,
        "name": member.name,
        "label": member.label or None,
        "tag": member.tag or None,
        "priority": member.priority,
        "actions": action_names(member.actions),
        "before": list(member.before),
        "after": list(member.after),
        "frags": member.frags,
        "file": member.source.path if member.source else None,
    }


def pending_data(pending: Pending | None) -> dict[str, Any] | None:
    """A change that waits for its confirmation."""
    return pending and {
        "generation": pending.number,
        "seconds_left": round(max(pending.left, 0), 3),
        "watchdog": pending.pid,
    }


def rules_data(rules: Rules) -> dict[str, Any]:
    return {
        "counted": bool(rules.counted),
        "on_end": _word(ON_END, rules.on_end),
        "on_vacant": _word(ON_VACANT, rules.on_vacant),
    }


def _word(words: Mapping[str, int], verdict: int) -> str:
    return next((word for word, number in words.items() if number == verdict), str(verdict))


def rule_lines(rules: Rules) -> list[str]:
    """The rules of an interface, as far as they are not the usual ones."""
    words = rules_data(rules)
    lines = []
    if rules.on_end != USUAL.on_end:
        lines.append(f"what no program decides ends as {words['on_end']}")
    if rules.on_vacant != USUAL.on_vacant:
        lines.append(f"a slot whose program is gone ends as {words['on_vacant']}")
    if rules.counted:
        lines.append("packets are counted (xdpctl stats)")
    return lines


# --- changes ------------------------------------------------------------------------------------


def alone(mode: AskedMode) -> str:
    """What a program does that is the root itself."""
    where = "is offloaded to the card, where it runs alone" if mode == "hw" else "runs alone"
    return f"{where}, without a dispatcher"


def step_line(step: Step) -> str:
    ids = " ".join(f"{name}={value}" for name, value in step.ids.items())
    return f"step {step.number:<2}  {step.text}  [{ids}]  {step.seconds * 1e3:.2f} ms".replace(
        "  []", ""
    )


def step_printer(shown: bool) -> Callable[[Step], None]:
    """Print each step as it happens, or nothing."""
    return (lambda step: print(step_line(step), flush=True)) if shown else (lambda _step: None)


def plan_data(plan: Plan) -> dict[str, Any]:
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
    bare = plan.kind == "bare"
    for slot, member in enumerate(plan.target.members):
        if bare:
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
    if plan.target.members:
        lines += [f"  {line}" for line in rule_lines(plan.target.rules)]
    return lines


def report_data(command: str, report: Report) -> dict[str, Any]:
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
        "trial": trial.data(tried) if tried else None,
    }


def _tried(report: Report) -> Trial | None:
    """What came of a trial, if the change was only tried."""
    from ..trial.tried import Tried

    return report.trial if isinstance(report, Tried) else None


def tell_removed(paths: Sequence[str]) -> None:
    """That a command has removed what one before it had left."""
    for path in paths:
        print(f"xdpctl: removed what an interrupted command left: {path}", file=sys.stderr)


def change(command: str, report: Report, style: Style) -> None:
    """What a command did, or would do."""
    name = report.plan.interface
    tell_removed(report.removed)
    for slot in report.before.root.slots if report.before.root else ():
        if slot.member is None:
            what = f"ran program {slot.lost}, whose pin is gone" if slot.lost else "was vacant"
            print(
                f"xdpctl: {name}: slot {slot.number} {what}: it is lost and not carried over",
                file=sys.stderr,
            )
        elif slot.orphan and slot.origin:
            print(
                f"xdpctl: {name}: {slot.member.name} (id {slot.member.id}) leaves: its owner's "
                f"link {slot.origin.link_id} is gone",
                file=sys.stderr,
            )
    if report.unsettled:
        print(
            "xdpctl: the change is live, but the old root's pins are still there "
            f"({report.unsettled}); the next command removes them",
            file=sys.stderr,
        )
    if style.json:
        print_json({**report_data(command, report), "dry_run": style.dry_run})
    elif style.dry_run:
        print("\n".join(_plan_lines(report.plan)))
        if tried := _tried(report):
            trial.show(name, tried, whole=style.verbose > 0)
    elif not style.quiet:
        replaced = {}
        for before, after in zip(report.plan.target.members, report.members, strict=True):
            if before.replaces:
                replaced[before.replaces] = after
            elif not before.id:
                print(f"{name}: loaded {after.known_as} (id {after.id})")
                if report.plan.kind == "bare":
                    print(f"{name}: {after.known_as} {alone(report.plan.mode)}")
        for old, new in report.renewed.items():
            print(f"{name}: program {old} is {new} now: a program of another kind of root")
        for member in report.plan.leaving:
            if heir := replaced.get(member.id):
                print(f"{name}: replaced {member.known_as} (id {member.id}) with id {heir.id}")
            else:
                print(f"{name}: unloaded {member.known_as} (id {member.id})")
        for member in report.plan.staying:
            if member.id not in {one.id for one in report.plan.current.members}:
                print(f"{name}: brought back {member.known_as} (id {member.id})")
        for member in report.gone:
            print(f"{name}: {member.known_as} (id {member.id}) is gone and does not come back")
        for line in _changed_lines(report.plan):
            print(f"{name}: {line}")


def _changed_lines(plan: Plan) -> list[str]:
    """What is different about programs that stay, and about the rules."""
    lines = []
    order = [member.id for member in plan.current.members]
    for member in plan.staying:
        if member.id not in order:
            continue  # it comes back from an earlier chain
        before = plan.current.members[order.index(member.id)]
        told = [
            f"{word} {new or 'none'}"
            for word, old, new in (
                ("label", before.label, member.label),
                ("priority", before.priority, member.priority),
                ("goes on at", *map(format_actions, (before.actions, member.actions))),
                ("runs before", *(", ".join(one.before) for one in (before, member))),
                ("runs after", *(", ".join(one.after) for one in (before, member))),
            )
            if old != new
        ]
        if told:
            lines.append(f"{before.known_as} (id {member.id}): {', '.join(told)}")
    kept = [member.id for member in plan.staying if member.id in order]
    if kept != [number for number in order if number in kept]:
        lines.append(f"order: {', '.join(member.known_as for member in plan.staying)}")
    old, new = plan.current.rules, plan.target.rules
    if plan.target.members and new._replace(counted=old.counted) != old:
        words = rules_data(new)
        lines.append(f"on end {words['on_end']}, on vacant {words['on_vacant']}")
    if plan.target.members and new.counted != old.counted:
        lines.append(f"packets are {'' if new.counted else 'not '}counted from now on")
    return lines


def events(command: str, found: Iterable[Event], style: Style) -> None:
    """What was put in order, or would be."""
    if style.json:
        print_json(
            {
                "command": command,
                "events": [event._asdict() for event in found],
                "dry_run": style.dry_run,
            }
        )
        return
    for event in found:
        if not style.quiet or style.dry_run:
            verb = "would have " if style.dry_run else ""
            print(f"{event.where}: {verb}{event.what}: {event.why}")


def event_printer(style: Style) -> Callable[[Event], None]:
    """Print each event as it happens, with --json a document a line."""

    def tell(event: Event) -> None:
        if style.json:
            print_line(event._asdict())
        elif not style.quiet:
            print(f"{event.where}: {event.what}: {event.why}", flush=True)

    return tell
