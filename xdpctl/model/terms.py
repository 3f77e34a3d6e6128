"""How a change can be taken back, and the confirmation that it waits for."""

from __future__ import annotations

import time
from typing import NamedTuple


class Terms(NamedTuple):
    """How a change can be taken back.

    The chain before is recorded as replaced by `command`; without one it is not. The change goes
    back by itself unless it is confirmed `within` so many seconds. `keeps` its programs without
    that. A change that goes `back` to a generation uses that up, and those after it; one that may
    itself be taken back uses nothing up.
    """

    command: str = ""
    within: float = 0
    keeps: bool = False
    back: int = 0

    @property
    def uses_up(self) -> bool:
        """Whether a generation is gone back to for good."""
        return bool(self.back) and not self.within


UNRECORDED = Terms()


class Pending(NamedTuple):
    """A change that waits for its confirmation: the generation it goes back to, and when.

    `deadline` is in ns since boot; `pid` is the process that goes back then.
    """

    number: int
    deadline: int
    pid: int

    @classmethod
    def parse(cls, text: str) -> Pending | None:
        words = text.split(" ")
        numbers = [int(word) for word in words if word.isascii() and word.isdecimal()]
        return cls(*numbers) if len(words) == len(numbers) == 3 else None

    def __str__(self) -> str:
        return f"{self.number} {self.deadline} {self.pid}"

    @property
    def left(self) -> float:
        """Seconds."""
        return (self.deadline - now()) / 1e9


def now() -> int:
    """Nanoseconds since boot, suspended or not: a confirmation waits for people."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)
