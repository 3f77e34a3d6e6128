"""What people and scripts read: tables, rows, steps, JSON.

rich draws on terminals only, so that scripts do not pay for it; elsewhere the rows are
xdp-loader's, which scripts parse.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .chain import ON_END, ON_VACANT, USUAL, Member, Rules, action_names, format_actions

if TYPE_CHECKING:
    from rich.table import Table

    from .commit import Report, Step
    from .errors import XdpctlError
    from .holders import Holder
    from .observe import Handle, Slot, State
    from .plan import Plan
    from .sweep import Event

    Held = Mapping[Handle, Sequence[Holder]]

SCHEMA = 1
"""Version of the JSON documents: raised when a field changes its meaning or goes."""

NOTHING = "<No XDP program loaded!>"


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


def print_json(document: Mapping[str, Any]) -> None:
    import json

    print(json.dumps({"schema": SCHEMA, **document}, indent=2))


# --- status -------------------------------------------------------------------------------------


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


def rules_data(rules: Rules) -> dict[str, str]:
    return {
        "on_end": _word(ON_END, rules.on_end),
        "on_vacant": _word(ON_VACANT, rules.on_vacant),
    }


def _word(words: Mapping[str, int], verdict: int) -> str:
    return next((word for word, number in words.items() if number == verdict), str(verdict))


def _errno_name(number: int) -> str | None:
    """EPERM for 1; None for 0."""
    import errno

    # 524 is of the kernel alone; 95 has two names.
    names = {**errno.errorcode, 524: "ENOTSUPP", errno.EOPNOTSUPP: "EOPNOTSUPP"}
    return names.get(number, str(number)) if number else None


def state_data(state: State) -> dict[str, Any]:
    """An interface as ``status --json`` gives it."""
    root = state.root
    return {
        "interface": state.interface.name,
        "ifindex": state.interface.ifindex,
        "netns": state.interface.netns,
        "root": root
        and {
            "id": root.id,
            "name": root.name,
            "tag": root.tag,
            "mode": root.mode,
            "owner": root.owner,
            "kind": root.kind if root.config else None,
            "ext_refused": _errno_name(root.config.why) if root.config else None,
            "attach": root.attach,
            "link_id": root.link_id or None,
            "link_pin": root.link_pin,
            "protocol": (root.config.protocol or None) if root.config else None,
            "frags": root.config.frags if root.config else None,
            **rules_data(root.rules),
        },
        "programs": [_slot_data(slot) for slot in root.slots] if root else [],
        "residue": list(state.residue),
    }


def _slot_data(slot: Slot) -> dict[str, Any]:
    return {
        "slot": slot.number,
        "function": slot.function,
        "vacant": slot.member is None and not slot.lost,
        "lost": slot.lost or None,
        **(member_data(slot.member) if slot.member else {}),
        "link_id": slot.link_id or None,
        "pin": slot.pin,
        "array_id": slot.array_id or None,
        "borrowed": slot.origin
        and {
            "link_id": slot.origin.link_id,
            "pid": slot.origin.pid or None,
            "name": slot.origin.name or None,
            "gone": slot.orphan,
        },
    }


def status(states: Sequence[State], style: Style | None = None) -> None:
    """The rows of xdp-loader, or a table on a terminal; then what is not as it should be."""
    style = style or Style()
    if sys.stdout.isatty() and not style.plain:
        from rich.console import Console

        Console().print(_status_table(states))
    else:
        print("CURRENT XDP PROGRAM STATUS:\n")
        _row("Interface", "Prio", "Program name", "Mode", "ID", "Tag", "Chain actions")
        print("-" * 86)
        for state in states:
            for row in _rows(state):
                _row(*row)
        print()
    for state in states if style.verbose or not style.plain else ():
        for remark in remarks(state):
            print(f"xdpctl: {state.interface.name}: {remark}", file=sys.stderr)


def _row(*cells: object) -> None:
    # xdp-loader's columns to the blank: scripts cut them by number, too.
    widths = (16, 6, 16, 8, 4, 17, 0) if cells[0] == " =>" else (16, 5, 17, 8, 4, 17, 0)
    text = " ".join(f"{cell!s:<{width}}" for cell, width in zip(cells, widths, strict=True))
    print(text.rstrip())


def _rows(state: State) -> list[tuple[object, ...]]:
    """An interface's rows: the root, then a row a slot that starts with =>."""
    root = state.root
    if root is None:
        return [(state.interface.name, "", NOTHING, "", "", "", "")]
    rows: list[tuple[object, ...]] = [
        (state.interface.name, "", root.name, root.mode, root.id, root.tag, "")
    ]
    for slot in root.slots:
        member = slot.member
        if member is None:
            what = "lost" if slot.lost else "vacant"
            rows.append((" =>", "-", f"<{what}:prog{slot.number}>", "", "-", "-", "-"))
        else:
            actions = format_actions(member.actions)
            name = member.known_as
            rows.append((" =>", member.priority, name, "", member.id, member.tag, actions))
    return rows


