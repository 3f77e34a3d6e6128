"""Counts that go on when the chain changes: a program's own, and those of its predecessors.

The kernel counts by program, and lets the counts go with it. What a program of the same name
counted before it was replaced, or before counting was switched off and on again, is kept in a hint:
as much of it as the last look saw. If the hint is lost, the counters begin anew, and Prometheus
takes that for what it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..host.text import Json
from ..roots.count_code import FATES, VERDICTS, Counted

_WIDTH = 3 + VERDICTS * FATES
_MOST = 1 << 64

Numbers = list[int]
"""What was counted of a program, flat: ns, timed, bytes, then the cells."""


def flat(one: Counted) -> Numbers:
    cells = [cell for line in one.cells for cell in line]
    return [one.ns, one.timed, one.total_bytes, *cells]


def _sum(one: Sequence[int], other: Sequence[int], sign: int = 1) -> Numbers:
    return [a + sign * b for a, b in zip(one, other, strict=True)]


def counted(numbers: Sequence[int]) -> Counted:
    """The same as it is counted."""
    ns, timed, total, *cells = numbers
    lines = (tuple(cells[at : at + FATES]) for at in range(0, len(cells), FATES))
    return Counted(ns, timed, tuple(lines), total)


class Carried:
    """What is to be added to the counts of one interface; `data` is its part of the hint.

    `past` has what each name counted without the programs that the last look saw, which `last` has
    by id with their names.
    """

    def __init__(self, data: object = None) -> None:
        self.past: dict[str, Numbers] = {}
        self.last: dict[int, tuple[str, Numbers]] = {}
        try:
            self._read(data)
        except (AttributeError, LookupError, TypeError, ValueError):
            self.past, self.last = {}, {}

    def _read(self, data: object) -> None:
        if isinstance(data, dict):
            self.past = {str(name): _numbers(one) for name, one in data["past"].items()}
            self.last = {
                int(number): (str(name), _numbers(one))
                for number, (name, one) in data["last"].items()
            }

    @property
    def data(self) -> Json:
        return {
            "past": self.past,
            "last": {str(number): [name, one] for number, (name, one) in self.last.items()},
        }

    def totals(self, seen: Iterable[tuple[int, str, Counted]]) -> dict[str, Counted]:
        """What each name has counted, with the programs that are seen now: id, name, counts."""
        now = {number: (name, flat(one)) for number, name, one in seen}
        for number, (name, numbers) in self.last.items():
            new_name, new = now.get(number, ("", None))
            if new is None or any(a > b for a, b in zip(numbers, new, strict=True)):
                self._add(name, numbers)  # it is gone, or its counts began anew
            elif new_name != name:
                self._add(name, numbers)
                self._add(new_name, numbers, -1)  # they stay with the name that it had
        self.last = now
        sums: dict[str, Numbers] = {}
        for name, numbers in now.values():
            sums[name] = _sum(sums.get(name) or self.past.get(name) or [0] * _WIDTH, numbers)
        return {name: counted(numbers) for name, numbers in sums.items()}

    def _add(self, name: str, numbers: Numbers, sign: int = 1) -> None:
        self.past[name] = _sum(self.past.get(name) or [0] * _WIDTH, numbers, sign)

    @property
    def at_end(self) -> int:
        """Packets that went past the last program, of all programs that there ever were."""
        every = [*self.past.values(), *(numbers for _name, numbers in self.last.values())]
        return sum(sum(numbers[3 + FATES - 1 :: FATES]) for numbers in every)


def _numbers(value: object) -> Numbers:
    """Raises TypeError or ValueError for what is none."""
    if not isinstance(value, list) or len(value) != _WIDTH:
        raise ValueError
    if not all(type(one) is int and -_MOST < one < _MOST for one in value):
        raise ValueError
    return value
