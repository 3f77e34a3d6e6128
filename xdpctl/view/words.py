"""What several screens say in the same words: errors, rules, a change that waits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..model.chain import USUAL, Rules
from .document import rules_data
from .style import Style, printable

if TYPE_CHECKING:
    from ..errors import XdpctlError
    from ..host.interfaces import Failure
    from ..model.request import AskedMode
    from ..model.terms import Pending


_LINES = "\n\t"
OFF = "another program took its root off, or a command was interrupted"
"""Of a chain that is there and does not run."""


def error_text(error: XdpctlError, style: Style) -> str:
    """What failed, why, what to do, a line each; with -v all details."""
    lines = [printable(error.what)]
    if error.why:
        lines.append("  why: " + error.why.replace("\n", "\n       "))
    if error.hint:
        lines.append(f"  do: {printable(error.hint, keep=_LINES)}")
    if style.verbose and error.details:
        lines.append(error.details)
    return printable("\n".join(lines), keep=_LINES)


def failure_text(failure: Failure, style: Style) -> str:
    """The same of one of many interfaces."""
    return f"{printable(failure.interface.name)}: {error_text(failure.error, style)}"


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


def empty_line(rules: Rules) -> str:
    """What an empty root is there for."""
    ends = rules_data(rules)["on_end"]
    return f"the root is empty, ready for a first program: every packet ends as {ends}"


def pending_line(pending: Pending) -> str:
    """That a change waits for its confirmation, and for how long."""
    left = pending.left
    when = f"in {left:.0f} s unless confirmed" if left > 0 else "now"
    return f"unconfirmed: goes back to generation {pending.number} {when}"


def alone(mode: AskedMode) -> str:
    """What a program does that is the root itself."""
    where = "is offloaded to the card, where it runs alone" if mode == "hw" else "runs alone"
    return f"{where}, without a dispatcher"