def _status_table(states: Sequence[State]) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD)
    for title, align in (
        ("Interface", "left"),
        ("Prio", "right"),
        ("Program", "left"),
        ("Mode", "left"),
        ("ID", "right"),
        ("Tag", "left"),
        ("Chain actions", "left"),
    ):
        # Folded, not cut: an id or a tag that is cut serves nobody.
        table.add_column(title, justify="right" if align == "right" else "left", overflow="fold")
    for state in states:
        # Names come from programs: text, never markup.
        root, *slots = [[Text(str(cell)) for cell in row] for row in _rows(state)]
        table.add_row(*root, style="bold" if state.root else "dim")
        for cells, slot in zip(slots, state.root.slots if state.root else (), strict=True):
            table.add_row(*cells, style="" if slot.member else "red")
    return table


def remarks(state: State) -> list[str]:
    """What is odd about an interface: vacant slots, unpinned links, foreign roots, residue."""
    found = []
    root = state.root
    if root is not None:
        found += _rule_lines(root.rules)
        how = f"link {root.link_id}" if root.link_id else "netlink"
        if root.owner == "libxdp":
            found.append(f"the dispatcher is not xdpctl's (attached by {how})")
        if root.owner == "other":
            found.append(f"program {root.id} ({root.name}) of another tool owns the hook ({how})")
        if root.kind == "fused" and root.config:
            refused = _errno_name(root.config.why)
            why = f"because EXT programs are refused here ({refused})" if refused else "as asked"
            found.append(f"the root is fused, {why}")
        for slot in root.slots:
            if slot.lost:
                found.append(
                    f"slot {slot.number} runs program {slot.lost}, whose pin is gone: the next "
                    "change leaves it out"
                )
            elif slot.member is None:
                what = "the process that held it" if slot.array_id else "its link"
                found.append(f"slot {slot.number} is vacant: {what} is gone and packets pass it by")
            elif slot.origin and slot.pin:
                found.append(f"{slot.member.name} (id {slot.member.id}) is {borrowed(slot)}")
            elif slot.array_id:
                found.append(
                    f"{slot.member.name} (id {slot.member.id}) belongs to a process: it goes when "
                    "that does"
                )
            elif slot.pin is None and slot.link_id:
                found.append(
                    f"{slot.member.name} (id {slot.member.id}) hangs on link {slot.link_id}, which "
                    "xdpctl did not pin: it goes when its holder does"
                )
    if state.stranded:
        found.append(f"root {state.stranded} was loaded here and runs on an interface that moved")
    found += [f"left over: {path} (the next change removes it)" for path in state.residue]
    return found


def _rule_lines(rules: Rules) -> list[str]:
    """The rules of an interface, as far as they are not the usual ones."""
    words = rules_data(rules)
    lines = []
    if rules.on_end != USUAL.on_end:
        lines.append(f"what no program decides ends as {words['on_end']}")
    if rules.on_vacant != USUAL.on_vacant:
        lines.append(f"a slot whose program is gone ends as {words['on_vacant']}")
    return lines


def borrowed(slot: Slot) -> str:
    """Whose program a slot runs."""
    origin = slot.origin
    assert origin is not None
    gone = ", which is gone: the next change takes it out" if slot.orphan else ""
    return f"borrowed from link {origin.link_id} of {origin.holder}{gone}"


# --- changes ------------------------------------------------------------------------------------


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
    for slot, member in enumerate(plan.target.members):
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
        lines += [f"  {line}" for line in _rule_lines(plan.target.rules)]
    return lines


