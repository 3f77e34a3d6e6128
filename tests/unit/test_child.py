"""xdpctl.host.child: the process that libbpf works on users' files in, and how it ends."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from xdpctl.errors import BadObjectError, Interrupted, KernelError, XdpctlError
from xdpctl.host import child, signals

pytestmark = pytest.mark.usefixtures("nothing_is_left")

Work = Callable[[], tuple[Any, list[int]]]


def in_child(work: Work) -> tuple[Any, list[int]]:
    return child.in_child("some.o", work)


@pytest.mark.usefixtures("quiet_crashes")
@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGKILL])
def test_a_child_killed_by_a_signal(number: signal.Signals) -> None:
    def work() -> tuple[Any, list[int]]:
        os.kill(os.getpid(), number)
        return None, []

    with pytest.raises(BadObjectError, match=r"some\.o is corrupt") as caught:
        in_child(work)
    assert f"died on it by {signal.Signals(number).name}" in caught.value.why


def test_answers_come_whole() -> None:
    answer = {"text": "ü" * 300_000, "list": [1, None, True]}
    assert in_child(lambda: (answer, [])) == (answer, [])


def test_descriptors_come_over_in_order() -> None:
    one, other = socket.socketpair()
    with one, other:
        answer, fds = in_child(lambda: ("sent", [other.fileno(), one.fileno()]))
        assert answer == "sent"
        assert len(fds) == 2
        assert os.fstat(fds[0]).st_ino == os.fstat(other.fileno()).st_ino
        assert os.fstat(fds[1]).st_ino == os.fstat(one.fileno()).st_ino
        for fd in fds:
            os.close(fd)


def test_errors_of_the_kernel_come_over() -> None:
    def work() -> tuple[Any, list[int]]:
        raise KernelError("bpf_object__load", errno.EPERM, "the log\n" * (1 << 18))

    with pytest.raises(KernelError) as caught:
        in_child(work)
    error = caught.value
    assert (error.call, error.errno) == ("bpf_object__load", errno.EPERM)
    assert error.log.endswith("the log\n")
    assert len(error.log) == 1 << 20  # its end, as long as it may be


def test_other_errors_come_over_as_ours() -> None:
    def work() -> tuple[Any, list[int]]:
        raise RuntimeError("not foreseen")

    with pytest.raises(XdpctlError, match=r"cannot handle some\.o") as caught:
        in_child(work)
    assert caught.value.why == "RuntimeError: not foreseen"


def test_a_signal_to_the_parent_ends_the_child() -> None:
    begin = time.monotonic()

    def work() -> tuple[Any, list[int]]:
        time.sleep(0.1)  # what is raised in Python's own code after a fork is lost
        os.kill(os.getppid(), signal.SIGTERM)
        time.sleep(60)
        return None, []

    with signals.handled(), pytest.raises(Interrupted):
        in_child(work)
    assert time.monotonic() - begin < 30


def test_a_child_ends_with_its_parent() -> None:
    """It has the parent's locks, and would keep them."""
    script = """
import os, time
from xdpctl.host import child, signals
def work():
    print(os.getpid(), flush=True)
    time.sleep(60)
child.in_child("some.o", work)
"""
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert int(parent.stdout.readline()) != parent.pid
        parent.kill()
        parent.wait()
        # The end of its output: nobody has the other end of the pipe any more.
        begin = time.monotonic()
        assert parent.stdout.read() == ""
        assert time.monotonic() - begin < 30


# --- one that is asked several times ------------------------------------------------------------


def test_one_process_answers_several_questions() -> None:
    with child.Worker(
        "some.o", lambda question: ({"again": question, "pid": os.getpid()}, [])
    ) as one:
        answers = [one.ask({"number": number})[0] for number in range(3)]
    assert [answer["again"]["number"] for answer in answers] == [0, 1, 2]
    assert len({answer["pid"] for answer in answers} - {os.getpid()}) == 1


def test_what_it_raises_does_not_end_it() -> None:
    def work(question: dict[str, Any]) -> tuple[Any, list[int]]:
        if question["number"]:
            raise KernelError("bpf_prog_load", errno.EINVAL, "no")
        return {"fine": True}, []

    with child.Worker("some.o", work) as one:
        for number in (0, 1, 0, 1):
            with pytest.raises(KernelError) if number else contextlib.nullcontext():
                assert one.ask({"number": number}) == ({"fine": True}, [])


@pytest.mark.usefixtures("quiet_crashes")
def test_one_that_crashes_is_gone_and_says_so() -> None:
    def work(question: dict[str, Any]) -> tuple[Any, list[int]]:
        if question["crash"]:
            os.kill(os.getpid(), signal.SIGSEGV)
        return {}, []

    with child.Worker("some.o", work) as one:
        one.ask({"crash": False})
        with pytest.raises(BadObjectError, match="corrupt"):
            one.ask({"crash": True})
        with pytest.raises(XdpctlError, match="cannot handle") as caught:
            one.ask({"crash": False})
    assert "gave no answer" in caught.value.why


def test_it_has_only_what_it_keeps() -> None:
    """Neither a lock of its parent's nor what it has handed over."""
    ours, theirs = socket.socketpair()

    def work(question: dict[str, Any]) -> tuple[Any, list[int]]:
        there = len(os.listdir("/proc/self/fd")) - 1  # without that of the listing
        return {"there": there}, [os.open("/dev/null", os.O_RDONLY)]

    with ours, theirs, child.Worker("some.o", work, keeping=[ours.fileno()]) as one:
        theirs.close()
        for _time in range(3):
            answer, fds = one.ask()
            os.close(*fds)
            assert answer["there"] == 5, "three streams, the question's socket, what it keeps"


def test_garbage_of_the_parent_closes_nothing_of_its_own() -> None:
    """A file that nobody refers to but itself, with a number that is another one's later."""

    class Own:
        def __init__(self) -> None:
            self.file = Path("/dev/null").open()  # noqa: SIM115
            self.itself = self

    def work(_question: dict[str, Any]) -> tuple[Any, list[int]]:
        made = [os.open("/dev/zero", os.O_RDONLY) for _ in range(20)]
        gc.set_threshold(1)
        return {"more": [[] for _ in range(1000)]}, made

    before = gc.get_threshold()
    gc.set_threshold(1_000_000)
    try:
        garbage = [Own() for _ in range(10)]
        del garbage
        with child.Worker("some.o", work, keeping=[]) as one:
            _answer, fds = one.ask()
        for fd in fds:
            os.close(fd)
    finally:
        gc.set_threshold(*before)
        gc.collect()


@pytest.mark.long
@pytest.mark.usefixtures("quiet_crashes")
def test_processor_time_is_limited_for_each_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one whole number of seconds after another: the kernel knows no parts of them."""
    monkeypatch.setattr(child, "_CPU_SECONDS", 2)

    def work(question: dict[str, Any]) -> tuple[Any, list[int]]:
        end = time.process_time() + question["seconds"]
        while time.process_time() < end:
            pass
        return {}, []

    with child.Worker("some.o", work, keeping=[]) as one:
        for _time in range(6):
            one.ask({"seconds": 0.5})
        with pytest.raises(BadObjectError) as caught:
            one.ask({"seconds": 10})
    assert "SIGXCPU" in caught.value.why
    with pytest.raises(BadObjectError):
        in_child(lambda: work({"seconds": 10}))
