"""Work on many interfaces, each by itself: what comes of it, failures, progress."""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

import click

from ..errors import Interrupted, OutputError, XdpctlError, explained
from ..host import output
from ..host.interfaces import Failure, Interface
from ..view import words
from ..view.style import console
from .settings import Settings

if TYPE_CHECKING:
    from rich.progress import Progress


T = TypeVar("T")
_SOON = 0.5
"""Seconds that nobody minds to wait without a progress bar."""


def each(found: Iterable[Interface], work: Callable[[Interface], T]) -> Iterator[T | Failure]:
    """What comes of a work on every interface. A signal ends it: the rest has that as its error."""
    ended: Interrupted | None = None
    for interface in found:
        outcome: T | Failure
        try:
            if ended:
                raise ended
            outcome = work(interface)
        except OutputError:
            raise  # whatever the interface
        except (XdpctlError, OSError) as error:
            known = error if isinstance(error, XdpctlError) else explained(error)
            outcome = Failure(interface, known)
            ended = known if isinstance(known, Interrupted) else None
        yield outcome


def tell(failure: Failure, settings: Settings) -> None:
    """Tell on standard error what failed."""
    output.say(f"{settings.program}: {words.failure_text(failure, settings)}", err=True)


def end(outcomes: Sequence[object], settings: Settings) -> None:
    """End work on interfaces by what came of it: if some failed, with a line that names them.

    The exit code is that of the failures, 1 if they differ.
    """
    failed = [one for one in outcomes if isinstance(one, Failure)]
    if failed:
        names = ", ".join(one.interface.name for one in failed)
        text = f"{len(failed)} of {len(outcomes)} interfaces failed: {names}"
        output.say(f"{settings.program}: {text}", err=True)
        codes = {settings.ended_by(one.error) for one in failed}
        mixed = settings.ended_by(XdpctlError(text))
        raise click.exceptions.Exit(codes.pop() if len(codes) == 1 else mixed)


def progress(settings: Settings, command: str, found: Sequence[Interface]) -> Iterator[Interface]:
    """The interfaces, behind a progress bar where a person looks on, and has had to wait."""
    late = time.monotonic() + _SOON
    if not sys.stderr.isatty() or settings.quiet or settings.json:
        late = math.inf
    with contextlib.ExitStack() as ending:
        bar: Progress | None = None
        for done, interface in enumerate(found):
            if bar is None and time.monotonic() >= late:
                from rich.progress import Progress

                # What goes to a file goes there, and not above the bar.
                above = sys.stdout.isatty()
                drawing = console(err=True)
                bar = Progress(console=drawing, transient=True, redirect_stdout=above)
                task = ending.enter_context(bar).add_task(command, total=len(found))
            if bar:
                bar.update(task, completed=done)
            yield interface
