"""Hints: what the kernel and the BPF file system do not tell, in files of /run/xdpctl.

Nothing but what is shown depends on them, and none is missed: whoever cannot write one goes on
without, and one that is no JSON object, or not root's alone, is not there. A reboot removes them.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from . import files, private
from .text import Json

DIRECTORY = "/run/xdpctl"
_LARGEST = 64 << 20
_PATIENCE = 5.0
"""Seconds."""


def _path() -> Path:
    return Path(os.environ.get("XDPCTL_RUN") or DIRECTORY)


def read(name: str) -> Json | None:
    """What a hint says; None where there is none."""
    with private.opened(_path()) as directory:
        return None if directory is None else _read(directory, name)


def _read(directory: int, name: str) -> Json | None:
    with contextlib.suppress(OSError, ValueError, RecursionError):
        found = json.loads(private.read(directory, name, _LARGEST))
        if isinstance(found, dict):
            return found
    return None


def every(prefix: str) -> Iterator[tuple[str, Json]]:
    """The hints whose names begin so: what comes after the prefix, and what each says."""
    with private.opened(_path()) as directory:
        if directory is None:
            return
        for name in sorted(os.listdir(directory)):
            if name.startswith(prefix) and (found := _read(directory, name)) is not None:
                yield name.removeprefix(prefix), found


def write(name: str, what: Mapping[str, object]) -> None:
    """Leave a hint, in the place of an earlier one."""
    with private.opened(_path(), create=True) as directory:
        if directory is not None:
            _write(directory, name, what)


def _write(directory: int, name: str, what: Mapping[str, object]) -> None:
    with contextlib.suppress(OSError), files.whole(directory, name) as file:
        file.write(json.dumps(what, separators=(",", ":")).encode())


def remove(name: str) -> None:
    """Remove a hint, if it is there."""
    with private.opened(_path()) as directory, contextlib.suppress(OSError):
        if directory is not None:
            os.unlink(name, dir_fd=directory)


@contextlib.contextmanager
def changed(name: str) -> Iterator[Json]:
    """A hint to be changed in the block, by one process at a time; empty if there is none.

    If another process has it for long, as one that was stopped, the change is not kept.
    """
    with private.opened(_path(), create=True) as directory:
        if directory is None:
            yield {}
            return
        locked = _lock(directory)
        found = _read(directory, name) or {}
        yield found
        if locked:
            _write(directory, name, found)


def _lock(directory: int) -> bool:
    """Lock a directory for as long as the descriptor is open; not at any price."""
    end = time.monotonic() + _PATIENCE
    while True:
        try:
            fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError:
            if time.monotonic() > end:
                return False
            time.sleep(0.01)
