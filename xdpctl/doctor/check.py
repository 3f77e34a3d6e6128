"""A check: what was looked at, a verdict, its consequence and the remedy.

The main job is a chain of programs on an interface. A check that stands in its way carries the
exit code of the error that a load would end with; the first of them is doctor's own.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

from ..model.chain import Kind

Verdict = Literal["ok", "warning", "failed"]


class Check(NamedTuple):
    """One thing that was looked at; `exit_code` is 0 where it does not stand in the way.

    `interface` is the name of the one that it is about.
    """

    name: str
    state: Verdict
    found: str
    consequence: str = ""
    remedy: str = ""
    interface: str | None = None
    exit_code: int = 0


class Diagnosis(NamedTuple):
    """All checks, and the kind of root that a first chain gets; None where there can be none."""

    checks: tuple[Check, ...]
    kind: Kind | None

    @property
    def exit_code(self) -> int:
        return next((check.exit_code for check in self.checks if check.exit_code), 0)


def in_words(names: Iterable[str]) -> str:
    """Names as a sentence has them."""
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last
