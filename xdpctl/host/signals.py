"""The signals that end a command: each may interrupt it once, and none a change that is live.

A process with handlers of its own, which uses xdpctl as a library, gets its signals as ever.
"""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any

from ..errors import Interrupted
from ..kernel.masks import ENDING as ENDING
from ..kernel.masks import blocked as blocked

_AGAIN = 0.002
"""Seconds after which a signal is handled again whose exception was dropped."""

_state = {"interrupts": True, "late": 0, "dropped": 0, "live": 0}


def _handle(signum: int, _frame: object) -> None:
    if _state["interrupts"]:
        # Once: what is being undone is undone to its end.
        _state["interrupts"] = False
        raise Interrupted(signum)
    _state["late"] = signum


def _handle_dropped(_signum: int, frame: object) -> None:
    number, _state["dropped"] = _state["dropped"], 0
    if number:
        _state["interrupts"] = True
        _handle(number, frame)


@contextlib.contextmanager
def _none_dropped() -> Iterator[None]:
    """Raise Interrupted again where the interpreter drops it.

    It does so where C code calls Python: in callbacks of ctypes and at a fork, in finalizers.
    """
    hook = sys.unraisablehook

    def unraisable(dropped: sys.UnraisableHookArgs) -> None:
        if isinstance(dropped.exc_value, Interrupted):
            _state["dropped"] = dropped.exc_value.exit_code - 128
            signal.setitimer(signal.ITIMER_REAL, _AGAIN)
        else:
            hook(dropped)

    before = signal.signal(signal.SIGALRM, _handle_dropped)
    sys.unraisablehook = unraisable
    try:
        yield
    finally:
        _state["dropped"] = 0
        signal.setitimer(signal.ITIMER_REAL, 0)
        sys.unraisablehook = hook
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def handled(*, last: bool = False) -> Iterator[None]:
    """Turn signals into Interrupted for the length of a command.

    `last`: the process ends with it, and no signal changes how.
    """
    _state.update(interrupts=True, late=0, live=0)
    before: dict[int, Any] = {}
    try:
        with _none_dropped():
            for number in ENDING:
                before[number] = signal.signal(number, _handle)
            yield
    finally:
        hold()
        for signum, handler in before.items():
            signal.signal(signum, signal.SIG_IGN if last else handler)
        _state["late"] = 0


def is_late() -> bool:
    """Whether a signal would come too late: a change is live, or the command ends already."""
    return not _state["interrupts"]


def is_live() -> bool:
    """Whether the command has changed an interface."""
    return bool(_state["live"])


def hold(*, live: bool = False) -> None:
    """From here on a signal comes too late; it is noted. A change may be `live` now."""
    _state["interrupts"] = False
    _state["live"] |= live


def release() -> None:
    """Another change begins, or none is under way: raise Interrupted if a signal was noted."""
    late, _state["late"] = _state["late"], 0
    if late:
        raise Interrupted(late)
    _state["interrupts"] = True


def deaf() -> Callable[[], bool]:
    """In a process of its own: no signal ends it; returns what tells whether SIGTERM came."""
    asked = []
    for number in (*ENDING, signal.SIGQUIT, signal.SIGTSTP, signal.SIGPIPE, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, _frame: asked.append(number))
    _state.update(interrupts=False, late=0)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    return lambda: bool(asked)
