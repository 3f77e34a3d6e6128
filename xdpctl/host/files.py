"""Files that a user names: regular ones of a sensible size, read so that signals are heard.

A pipe may never end, a device neither, and a sparse file may claim any size: they are refused for
what they are, before memory is spent on them.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import stat
import sys
from collections.abc import Callable, Iterator
from typing import BinaryIO

from ..errors import BadObjectError, NotFoundError, UsageError, meant

OBJECT = 64 << 20
SOURCE = 8 << 20
"""The most bytes that an object file and a C source have; chain files have a limit of their own."""

STANDARD_INPUT, INPUT_NAME = "-", "standard input"
_AT_ONCE = 1 << 20
_MOST_NAMES = 1000
_KINDS = (
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
)


class NotRegularError(OSError):
    """A file is none that has a beginning and an end; `strerror` says what it is."""


def open_regular(path: str, flags: int = 0, dir_fd: int | None = None) -> int:
    """The descriptor of a regular file, open for reading. Raises OSError, NotRegularError."""
    # Without O_NONBLOCK the open itself would wait for who writes to a pipe.
    wanted = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
    try:
        fd = os.open(path, wanted | flags, dir_fd=dir_fd)
    except OSError as error:
        if error.errno == errno.ENXIO:  # a socket, or a device without a driver
            raise NotRegularError(errno.EINVAL, "it is no regular file") from error
        raise
    except ValueError as error:
        raise OSError(errno.EINVAL, str(error)) from error  # a null byte in the path
    try:
        mode = os.fstat(fd).st_mode
        if not stat.S_ISREG(mode):
            kind = next((kind for is_it, kind in _KINDS if is_it(mode)), "of another kind")
            raise NotRegularError(errno.EINVAL, f"it is {kind}, and not a regular file")
    except BaseException:
        os.close(fd)
        raise
    return fd


def chunks(fd: int) -> Iterator[bytes]:
    """What a descriptor gives, piece by piece: a signal is heard between two of them."""
    while piece := os.read(fd, _AT_ONCE):
        yield piece


@contextlib.contextmanager
def whole(directory: int, name: str, mode: int = 0o600) -> Iterator[BinaryIO]:
    """A file to be written in a directory, by that one's descriptor: there whole or not at all.

    So it is after a power failure, too. What has the name before is replaced. Raises OSError.
    """
    # Not by its suffix alone: who reads all files of one must not take this for one of them.
    temporary = f".{os.getpid()}-{name}.part"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary, dir_fd=directory)  # of a process of this number that was killed
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(temporary, flags, 0o600, dir_fd=directory)
    try:
        with open(fd, "wb") as file:
            yield file
            file.flush()
            os.fchmod(fd, mode)
            os.fsync(file.fileno())
        os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=directory)


def read(
    path: str,
    limit: int,
    *,
    most: int | None = None,
    number: int = 0,
    check: Callable[[os.stat_result], None] = lambda _status: None,
) -> bytes:
    """The bytes of a regular file, or its first `most`.

    Raises NotFoundError; BadObjectError, with an errno of libxdp's as its `number`, for what is no
    regular file, cannot be read or has more than `limit` bytes; and what a `check` of it raises.
    """
    with _failing(path, number):
        fd = open_regular(path)
        try:
            check(status := os.fstat(fd))
            size = status.st_size
            if most is None and size > limit:
                raise _too_large(path, f"it has {size} bytes", limit, number)
            found = bytearray()
            for piece in chunks(fd):
                found += piece
                if most is not None and most <= len(found):
                    return bytes(found[:most])
                if len(found) > limit:
                    raise _too_large(path, "it has more", limit, number)
            return bytes(found)
        finally:
            os.close(fd)


def read_input(limit: int, what: str = "an object") -> bytes:
    """All that comes from standard input, which is to be `what`.

    Raises BadObjectError, also if nothing comes, and UsageError for a terminal.
    """
    name = INPUT_NAME
    with _failing(name, 0):
        fd = os.dup(sys.stdin.fileno())
        try:
            if os.isatty(fd):
                raise UsageError(f"{name} is a terminal", hint=f"pipe {what} into the command")
            found = bytearray()
            for piece in chunks(fd):
                found += piece
                if len(found) > limit:
                    raise _too_large(name, "it has more", limit, 0)
            if not found:
                raise BadObjectError(
                    f"{name} is empty",
                    why="nothing is piped into the command, or it was read for another -",
                    hint=f"pipe {what} into the command, and give - once",
                )
            return bytes(found)
        finally:
            os.close(fd)


@contextlib.contextmanager
def opened(path: str, *, or_input: bool = False) -> Iterator[BinaryIO]:
    """A regular file, or standard input for ``-`` if that may be, to be read as a stream.

    Raises NotFoundError and BadObjectError, also for what the reading raises.
    """
    with _failing(path, 0):
        if or_input and path == STANDARD_INPUT:
            with open(os.dup(sys.stdin.fileno()), "rb", buffering=_AT_ONCE) as file:
                yield file
        else:
            with open(open_regular(path), "rb", buffering=_AT_ONCE) as file:
                yield file


@contextlib.contextmanager
def _failing(path: str, number: int) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise NotFoundError(f"no such file: {path}", hint=_beside(path)) from error
    except OSError as error:
        regular = not isinstance(error, NotRegularError)
        raise BadObjectError(
            f"cannot read {path}",
            why=os.strerror(error.errno or 0) if regular else str(error.strerror),
            hint="" if regular else "write what it holds to a file, and name that",
            number=number,
        ) from error


def _beside(path: str) -> str:
    """A file with such a name, if one stands where this one was looked for."""
    directory, name = os.path.split(path)
    with contextlib.suppress(OSError, ValueError), os.scandir(directory or ".") as found:
        names = [one.name for one in itertools.islice(found, _MOST_NAMES)]
        return meant(path, (os.path.join(directory, one) for one in names)) if name else ""
    return ""


def _too_large(path: str, has: str, limit: int, number: int) -> BadObjectError:
    return BadObjectError(
        f"{path} is too large",
        why=f"{has}, and a file of its kind has at most {limit}",
        hint="see whether it is the file that was meant",
        number=number,
    )