def report_data(command: str, report: Report) -> dict[str, Any]:
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
        "unsettled": report.unsettled or None,
    }


def change(command: str, report: Report, style: Style) -> None:
    """What a command did, or would do."""
    name = report.plan.interface
    for path in report.removed:
        print(f"xdpctl: removed what an interrupted command left: {path}", file=sys.stderr)
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
    elif not style.quiet:
        replaced = {}
        for before, after in zip(report.plan.target.members, report.members, strict=True):
            if before.replaces:
                replaced[before.replaces] = after
            elif not before.id:
                print(f"{name}: loaded {after.known_as} (id {after.id})")
        for old, new in report.renewed.items():
            print(f"{name}: program {old} is {new} now: a program of another kind of root")
        for member in report.plan.leaving:
            if heir := replaced.get(member.id):
                print(f"{name}: replaced {member.known_as} (id {member.id}) with id {heir.id}")
            else:
                print(f"{name}: unloaded {member.known_as} (id {member.id})")
        for line in _changed_lines(report.plan):
            print(f"{name}: {line}")


def _changed_lines(plan: Plan) -> list[str]:
    """What is different about programs that stay, and about the rules."""
    lines = []
    order = [member.id for member in plan.current.members]
    for member in plan.staying:
        before = plan.current.members[order.index(member.id)]
        told = [
            f"{word} {new}"
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
    kept = [member.id for member in plan.staying]
    if kept != [number for number in order if number in kept]:
        lines.append(f"order: {', '.join(member.known_as for member in plan.staying)}")
    if plan.target.members and plan.target.rules != plan.current.rules:
        words = rules_data(plan.target.rules)
        lines.append(f"on end {words['on_end']}, on vacant {words['on_vacant']}")
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
            import json

            print(json.dumps({"schema": SCHEMA, **event._asdict()}), flush=True)
        elif not style.quiet:
            print(f"{event.where}: {event.what}: {event.why}", flush=True)

    return tell


def first_steps(state: State, held: Held) -> None:
    """Steps 1 to 3, which an earlier process took, as the kernel shows them now."""
    root = state.root
    assert root is not None
    print(f"step 1   root X runs on {state.interface.name}  [root={root.id} btf={root.btf_id}]")
    link = f"  [root_link={root.link_id}] {root.link_pin}" if root.link_id else ""
    print(f"step 1'  X is attached by {root.attach}{link}")
    for slot in root.slots:
        if slot.member is None:
            print(f"step 3   slot {slot.number} of X is vacant")
            continue
        holding = [f"pin {slot.pin}"] if slot.pin else []
        for one in held[slot.handle] if slot.handle else ():
            holding.append(f"process {one.pid} ({one.name}) fd {one.fd}")
        what, ids = "hooked onto", f"link={slot.link_id} root={root.id} "
        ids += f"function={slot.function_btf_id}"
        if root.kind == "fused":
            what, ids = "fused into X as", f"root={root.id}"
        print(
            f"step 3   {slot.member.name} is {what} {slot.function}  [program={slot.member.id} "
            f"{ids}]  held by {', '.join(holding) or 'nobody to be seen'}"
        )


def swap(report: Report, held: Held, gone: bool | None, style: Style) -> None:
    """The end of a swap: what came of X, and who may still hold it."""
    old = report.before.root
    if style.json:
        links = {
            str(number): [{"pid": one.pid, "name": one.name, "fd": one.fd} for one in holding]
            for (_what, number), holding in held.items()
        }
        print_json(
            {
                **report_data("swap-dispatcher", report),
                "before": state_data(report.before),
                "holders": links,
                "old_root_gone": gone,
                "dry_run": style.dry_run,
            }
        )
        return
    change("swap-dispatcher", report, style)
    if old is None or style.quiet or style.dry_run:
        return
    if gone:
        print(f"step 7   X is gone from the kernel  [X={old.id}]")
    else:
        holding = [f"process {one.pid} ({one.name})" for some in held.values() for one in some]
        print(
            f"step 7   X stays until it is let go  [X={old.id}]  held by "
            f"{', '.join(holding) or 'somebody who cannot be seen'}"
        )
