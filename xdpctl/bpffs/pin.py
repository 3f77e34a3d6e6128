"""Pins: opened, removed, and what a refusal of the file system means."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from typing import TypeVar

from ..errors import BpffsError, KernelError, VanishedError
from ..host import rights
from ..kernel import records
from ..kernel.descriptor import Descriptor
from ..kernel.link import Link

_Owner = TypeVar("_Owner", bound=Descriptor)

_IN_THE_WAY = (errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENOTEMPTY, errno.ELOOP)
"""What is answered if something of another kind stands in a place of ours."""


@contextlib.contextmanager
def failing(what: str, path: str) -> Iterator[None]:
    """Turn a file system's refusal into a BpffsError."""
    try:
        yield
    except (KernelError, OSError) as error:
        if error.errno == errno.ENODEV:
            raise VanishedError("the interface went away") from error
        hints = {
            errno.EROFS: "mount -o remount,rw it",
            errno.ENOSPC: "the kernel is out of memory or over a limit for it",
            errno.EMFILE: "raise the limit of open files: ulimit -n 1024",
        }
        why, hint = os.strerror(error.errno or 0), hints.get(error.errno or 0, "")
        if error.errno in _IN_THE_WAY:
            places = getattr(error, "filename2", None), getattr(error, "filename", None), path
            why = f"{next(filter(None, places))}: {why}"
            hint = "see what stands there, and remove it"
        if error.errno in (errno.EACCES, errno.EPERM):
            if rights.missing():
                hint = "run xdpctl as root"
            elif error.errno == errno.EPERM:
                why = f"{why}: it is not in a BPF file system, or may not be changed (chattr, LSM)"
                hint = "name a directory of a BPF file system (--bpffs, -p)"
        raise BpffsError(
            f"cannot {what} {path}",
            why=why,
            hint=hint,
            # The kernel's answer for a path outside of a bpffs, which libbpf looks for first.
            number=errno.EINVAL if error.errno == errno.EPERM else 0,
        ) from error


@contextlib.contextmanager
def private() -> Iterator[None]:
    """What is made in the block is for root alone, whatever the umask says."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


def remove(path: str) -> None:
    """Remove a pin or record; one that is gone already is fine, and a directory is none of ours."""
    with contextlib.suppress(FileNotFoundError, IsADirectoryError):
        os.unlink(path)


def text(path: str) -> str | None:
    """What a record says; None where there is none, or something else stands in its place."""
    try:
        return os.readlink(path)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.EINVAL):
            return None
        raise


def opened(path: str, owner: type[_Owner]) -> _Owner | None:
    """What is pinned at a path; None where there is nothing, or a directory in its place.

    Raises BpffsError where a file system that is read-only has one: the kernel opens none there.
    """
    try:
        return owner.pinned(path)
    except KernelError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return None
        if error.errno == errno.EACCES and os.path.isdir(path):
            return None
        if error.errno == errno.EROFS:
            raise BpffsError(
                f"cannot open the pin {path}",
                why="its BPF file system is read-only, where the kernel opens no pins",
                hint="mount -o remount,rw it",
            ) from error
        raise


def pinned_link(path: str) -> records.LinkInfo | None:
    """The link that is pinned at a path; None where there is none.

    Raises BpffsError for a pin of another kind: what it stands for is not known then.
    """
    found = opened(path, Link)
    if found is None:
        return None
    with found:
        if not found.is_of("link"):
            raise BpffsError(
                f"{path} is no link",
                why="a pin of another kind stands in its place",
                hint="see what it is: bpftool link show pinned, or prog or map, and remove it",
            )
        return found.info
