"""xdpctl.host.signals: what ends a command, what comes too late, and whose handlers are whose."""

from __future__ import annotations

import signal

import pytest

from tests.unit.samples import blocked, ending_signals, send, sent_while_blocking
from xdpctl.errors import Interrupted
from xdpctl.host import signals

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
