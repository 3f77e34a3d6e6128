"""xdpctl.commit, as far as it goes without a kernel: clean-up and files."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.samples import LOOPBACK, blocked, ending_signals, send, sent_while_blocking
from xdpctl import commit, signals
from xdpctl.errors import BpffsError, HookBusyError, Interrupted, KernelError
from xdpctl.hook import LostRace

handlers = pytest.fixture(autouse=True)(ending_signals)


# --- clean-up -----------------------------------------------------------------------------------


def noisy(done: list[int]) -> contextlib.ExitStack:
    """What is to be undone, with all the signals at each step."""

    def step(place: int) -> None:
        for number in signals.ENDING:
            send(number)
        done.append(place)

    undo = contextlib.ExitStack()
    for place in range(20):
        undo.callback(step, place)
    return undo


def test_a_clean_up_comes_to_its_end_whatever_comes() -> None:
    """After a first signal no other one is raised."""
    done: list[int] = []
    with pytest.raises(Interrupted):
        send(signal.SIGTERM)
    commit._undo(noisy(done))
    assert done == list(range(20))[::-1]  # each once, the last first
    assert not blocked() & set(signals.ENDING)


def test_a_signal_in_a_clean_up_is_noted() -> None:
    """Another error is on its way: it is told, and the signal ends what would follow."""
    done: list[int] = []
    commit._undo(noisy(done))
    with pytest.raises(Interrupted):
        signals.release()
    assert done == list(range(20))[::-1]
    assert not blocked() & set(signals.ENDING)


@pytest.mark.parametrize(
    "first",
    [
        pytest.param(True, id="after another signal"),
        pytest.param(False, id="after another error"),
    ],
)
def test_a_signal_just_before_a_clean_up_does_not_keep_it_from_running(
    first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    undo = contextlib.ExitStack()
    undo.callback(done.append, "all")
    if first:
        with pytest.raises(Interrupted):
            send(signal.SIGTERM)
    with monkeypatch.context() as patch, contextlib.suppress(Interrupted):
        patch.setattr(signal, "pthread_sigmask", sent_while_blocking(signal.SIGTERM))
        commit._undo(undo)
    assert not blocked() & set(signals.ENDING)
    assert done == ["all"]


def refuse() -> None:
    raise BpffsError("no")


@pytest.mark.parametrize("failing", [lambda: os.close(-1), refuse], ids=["OSError", "XdpctlError"])
def test_a_clean_up_that_fails_is_no_news(failing: Callable[[], None]) -> None:
    """The error that is on its way matters more; what is left of the clean-up is done."""
    done: list[str] = []
    undo = contextlib.ExitStack()
    undo.callback(done.append, "first")
    undo.callback(failing)
    undo.callback(done.append, "last")

    def work() -> None:
        try:
            raise HookBusyError("the reason")
        except BaseException:
            commit._undo(undo)
            raise

    with pytest.raises(HookBusyError, match="the reason"):
        work()
    assert done == ["last", "first"]
    assert not blocked() & set(signals.ENDING)


def test_a_fault_of_our_own_in_a_clean_up_is_told() -> None:
    undo = contextlib.ExitStack()
    undo.callback(int, "x")
    with pytest.raises(ValueError, match="invalid literal"):
        commit._undo(undo)
    assert not blocked() & set(signals.ENDING)


# --- files --------------------------------------------------------------------------------------


def test_files_are_private_whatever_the_umask_says(tmp_path: Path) -> None:
    outside = os.umask(0)
    try:
        with commit._private_files():
            (tmp_path / "inside").touch()
            (tmp_path / "within").mkdir()
        with pytest.raises(ZeroDivisionError), commit._private_files():
            assert 1 / 0
        (tmp_path / "outside").touch()
    finally:
        os.umask(outside)
    modes = {one.name: one.stat().st_mode & 0o777 for one in tmp_path.iterdir()}
    assert modes == {"inside": 0o600, "within": 0o700, "outside": 0o666}


# --- races --------------------------------------------------------------------------------------


def test_a_refusal_while_nothing_changes_is_no_race() -> None:
    lost = LostRace()
    lost.__cause__ = KernelError("bpf_link_update", 16)
    error = commit._no_race(LOOPBACK, lost)
    assert isinstance(error, HookBusyError)
    assert "XDP hook of lo" in error.what
    assert "EBUSY" in error.why
