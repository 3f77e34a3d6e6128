"""JSON documents: the one place where they get their schema number and are printed.

Each document has a JSON Schema in xdpctl/schema. What several documents share is made here; the
rest of a document is made by the module of its command's screen.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..host.text import Json, plain
from ..model.chain import ON_END, ON_VACANT, Member, Rules, action_names
from .style import Style

if TYPE_CHECKING:
    from ..errors import XdpctlError
    from ..model.terms import Pending


SCHEMA = 1
"""Version of the JSON documents: raised when a field changes its meaning or goes."""


def show(command: str, fields: Json) -> None:
    """Print the one document of a command."""
    _print({"command": command, **fields})


def show_change(command: str, fields: Json, style: Style) -> None:
    """Print the document of a command that changes something, or would with --dry-run."""
    show(command, {**fields, "dry_run": style.dry_run})


def show_error(error: XdpctlError) -> None:
    """Print the document of a command that failed."""
    _print({"error": error.as_dict()})


def line(fields: Json) -> None:
    """Print one of many documents, on a line of its own."""
    print(_text(fields), flush=True)


def _print(fields: Json) -> None:
    print(_text(fields, indent=2))


def _text(fields: Json, indent: int | None = None) -> str:
    import json

    # Half of a surrogate pair, as Python has a byte that is no text, is not valid JSON.
    return json.dumps(plain({"schema": SCHEMA, **fields}), indent=indent)


# --- what documents share -----------------------------------------------------------------------


def member_data(member: Member) -> Json:
    """A program of a chain."""
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
        "image": member.image or None,
    }


def pending_data(pending: Pending | None) -> Json | None:
    """A change that waits for its confirmation."""
    if pending is None:
        return None
    return {
        "generation": pending.number,
        "seconds_left": round(max(pending.left, 0), 3),
        "watchdog": pending.pid,
    }


def rules_data(rules: Rules) -> Json:
    """The rules of an interface."""
    return {
        "counted": bool(rules.counted),
        "on_end": _word(ON_END, rules.on_end),
        "on_vacant": _word(ON_VACANT, rules.on_vacant),
    }


def _word(words: Mapping[str, int], verdict: int) -> str:
    return next((word for word, number in words.items() if number == verdict), str(verdict))
