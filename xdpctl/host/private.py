"""Directories and files that nobody but root can write."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from . import files


def is_safe(status: os.stat_result) -> bool:
    """Whether something is root's, and others cannot change it."""
    return status.st_uid == 0 and not status.st_mode & 0o022


@contextlib.contextmanager
def opened(path: Path, *, create: bool = False) -> Iterator[int | None]:
    """A directory's descriptor; None where there is none that is root's alone."""
    fd = None
    with contextlib.suppress(OSError, ValueError):
        if create:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd if fd is not None and is_safe(os.fstat(fd)) else None
    finally:
        if fd is not None:
            os.close(fd)


def read(directory: int, name: str, largest: int) -> bytes:
    """All of a file. Raises OSError for what root did not write here or others may change."""
    fd = files.open_regular(name, os.O_NOFOLLOW, dir_fd=directory)
    try:
        status = os.fstat(fd)
        if not is_safe(status) or status.st_nlink != 1 or status.st_size > largest:
            raise PermissionError(f"{name} is not root's alone")
        return b"".join(files.chunks(fd))
    finally:
        os.close(fd)
