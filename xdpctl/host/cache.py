"""What was compiled before, in files that nobody else can write.

It is loaded into the kernel as root, so an entry is used only if it is a regular file of root's
that others can neither write nor reach by another name, and ends with a seal: its length and a
digest of what it was made of and of what it holds. Any other is made anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import stat
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

from . import files

CACHE = "/var/cache/xdpctl"

_SEAL = struct.Struct("<8sQ32s32s")
"""Magic number, length of what is before it, digests of the key and of all that."""
_MAGIC = b"xdpctl\x00\x01"
_LARGEST = 64 << 20
_SUFFIX = ".kept"
"""Earlier versions kept files without a seal, called .o: nothing reads them any more."""


def kept(name: str, key: bytes, make: Callable[[], bytes]) -> bytes:
    """What was made of the same key before, else what is made now, and kept."""
    digest = hashlib.sha256(key).digest()
    entry = f"{name}-{digest.hex()[:32]}{_SUFFIX}"
    with _opened(create=True) as directory:
        if directory is not None:
            with contextlib.suppress(OSError):
                found = _read(directory, entry)
                if (data := _unsealed(found, digest)) is not None:
                    return data
        data = make()
        if directory is not None:
            with contextlib.suppress(OSError), files.whole(directory, entry) as file:
                file.write(data + _seal(digest, data))
                _clear(directory, entry)
        return data


def state() -> tuple[str, bool | None]:
    """The directory, and whether it is root's alone; None: it is not there yet."""
    path = _path()
    try:
        return str(path), _is_safe(os.stat(path))
    except OSError:
        return str(path), None


def bad_entries() -> list[str]:
    """The names of entries that cannot be used, sorted."""
    with _opened() as directory:
        if directory is None:
            return []
        entries = (name for name in os.listdir(directory) if name.endswith(_SUFFIX))
        return sorted(name for name in entries if not _is_good(directory, name))


def _is_good(directory: int, name: str) -> bool:
    if name.startswith("."):
        return True  # another process is writing it
    try:
        found = _read(directory, name)
    except FileNotFoundError:
        return True  # gone meanwhile
    except OSError:
        return False
    start = name.removesuffix(_SUFFIX).rpartition("-")[2]
    digest = found[-_SEAL.size :][16:48]
    return digest.hex()[:32] == start and _unsealed(found, digest) is not None


def _path() -> Path:
    return Path(os.environ.get("XDPCTL_CACHE") or CACHE)


@contextlib.contextmanager
def _opened(*, create: bool = False) -> Iterator[int | None]:
    """The directory's descriptor; None where there is none that is root's alone."""
    fd = None
    with contextlib.suppress(OSError, ValueError):
        path = _path()
        if create:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd if fd is not None and _is_safe(os.fstat(fd)) else None
    finally:
        if fd is not None:
            os.close(fd)


def _is_safe(status: os.stat_result) -> bool:
    return status.st_uid == 0 and not status.st_mode & 0o022


def _read(directory: int, name: str) -> bytes:
    """All of an entry. Raises OSError for what root did not write here or others may change."""
    fd = files.open_regular(name, os.O_NOFOLLOW, dir_fd=directory)
    try:
        status = os.fstat(fd)
        if not _is_safe(status) or status.st_nlink != 1 or status.st_size > _LARGEST:
            raise PermissionError(f"{name} is not root's alone")
        return b"".join(files.chunks(fd))
    finally:
        os.close(fd)


def _seal(key: bytes, data: bytes) -> bytes:
    return _SEAL.pack(_MAGIC, len(data), key, hashlib.sha256(key + data).digest())


def _unsealed(found: bytes, key: bytes) -> bytes | None:
    """What an entry holds; None if it is not whole, not as it was written or of another key."""
    data, seal = found[: -_SEAL.size], found[-_SEAL.size :]
    return data if seal == _seal(key, data) else None


def _clear(directory: int, name: str) -> None:
    """Remove a directory that stands where an entry is to be: a rename replaces all else."""
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISDIR(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
            shutil.rmtree(name, dir_fd=directory)
