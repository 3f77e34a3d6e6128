"""Standard output and standard error: what is told apart from what is done.

Nothing that is printed obeys anybody else (text.py). An output that cannot be written is like a
signal (signals.py): it ends a command whose change is not live yet, and comes too late for one
that is. Then, as for an error that cannot be told, the command goes on without a word more there.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO

from ..errors import OutputError
from . import signals
from .text import lines

_NAMES = {1: "standard output", 2: "standard error"}


def say(text: str, *, err: bool = False) -> None:
    """Print a text, of which what others made of it obeys nobody."""
    print(lines(text), file=sys.stderr if err else sys.stdout)


class Stream(io.TextIOBase):
    """One of the two. It escapes what is written, but for what rich writes."""

    def __init__(self, out: TextIO, number: int) -> None:
        self.out, self.number = out, number
        self.failed: OSError | None = None
        self.rich_proxied_file = _Raw(self)  # where rich writes in the place of this

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self.out.encoding

    @property
    def errors(self) -> str | None:  # type: ignore[override]
        return self.out.errors

    @property
    def buffer(self) -> _Bytes:
        """For files that are written to standard output."""
        return _Bytes(self)

    def fileno(self) -> int:
        return self.out.fileno()

    def isatty(self) -> bool:
        return self.out.isatty()

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self.put(lines(text))
        return len(text)

    def put(self, text: str) -> None:
        """Write a text as it is. Raises OutputError where that ends the command."""
        with self.guarded():
            self.out.write(text)

    def flush(self) -> None:
        if self.out.closed:  # a finalizer flushes as well, and Python 3.13 tells what that raises
            return
        with self.guarded():
            self.out.flush()

    @contextlib.contextmanager
    def guarded(self) -> Iterator[None]:
        """Write in the block, if that still can be done. Raises OutputError."""
        if self.failed and not signals.is_late() and self.number == 1:
            raise self.error()
        try:
            yield
        except OSError as error:
            self.fail(error)

    def fail(self, error: OSError) -> None:
        """From here on nothing can be written. Raises OutputError where that ends the command."""
        self.failed = self.failed or error
        # What is still in the buffer goes nowhere, and not into an error at the very end.
        with contextlib.suppress(OSError, ValueError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self.out.fileno())
            os.close(null)
            self.out.flush()
        if self.number == 1 and not signals.is_late():
            raise self.error() from error

    def error(self, before: str = "") -> OutputError:
        assert self.failed
        why = os.strerror(self.failed.errno or 0)
        return OutputError(
            f"{before}{_NAMES[self.number]} cannot be written: {why}",
            number=self.failed.errno or 0,
        )


class _Raw(io.TextIOBase):
    """The same stream for those who write what a terminal is to obey."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self.stream.encoding

    @property
    def errors(self) -> str | None:  # type: ignore[override]
        return self.stream.errors

    def fileno(self) -> int:
        return self.stream.fileno()

    def isatty(self) -> bool:
        return self.stream.isatty()

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self.stream.put(text)
        return len(text)

    def flush(self) -> None:
        self.stream.flush()


class _Bytes(io.RawIOBase):
    """The same stream for bytes."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        with self.stream.guarded():
            self.stream.out.buffer.write(data)
        return len(data)

    def flush(self) -> None:
        if self.stream.out.closed:
            return
        with self.stream.guarded():
            self.stream.out.buffer.flush()


@contextlib.contextmanager
def prepared() -> Iterator[tuple[Stream, Stream]]:
    """Put the streams in the place of the process's own; one that is closed fails when written.

    The descriptors 0 to 2 are taken then: no other file comes to have such a number.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # It gets the lowest number. It can only be read: to write to it is an error.
            os.set_inheritable(os.open(os.devnull, os.O_RDONLY), True)
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    before = sys.stdout, sys.stderr
    made = [Stream(_text(one, number), number) for number, one in enumerate(before, 1)]
    sys.stdout, sys.stderr = made
    try:
        yield made[0], made[1]
    finally:
        sys.stdout, sys.stderr = before


def _text(stream: TextIO | None, number: int) -> TextIO:
    if stream is None:
        return open(number, "w", encoding="utf-8", errors="backslashreplace", closefd=False)
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")  # a terminal's encoding may lack some
    return stream


def untold(streams: tuple[Stream, Stream]) -> OutputError | None:
    """What could not be told although all was done; flushes what is left."""
    for stream in streams:
        with contextlib.suppress(OutputError):
            stream.flush()
        if stream.failed:
            return stream.error("what was asked is done, but ")
    return None
