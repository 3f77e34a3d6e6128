"""What was compiled before, in files that nobody else can write.

It is loaded into the kernel as root, so an entry is used only if it is a regular file of root's
that others can neither write nor reach by another name, and ends with a seal: its length and a
digest of what it was made of and of what it holds. Any other is made anew.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import struct
from collections.abc import Callable
from pathlib import Path

from . import files, private

CACHE = "/var/cache/xdpctl"

_SEAL = struct.Struct("<8sQ32s32s")
"""Magic number, length of what is before it, digests of the key and of all that."""
_MAGIC = b"xdpctl\x00\x01"
_LARGEST = 64 << 20
_SUFFIX = ".kept"
"""Earlier versions kept files without a seal, called .o: nothing reads them any more."""


def kept(name: str, key: bytes, make: Callable[[], bytes]) -> bytes:
    """What was made of the same key before, else what is made now, and kept."""
    digest = _digest(key)
    entry = f"{name}-{digest.hex()[:32]}{_SUFFIX}"
    with private.opened(_path(), create=True) as directory:
        if directory is not None:
            with contextlib.suppress(OSError):
                found = private.read(directory, entry, _LARGEST)
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
        return str(path), private.is_safe(os.stat(path))
    except OSError:
        return str(path), None


def bad_entries() -> list[str]:
    """The names of entries that cannot be used, sorted."""
    with private.opened(_path()) as directory:
        if directory is None:
            return []
        entries = (name for name in os.listdir(directory) if name.endswith(_SUFFIX))
        return sorted(name for name in entries if not _is_good(directory, name))


def _is_good(directory: int, name: str) -> bool:
    if name.startswith("."):
        return True  # another process is writing it
    try:
        found = private.read(directory, name, _LARGEST)
    except FileNotFoundError:
        return True  # gone meanwhile
    except OSError:
        return False
    start = name.removesuffix(_SUFFIX).rpartition("-")[2]
    digest = found[-_SEAL.size :][16:48]
    return digest.hex()[:32] == start and _unsealed(found, digest) is not None


def _path() -> Path:
    return Path(os.environ.get("XDPCTL_CACHE") or CACHE)


def _digest(data: bytes) -> bytes:
    import hashlib  # a while is spent on OpenSSL

    return hashlib.sha256(data).digest()


def _seal(key: bytes, data: bytes) -> bytes:
    return _SEAL.pack(_MAGIC, len(data), key, _digest(key + data))


def _unsealed(found: bytes, key: bytes) -> bytes | None:
    """What an entry holds; None if it is not whole, not as it was written or of another key."""
    data, seal = found[: -_SEAL.size], found[-_SEAL.size :]
    return data if seal == _seal(key, data) else None


def _clear(directory: int, name: str) -> None:
    """Remove a directory that stands where an entry is to be: a rename replaces all else."""
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISDIR(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
            shutil.rmtree(name, dir_fd=directory)
