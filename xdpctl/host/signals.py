"""The signals that end a command: each may interrupt it once, and none a change that is live.

A process with handlers of its own, which uses xdpctl as a library, gets its signals as ever.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator

from ..errors import Interrupted

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_state = {"interrupts": True, "late": 0}


def _handle(signum: int, _frame: object) -> None:
    if _state["interrupts"]:
        # Once: what is being undone is undone to its end.
        _state["interrupts"] = False
        raise Interrupted(signum)
    _state["late"] = signum


@contextlib.contextmanager
def handled() -> Iterator[None]:
    """Turn signals into Interrupted for the length of a command."""
    _state.update(interrupts=True, late=0)
    before = {}
    try:
        for number in ENDING:
            before[number] = signal.signal(number, _handle)
        yield
    finally:
        hold()
        for number, handler in before.items():
            signal.signal(number, handler)
        _state["late"] = 0


def hold() -> None:
    """From here on a signal comes too late; it is noted."""
    _state["interrupts"] = False


def release() -> None:
    """Another change begins, or none is under way: raise Interrupted if a signal was noted."""
    late, _state["late"] = _state["late"], 0
    if late:
        raise Interrupted(late)
    _state["interrupts"] = True


@contextlib.contextmanager
def blocked() -> Iterator[None]:
    """The signals wait for the end of the block."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        # One that came just before is raised in here, with the others blocked already.
        signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def deaf() -> Callable[[], bool]:
    """In a process of its own: no signal ends it; returns what tells whether SIGTERM came."""
    asked = []
    for number in (*ENDING, signal.SIGQUIT, signal.SIGTSTP, signal.SIGPIPE, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, _frame: asked.append(number))
    _state.update(interrupts=False, late=0)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    return lambda: bool(asked)
