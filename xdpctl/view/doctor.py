"""What this machine can do, check by check: lines for scripts, a table on terminals, JSON."""

from __future__ import annotations

from collections.abc import Sequence

from ..doctor.check import Check, Diagnosis
from ..doctor.checks import verdict
from ..host.text import Json
from .style import Span, on_terminal, paint, say
from .table import Column, Table, show

_STYLES = {"ok": "green", "warning": "yellow", "failed": "bold red"}
_COLUMNS = (Column("", head=True), Column("Check", head=True), Column("Found", prose=True))


def diagnosis_data(diagnosis: Diagnosis) -> Json:
    """The fields of ``doctor --json`` beside the command."""
    return {
        "works": diagnosis.kind is not None,
        "kind": diagnosis.kind,
        "exit_code": diagnosis.exit_code,
        "checks": [check._asdict() for check in diagnosis.checks],
    }


def _subject(check: Check) -> str:
    return f"{check.interface}:{check.name}" if check.interface else check.name


def check_lines(check: Check) -> list[str]:
    """A check's state, name and what was found; then its consequence and remedy, if any."""
    lines = [f"{check.state:<8} {_subject(check):<12} {_one_line(check.found)}"]
    lines += [f"         so: {_one_line(check.consequence)}"] if check.consequence else []
    lines += [f"         do: {_one_line(check.remedy)}"] if check.remedy else []
    return lines


def _one_line(text: str) -> str:
    return "; ".join(line.strip() for line in text.splitlines() if line.strip())


def diagnosis(found: Diagnosis, *, quiet: bool) -> None:
    """All checks and the verdict; if `quiet`, those that are not in order."""
    shown = [check for check in found.checks if not quiet or check.state != "ok"]
    if on_terminal():
        show(_table(shown))
        paint([[Span(verdict(found), "bold" if found.kind else "bold red")]])
        return
    for check in shown:
        say(*check_lines(check))
    say(verdict(found))


def _table(checks: Sequence[Check]) -> Table:
    shown = Table(_COLUMNS)
    for check in checks:
        remedy = [Span(f"do: {_one_line(check.remedy)}")] if check.remedy else []
        state, so = Span(check.state, _STYLES[check.state]), check.consequence
        shown.add(state, _subject(check), _one_line(check.found), below=[] if so else remedy)
        if so:
            shown.add("", "", Span(f"so: {_one_line(so)}", "dim"), below=remedy)
    return shown
