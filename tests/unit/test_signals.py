"""xdpctl.host.signals: what ends a command, what comes too late, and whose handlers are whose."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from tests.unit.samples import blocked, ending_signals, send, sent_while_blocking
from xdpctl.errors import Interrupted
from xdpctl.host import child, signals

handlers = pytest.fixture(ending_signals)
ALL = pytest.mark.parametrize("number", signals.ENDING)


# --- what ends a command ------------------------------------------------------------------------


@ALL
@pytest.mark.usefixtures("handlers")
def test_a_signal_interrupts_once(number: signal.Signals) -> None:
    """What it began is then undone, and no other signal keeps it from that."""
    with pytest.raises(Interrupted) as caught:
        send(number)
    assert caught.value.exit_code == 128 + number
    for other in signals.ENDING:
        send(other)


@ALL
@pytest.mark.usefixtures("handlers")
def test_a_signal_after_a_flip_comes_too_late(number: signal.Signals) -> None:
    """It keeps the next change from beginning, if there is one; then it is done with."""
    signals.hold()
    send(number)
    with pytest.raises(Interrupted) as caught:
        signals.release()
    assert caught.value.exit_code == 128 + number
    signals.release()
    with pytest.raises(Interrupted):
        send(number)


@pytest.mark.usefixtures("handlers")
def test_a_change_without_a_signal_lets_the_next_begin() -> None:
    for _change in range(3):
        signals.release()
        signals.hold()
    signals.release()


def test_a_command_begins_without_the_signals_of_another() -> None:
    with signals.handled():
        signals.hold()
        send(signal.SIGTERM)
    with signals.handled():
        signals.release()
        with pytest.raises(Interrupted):
            send(signal.SIGTERM)


def test_a_signal_that_came_too_late_is_forgotten_with_its_command() -> None:
    """Another command, or attach(), in the same process does not end by it."""
    with signals.handled():
        signals.hold()
        send(signal.SIGTERM)
    try:
        signals.release()  # as attach() does, which handles no signals
    finally:
        signals._state.update(interrupts=True, late=0)


# --- whose handlers -----------------------------------------------------------------------------


def test_handlers_are_put_back() -> None:
    before = [signal.getsignal(number) for number in signals.ENDING]
    with signals.handled():
        assert not {signal.getsignal(number) for number in signals.ENDING} & set(before)
    assert [signal.getsignal(number) for number in signals.ENDING] == before
    with pytest.raises(Interrupted), signals.handled():
        send(signal.SIGHUP)
    assert [signal.getsignal(number) for number in signals.ENDING] == before


@ALL
def test_a_process_with_handlers_of_its_own_gets_its_signals(number: signal.Signals) -> None:
    """Such as one that uses attach(): neither held back nor raised."""
    arrived: list[int] = []
    before = signal.signal(number, lambda got, _frame: arrived.append(got))
    try:
        signals.hold()
        send(number)
        assert arrived == [number]
        signals.release()
        with signals.blocked():
            send(number)
            assert arrived == [number]
        assert arrived == [number, number]
    finally:
        signal.signal(number, before)


# --- the block ----------------------------------------------------------------------------------


@ALL
@pytest.mark.usefixtures("handlers")
def test_a_signal_in_the_block_is_raised_at_its_end(number: signal.Signals) -> None:
    """As where the flip failed."""
    done: list[str] = []

    def work() -> None:
        with signals.blocked():
            send(number)
            done.append("all")

    with pytest.raises(Interrupted) as caught:
        work()
    assert done == ["all"]
    assert caught.value.exit_code == 128 + number
    assert not blocked() & set(signals.ENDING)


@ALL
@pytest.mark.usefixtures("handlers")
def test_a_signal_in_the_block_of_a_flip_comes_too_late(number: signal.Signals) -> None:
    """Whether it came before the flip itself or after it."""
    with signals.blocked():
        send(number)
        signals.hold()
    with pytest.raises(Interrupted):
        signals.release()


@ALL
@pytest.mark.usefixtures("handlers")
def test_a_signal_at_the_entry_leaves_nothing_blocked(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others are blocked by then."""
    with monkeypatch.context() as patch:
        patch.setattr(signal, "pthread_sigmask", sent_while_blocking(number))
        with pytest.raises(Interrupted) as caught, signals.blocked():
            pytest.fail("it began")
    assert caught.value.exit_code == 128 + number
    assert not blocked() & set(signals.ENDING)


@pytest.mark.usefixtures("handlers")
def test_signals_that_the_caller_blocks_stay_blocked() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP, signal.SIGUSR1})
    try:
        with signals.blocked():
            assert blocked() >= {*signals.ENDING, signal.SIGUSR1}
        assert blocked() & {*signals.ENDING, signal.SIGUSR1} == {signal.SIGHUP, signal.SIGUSR1}
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# --- what the interpreter drops -----------------------------------------------------------------


def _in_finalizer(number: int) -> None:
    class Dropping:
        def __del__(self) -> None:
            send(number)

    Dropping()


def _in_callback(number: int) -> None:
    ctypes.CFUNCTYPE(None)(lambda: send(number))()


def _in_fork(number: int) -> None:
    """In what the interpreter runs in the parent after each fork, once."""
    left = [number]

    def once() -> None:
        if left:
            send(left.pop())

    os.register_at_fork(after_in_parent=once)
    child.forked(lambda: time.sleep(60))


@ALL
@pytest.mark.parametrize("drop", [_in_finalizer, _in_callback, _in_fork])
def test_what_the_interpreter_drops_is_raised_again(
    number: signal.Signals, drop: Callable[[int], None]
) -> None:
    """Where C code calls Python an exception goes nowhere; the signal has not gone."""
    # Not by a fixture: between those and a test pytest 7 has a hook of its own set.
    with signals.handled():
        with pytest.raises(Interrupted) as caught:  # noqa: PT012 - when it comes is the question
            drop(number)
            time.sleep(5)
        assert caught.value.exit_code == 128 + number
        send(number)  # once, as ever


def test_a_child_takes_no_part_in_signals() -> None:
    """They are its parent's, which ends it: Ctrl-C on a terminal is sent to both."""
    read, write = os.pipe()

    def work() -> None:
        for number in signals.ENDING:
            send(number)
        os.write(write, b"here")

    pid = child.forked(work)
    os.close(write)
    with open(read, "rb") as told:
        assert told.read() == b"here"
    os.waitpid(pid, 0)


# --- from the first instant to the last ---------------------------------------------------------

_MEANWHILE = """
import os, signal, sys
import xdpctl.__main__ as entry

class Finder:
    def find_spec(self, name, *rest):
        if name == {module!r}:
            os.kill(os.getpid(), {number})

sys.meta_path.insert(0, Finder())
sys.argv[1:] = ["--version"]
entry.main()
"""


@ALL
@pytest.mark.parametrize("module", ["xdpctl.cli", "click", "xdpctl.view"])
def test_a_signal_while_modules_are_imported(number: signal.Signals, module: str) -> None:
    code = _MEANWHILE.format(module=module, number=int(number))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (128 + number, "")
    assert done.stderr == f"xdpctl: interrupted by signal {number:d}\n"


@ALL
def test_a_signal_at_the_very_end(number: signal.Signals) -> None:
    """All is done, and said: it ends with 0."""
    code = (
        "import atexit, os, sys\n"
        "from xdpctl.__main__ import main\n"
        f"atexit.register(lambda: os.kill(os.getpid(), {int(number)}))\n"
        "sys.argv[1:] = ['--version']\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
