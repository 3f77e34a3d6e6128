"""The object in a layer: a file in an archive, or the layer itself, as ORAS has it.

An archive is read as a stream. Nothing of it is written anywhere, so no path in it leads anywhere.
"""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import zlib

from ..errors import BadObjectError, listed

OBJECT = 64 << 20
"""The most bytes of a layer, of what it holds, and so of an object."""

_ELF, _GZIP = b"\x7fELF", b"\x1f\x8b"
_MOST_FILES = 1000
_AROUND = 1 << 20
"""Bytes of an archive beside its file: headers, and blocks that fill it up."""


class _TooLargeError(Exception):
    """More comes out of an archive than an object has."""


class _Bounded:
    """A file that gives so many bytes and no more: a header of an archive may ask for any number.

    tarfile reads such things as long names at once, in as many bytes as the archive says.
    """

    def __init__(self, file: io.BytesIO | gzip.GzipFile, limit: int) -> None:
        self._file, self._left = file, limit

    def read(self, size: int = -1) -> bytes:
        wanted = self._left + 1 if size < 0 else min(size, self._left + 1)
        found = self._file.read(wanted)
        self._left -= len(found)
        if self._left < 0:
            raise _TooLargeError
        return found


def object_of(what: str, layer: bytes, limit: int = OBJECT) -> tuple[str, bytes]:
    """The one file of an image's layer, with what it is called; "" if the layer does not say.

    Raises BadObjectError for none, several, what is too large, and what is no archive.
    """
    if layer.startswith(_ELF):
        return "", layer
    raw: io.BytesIO | gzip.GzipFile = io.BytesIO(layer)
    if layer.startswith(_GZIP):
        raw = gzip.GzipFile(fileobj=raw)
    try:
        files = _files(_Bounded(raw, limit + _AROUND))
    except _TooLargeError as error:
        raise BadObjectError(
            f"{what} is too large",
            why=f"its layer holds more than the {limit} bytes that an object may have",
            hint="see whether it is the image that was meant",
        ) from error
    # What the library raises for archives that are broken on purpose is not one kind of error.
    except (tarfile.TarError, OSError, EOFError, zlib.error, ValueError, OverflowError) as error:
        raise BadObjectError(
            f"the layer of {what} cannot be read", why="it is no archive, or a broken one"
        ) from error
    if len(files) != 1:
        names = listed(path for path, _data in files)
        raise BadObjectError(
            f"{what} has {'several files' if files else 'no object'}",
            why=f"in its layer there are {names}" if files else "its layer holds no regular file",
            hint="an image has one object: xdpctl image push makes such an image",
        )
    ((path, data),) = files
    return os.path.basename(path), data


def _files(file: _Bounded) -> list[tuple[str, bytes]]:
    """The regular files of an archive, with their paths; links and devices are none."""
    found: list[tuple[str, bytes]] = []
    # A stream is read once, front to end, and never sought in.
    with tarfile.open(fileobj=file, mode="r|") as archive:  # type: ignore[call-overload]
        for number, one in enumerate(archive):
            if number >= _MOST_FILES:
                raise _TooLargeError
            if one.isreg() and not one.issparse():
                opened = archive.extractfile(one)
                found.append((one.name, opened.read() if opened else b""))
    return found
