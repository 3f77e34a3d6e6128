"""Who holds a link: the processes that have it open."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Holder:
    """A process with a descriptor of a link, from /proc/PID/fdinfo (proc_pid_fdinfo(5))."""

    pid: int
    name: str
    fd: int


def holders(link_ids: Sequence[int]) -> dict[int, list[Holder]]:
    """The processes that hold each of some links.

    Descriptors of processes that may not be looked at stay unknown.
    """
    found: dict[int, list[Holder]] = {number: [] for number in link_ids}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        with contextlib.suppress(OSError):
            for fd in os.listdir(f"/proc/{entry}/fd"):
                number = _link_id(f"/proc/{entry}", fd)
                if number in found:
                    with open(f"/proc/{entry}/comm", encoding="utf-8") as comm:
                        found[number].append(Holder(int(entry), comm.read().strip(), int(fd)))
    return found


def _link_id(process: str, fd: str) -> int:
    """The id of the link behind a descriptor, 0 for any other descriptor."""
    try:
        if "bpf" not in os.readlink(f"{process}/fd/{fd}"):
            return 0
        with open(f"{process}/fdinfo/{fd}", encoding="ascii") as lines:
            return next((int(line.split()[1]) for line in lines if line.startswith("link_id:")), 0)
    except OSError:
        return 0
