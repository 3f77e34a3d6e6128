"""A change that waits for its confirmation: what is said of it, and Enter on a terminal."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
from collections.abc import Callable, Iterator, Mapping

import click

from ..bpffs.history import generations
from ..bpffs.mount import Bpffs
from ..change import failures
from ..change.batch import Batch
from ..change.report import Report
from ..change.transact import take_back
from ..errors import (
    Interrupted,
    NotFoundError,
    UnconfirmedError,
    VanishedError,
    XdpctlError,
    explained,
)
from ..host import signals
from ..host.interfaces import Interface, within
from ..model.terms import Pending
from ..observe.reading import observe
from ..view.style import say
from .settings import Settings

_LOOK_MS = 200

Waiting = Mapping[Interface, Pending]
Work = Callable[[Interface, Batch | None], Report]
"""A change of one interface."""


@contextlib.contextmanager
def waited_for(settings: Settings, bpffs: Bpffs, work: Work) -> Iterator[Work]:
    """Gives the work of a change for the block, which takes note of what waits, and of failures.

    At the end of the block wait for Enter, if a person is there, else say how to confirm. Raises
    UnconfirmedError where a change has gone back.
    """
    waiting: dict[Interface, Pending] = {}

    def noted(one: Interface, batch: Batch | None) -> Report:
        try:
            report = work(one, batch)
        except (XdpctlError, OSError) as error:
            if not settings.dry_run:
                failures.note(one, error if isinstance(error, XdpctlError) else explained(error))
            raise
        if report.pending:
            waiting[one] = report.pending
        return report

    try:
        yield noted
    except click.exceptions.Exit:  # on other interfaces it failed
        _end(settings, bpffs, waiting)
        raise
    _end(settings, bpffs, waiting)


def _end(settings: Settings, bpffs: Bpffs, waiting: Waiting) -> None:
    if settings.json or not waiting:
        return
    watched = sys.stdin.isatty()
    for one, pending in waiting.items():
        how = "press Enter to keep it" if watched else settings.line("confirm", one.name)
        if not settings.quiet:
            say(f"{one.name}: goes back in {max(pending.left, 0):.0f} s unless confirmed: {how}")
    sys.stdout.flush()
    if watched:
        _wait(settings, bpffs, waiting)


def _wait(settings: Settings, bpffs: Bpffs, waiting: Waiting) -> None:
    def tell(one: Interface, what: str) -> None:
        if not settings.quiet:
            say(f"{one.name}: {what}", flush=True)

    try:
        signals.release()
        try:
            while any(_is_pending(bpffs, one, pending) for one, pending in waiting.items()):
                if _enter():
                    break
        finally:
            signals.hold()
    except EOFError:
        return  # nobody is there any more, but the watchdog is
    except Interrupted as error:
        for one, pending in waiting.items() if error.exit_code == 128 + signal.SIGINT else ():
            with within(one.netns):
                went = take_back(bpffs, one, pending)
            if went:
                tell(one, "went back")
        raise
    back = []
    for one, pending in waiting.items():
        if _stays(bpffs, one, pending):
            tell(one, "confirmed")
        else:
            back.append(one.name)
    if back:
        raise UnconfirmedError(
            f"not confirmed in time: {', '.join(back)}", why="the previous chain is back"
        )


def _stays(bpffs: Bpffs, one: Interface, pending: Pending) -> bool:
    """Confirm a change, unless that is done; whether it has not gone back."""
    from ..change.confirm import confirm

    gone = contextlib.suppress(NotFoundError, UnconfirmedError, VanishedError)
    with gone, within(one.netns):
        if _is_pending(bpffs, one, pending):
            confirm(bpffs, one)
        kept = generations(bpffs, observe(one, bpffs))
        return any(past.number == pending.number for past in kept)
    return False


def _is_pending(bpffs: Bpffs, one: Interface, pending: Pending) -> bool:
    with contextlib.suppress(VanishedError), within(one.netns):
        return observe(one, bpffs).pending == pending
    return False


def _enter() -> bool:
    """Whether Enter was pressed within a moment. Raises EOFError where the terminal is gone."""
    waiting = select.poll()
    waiting.register(sys.stdin, select.POLLIN)
    if not waiting.poll(_LOOK_MS):
        return False
    try:
        text = os.read(sys.stdin.fileno(), 4096)
    except OSError:
        text = b""
    if not text:
        raise EOFError
    return True
