"""Signals that wait."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Those that end a command."""


@contextlib.contextmanager
def blocked(*others: int) -> Iterator[None]:
    """The signals that end a command wait for the end of the block, and so do some others."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        # One that came just before is raised in here, with the others blocked already.
        signal.pthread_sigmask(signal.SIG_BLOCK, (*ENDING, *others))
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def heard() -> contextlib.AbstractContextManager[None]:
    """Signals wait that would be lost: asyncio logs what a handler raises in a callback.

    pyroute2 runs on it since 0.8. SIGALRM is the one that has a lost signal handled again.
    """
    return blocked(signal.SIGALRM)
