"""How a change can be taken back, and the confirmation that it waits for."""

from __future__ import annotations

import contextlib
import time
from functools import cache
from typing import Literal

from ..value import Value
from .labels import in_range

_LATEST = 1 << 63


Reason = Literal["asked", "late", "ended"]
"""Why a change goes back: somebody asked for it, nobody confirmed it in time, or the process that
waited for the confirmation was asked to end."""


class Terms(Value):
    """How a change can be taken back.

    The chain before is recorded as replaced by `command`; without one it is not. The change goes
    back by itself unless it is confirmed `within` so many seconds. `keeps` its programs without
    that. A change that goes `back` to a generation uses that up, and those after it; one that may
    itself be taken back uses nothing up. `reason` says why it goes back.
    """

    command: str = ""
    within: float = 0
    keeps: bool = False
    back: int | None = None
    reason: Reason = "asked"

    @property
    def uses_up(self) -> bool:
        """Whether a generation is gone back to for good."""
        return self.back is not None and not self.within


UNRECORDED = Terms()


class Pending(Value):
    """A change that waits for its confirmation: the generation it goes back to, and when.

    `deadline` is in ns since boot; `pid` is the process that goes back then.
    """

    number: int
    deadline: int
    pid: int

    @classmethod
    def parse(cls, text: str) -> Pending | None:
        words = text.split(" ")
        with contextlib.suppress(ValueError):
            number, deadline, pid = words
            return cls(in_range(number), in_range(deadline, _LATEST), in_range(pid))
        return None

    def __str__(self) -> str:
        return f"{self.number} {self.deadline} {self.pid}"

    @property
    def left(self) -> float:
        """Seconds."""
        return (self.deadline - now()) / 1e9


def now() -> int:
    """Nanoseconds since boot, suspended or not: a confirmation waits for people.

    The same in every time namespace: a change may be confirmed from another one.
    """
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) - _offset()


@cache
def _offset() -> int:
    """How much later the clock is in this time namespace (time_namespaces(7))."""
    text = ""
    with contextlib.suppress(OSError), open("/proc/self/timens_offsets", encoding="ascii") as file:
        text = file.read()
    for line in text.splitlines():
        clock, seconds, nanoseconds = line.split()
        if clock in ("boottime", str(time.CLOCK_BOOTTIME)):
            return int(seconds) * 1_000_000_000 + int(nanoseconds)
    return 0
