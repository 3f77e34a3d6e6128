"""xdpctl.commit, as far as it goes without a kernel: refusals and signals."""

from __future__ import annotations

import errno
import os
import re
import signal

import pytest

from tests.unit.samples import chain_of, fresh
from xdpctl import commit, pins
from xdpctl.errors import KernelError, UnsupportedError, VanishedError, XdpctlError
from xdpctl.observe import State
from xdpctl.plan import make_plan

LOOPBACK = pins.Interface.named("lo")
GONE = pins.Interface("gone0", 2**31 - 1, LOOPBACK.netns)


def attempt(interface: pins.Interface = LOOPBACK) -> commit._Commit:
    """An attempt at loading two programs, one of them without frags, onto a bare interface."""
    state = State(interface, None, ())
    target = chain_of(fresh("whole", frags=True), fresh("plain"))
    report = commit.Report(make_plan(state, target, None), state)
    bpffs = pins.Bpffs("/bpffs")
    return commit._Commit(bpffs, bpffs.interface(interface), report, lambda _step: None)


@pytest.mark.parametrize(
    ("number", "kind", "text"),
    [
        (errno.ERANGE, UnsupportedError, "plain lacks it"),
        (errno.EOPNOTSUPP, UnsupportedError, "-m skb"),
        (errno.EINVAL, UnsupportedError, "native mode"),
        (errno.ENOMEM, XdpctlError, "cannot attach"),
    ],
)
def test_refusals_of_the_kernel(number: int, kind: type[XdpctlError], text: str) -> None:
    with pytest.raises(XdpctlError) as caught, attempt().refusals("attach"):
        raise KernelError("bpf_link_create", number, "")
    assert type(caught.value) is kind
    error = caught.value
    assert text in f"{error.what} {error.why} {error.hint}"
    assert re.search(r"\blo\b", error.what)


@pytest.mark.parametrize("number", [errno.EBUSY, errno.EEXIST, errno.EPERM])
def test_lost_races_are_no_errors(number: int) -> None:
    with pytest.raises(commit._LostRace), attempt().refusals("update"):
        raise KernelError("bpf_link_update", number)


@pytest.mark.parametrize("number", [errno.ENODEV, errno.ENOLINK, errno.EINVAL])
def test_an_interface_that_went_away(number: int) -> None:
    with pytest.raises(VanishedError, match="gone0 went away"), attempt(GONE).refusals("update"):
        raise KernelError("bpf_link_update", number)


def test_what_the_kernel_said_is_quoted() -> None:
    with pytest.raises(XdpctlError) as caught, attempt().refusals("update"):
        raise KernelError("bpf_link_update", errno.EINVAL, "libbpf: the reason\n")
    assert caught.value.why == "libbpf: the reason"
    assert type(caught.value) is XdpctlError  # -m skb would be no remedy for an update


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_wait_for_the_end_of_the_commit(number: signal.Signals) -> None:
    arrived: list[int] = []
    handler = signal.signal(number, lambda got, _frame: arrived.append(got))
    try:
        with commit._signals_blocked():
            os.kill(os.getpid(), number)
            assert arrived == []
        assert arrived == [number]
        os.kill(os.getpid(), number)
        assert arrived == [number, number]
    finally:
        signal.signal(number, handler)
