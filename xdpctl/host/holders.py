"""Who holds a link, a program or a held member's array: the processes that have it open."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence

from ..kernel.records import Handle
from ..value import Value
from .text import decoded


class Holder(Value):
    """A process with a descriptor of one, from /proc/PID/fdinfo (proc_pid_fdinfo(5))."""

    pid: int
    name: str
    fd: int


def holders(handles: Sequence[Handle]) -> dict[Handle, list[Holder]]:
    """The processes that hold each of some links, maps and programs.

    Descriptors of processes that may not be looked at stay unknown.
    """
    found: dict[Handle, list[Holder]] = {handle: [] for handle in handles}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        with contextlib.suppress(OSError):
            for fd in os.listdir(f"/proc/{entry}/fd"):
                handle = _handle(f"/proc/{entry}", fd)
                if handle in found:
                    # Cut at 15 bytes, which may be within a letter.
                    with open(f"/proc/{entry}/comm", "rb") as comm:
                        name = decoded(comm.read().removesuffix(b"\n"))
                    found[handle].append(Holder(int(entry), name, int(fd)))
    return found


def _handle(process: str, fd: str) -> Handle | None:
    """What is behind a descriptor; None for what is none of those three."""
    with contextlib.suppress(OSError):
        if "bpf" in os.readlink(f"{process}/fd/{fd}"):
            with open(f"{process}/fdinfo/{fd}", encoding="ascii") as lines:
                for line in lines:
                    if line.startswith("link_id:"):
                        return "link_id", int(line.split()[1])
                    if line.startswith("map_id:"):
                        return "map_id", int(line.split()[1])
                    if line.startswith("prog_id:"):  # a link has one, too, but behind its own
                        return "prog_id", int(line.split()[1])
    return None
