"""What was compiled before, in files that nobody else can write."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

CACHE = "/var/cache/xdpctl"


def kept(name: str, key: bytes, make: Callable[[], bytes]) -> bytes:
    """What was made of the same key before, else what is made now, and kept."""
    import hashlib

    path = _directory() / f"{name}-{hashlib.sha256(key).hexdigest()[:32]}.o"
    # What is loaded into the kernel as root must not be for others to write.
    safe = _safe_directory(path.parent)
    if safe:
        with contextlib.suppress(OSError):
            return path.read_bytes()
    data = make()
    if safe:
        with contextlib.suppress(OSError):
            _write_whole(path, data)
    return data


def state() -> tuple[str, bool | None]:
    """The directory, and whether it is root's alone; None: it is not there yet."""
    directory = _directory()
    try:
        return str(directory), _is_safe(directory)
    except OSError:
        return str(directory), None


def _directory() -> Path:
    return Path(os.environ.get("XDPCTL_CACHE") or CACHE)


def _safe_directory(path: Path) -> bool:
    with contextlib.suppress(OSError):
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        return _is_safe(path)
    return False


def _is_safe(path: Path) -> bool:
    status = path.stat()
    return status.st_uid == 0 and not status.st_mode & 0o022


def _write_whole(path: Path, data: bytes) -> None:
    """Write a file that is there whole or not at all, also after a power failure."""
    temporary = path.with_suffix(f".{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
