"""Changes that failed: when the last one of an interface did, as a hint."""

from __future__ import annotations

import time
from collections.abc import Collection

from ..errors import Interrupted, NotFoundError, UsageError, VanishedError, XdpctlError
from ..host import hints
from ..host.interfaces import Interface

_NO_FAILURES = (UsageError, NotFoundError, VanishedError, Interrupted)
"""What says that something else was meant, or that nothing was to be changed any more."""


def note(one: Interface, error: XdpctlError) -> None:
    """Note that a change of an interface failed."""
    if not isinstance(error, _NO_FAILURES):
        said = {"time": int(time.time()), "exit_code": error.exit_code, "what": error.what}
        hints.write(f"{_prefix(one.netns)}{one.ifindex}", said)


def last(netns: str, there: Collection[int]) -> dict[int, int]:
    """When a change failed last, in seconds of the calendar, by the number of the interface.

    It is told of the interfaces that are there; what was noted of others is removed.
    """
    numbers = {str(number): number for number in there}
    times: dict[int, int] = {}
    for number, said in hints.every(_prefix(netns)):
        if number not in numbers:
            hints.remove(_prefix(netns) + number)
        elif type(said.get("time")) is int:
            times[numbers[number]] = said["time"]
    return times


def _prefix(netns: str) -> str:
    return f"failed-{netns}-"
