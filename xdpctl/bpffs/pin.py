"""Pins: opened, removed, and what a refusal of the file system means."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator

from ..errors import BpffsError, KernelError, VanishedError
from ..kernel import libbpf, records


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
            errno.EACCES: "run xdpctl as root",
            errno.EPERM: "run xdpctl as root",
        }
        raise BpffsError(
            f"cannot {what} {path}",
            why=os.strerror(error.errno or 0),
            hint=hints.get(error.errno or 0, ""),
            # The kernel's answer for a path outside of a bpffs, which libbpf looks for first.
            number=errno.EINVAL if error.errno == errno.EPERM else 0,
        ) from error


def remove(path: str) -> None:
    """Remove a pin; one that is gone already is fine."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def opened(path: str) -> int | None:
    """The descriptor of a pin; None where there is none."""
    try:
        return libbpf.get(path)
    except KernelError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return None
        raise


def pinned_link(path: str) -> records.LinkInfo | None:
    """The link that is pinned at a path; None where there is none."""
    fd = opened(path)
    if fd is None:
        return None
    with libbpf.owned(fd):
        return libbpf.link_info(fd)
