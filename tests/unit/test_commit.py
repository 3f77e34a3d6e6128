"""xdpctl.change.commit, as far as it goes without a kernel: clean-up, files, kinds of root."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.unit.samples import (
    INTERFACE,
    LOOPBACK,
    blocked,
    chain_of,
    ending_signals,
    fresh,
    plan_of,
    running,
    send,
    sent_while_blocking,
    state_of,
)
from xdpctl.bpffs import homes, pin
from xdpctl.bpffs.mount import Bpffs
from xdpctl.change import commit, report, transact
from xdpctl.change.batch import Batch
from xdpctl.errors import (
    BpffsError,
    HookBusyError,
    Interrupted,
    KernelError,
    UnsupportedError,
    VerifierError,
)
from xdpctl.host import rights, signals
from xdpctl.kernel.records import LinkInfo
from xdpctl.model.chain import Chain, Kind, Member
from xdpctl.model.kinds import AskedKind
from xdpctl.model.labels import Origin
from xdpctl.model.plan import Plan
from xdpctl.model.request import Request
from xdpctl.model.state import State
from xdpctl.observe.reading import View
from xdpctl.roots import dispatcher
from xdpctl.roots.hook import LostRace

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
        with pin.private():
            (tmp_path / "inside").touch()
            (tmp_path / "within").mkdir()
        with pytest.raises(ZeroDivisionError), pin.private():
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
    error = transact._no_race(LOOPBACK, lost)
    assert isinstance(error, HookBusyError)
    assert "XDP hook of lo" in error.what
    assert "EBUSY" in error.why


# --- kinds of root ------------------------------------------------------------------------------


class Kernel:
    """One that refuses EXT with `refuses`; what was tried and how often it was asked."""

    def __init__(self, patch: pytest.MonkeyPatch, state: State, refuses: int) -> None:
        self.refuses, self.asked = refuses, 0
        self.tried: list[tuple[Kind, int]] = []
        self.fault: Exception | None = None
        kernel = self

        class Commit:
            """One attempt at a plan."""

            def __init__(self, _bpffs: Bpffs, _paths: object, report: report.Report, *_: object):
                self.plan = report.plan

            flipped = False

            def run(self) -> None:
                kernel.tried.append((self.plan.kind, self.plan.why))
                if kernel.fault:
                    raise kernel.fault
                if self.plan.kind == "ext" and refuses:
                    raise UnsupportedError("EXT is refused")

        def refused() -> int:
            self.asked += 1
            return self.refuses

        patch.setattr(transact, "Commit", Commit)
        patch.setattr(dispatcher, "refused", refused)
        patch.setattr(
            transact,
            "observe",
            lambda one, bpffs, **_: replace(state, home=homes.of(bpffs, one).home),
        )
        patch.setattr(rights, "require", lambda: None)
        patch.setattr(Bpffs, "check", lambda _self: None)
        patch.setattr(Bpffs, "check_safe", lambda _self: None)

    def transact(
        self,
        directory: Path,
        kind: AskedKind | None,
        *,
        dry_run: bool = False,
        view: View | None = None,
        target: Chain | None = None,
    ) -> Plan:
        return transact.transact(
            Bpffs(str(directory)),
            INTERFACE,
            lambda state: target or state.chain.with_added([fresh("new")]),
            Request(kind=kind, dry_run=dry_run),
            batch=Batch(view),
        ).plan


@pytest.mark.parametrize("refuses", [0, 22])
@pytest.mark.parametrize("dry_run", [False, True])
def test_an_empty_root_is_of_the_kind_that_its_first_program_can_join(
    refuses: int, dry_run: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing on it is refused, so that the kernel is asked before it is made, and once."""
    kernel = Kernel(monkeypatch, state_of(None), refuses)
    empty = Chain(kept=True)
    plan = kernel.transact(tmp_path, None, dry_run=dry_run, target=empty)
    assert (plan.kind, plan.why) == ("fused" if refuses else "ext", refuses)
    assert kernel.asked == 1
    kernel = Kernel(monkeypatch, state_of(None), 0)
    assert kernel.transact(tmp_path, "ext", dry_run=dry_run, target=empty).kind == "ext"
    assert kernel.asked == 0


@pytest.mark.parametrize("refuses", [0, 22])
@pytest.mark.parametrize("there", [None, "ext", "fused"])
def test_a_root_of_the_other_kind_where_ext_is_refused(
    there: Kind | None, refuses: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nobody has said which: the kernel is asked once something was refused, not before."""
    state = state_of([running("one", 11)], kind=there) if there else state_of(None)
    choices: tuple[AskedKind | None, ...] = (None, "auto", "ext", "fused")
    for asked, variable in itertools.product(choices, choices):
        monkeypatch.setenv("XDPCTL_ROOT", variable or "")
        kernel = Kernel(monkeypatch, state, refuses)
        # The variable is for first roots; an option goes before it.
        wanted = asked or there or variable or "auto"
        if wanted == "ext" and refuses:
            with pytest.raises(UnsupportedError, match="EXT is refused"):
                kernel.transact(tmp_path, asked)
            assert (kernel.tried, kernel.asked) == ([("ext", 0)], 0)
            continue
        plan = kernel.transact(tmp_path, asked)
        if wanted == "auto" and refuses:
            assert (kernel.tried, kernel.asked) == ([("ext", 0), ("fused", refuses)], 1)
        else:
            assert kernel.tried == [("ext" if wanted == "auto" else wanted, 0)]
            assert kernel.asked == 0
        assert (plan.kind, plan.why) == kernel.tried[-1]


@pytest.mark.parametrize("refuses", [0, 1])
@pytest.mark.parametrize("asked", [None, "ext", "fused"])
def test_a_dry_run_says_which_kind_it_would_be(
    asked: AskedKind | None, refuses: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For many interfaces the kernel is asked once."""
    kernel = Kernel(monkeypatch, state_of(None), refuses)
    view = View(programs={})
    for _interface in range(2):
        plan = kernel.transact(tmp_path, asked, dry_run=True, view=view)
        assert (plan.kind, plan.why) == (
            (asked, 0) if asked else ("fused", 1) if refuses else ("ext", 0)
        )
    assert (kernel.tried, kernel.asked) == ([], 0 if asked else 1)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("fault", [VerifierError("a loop"), KernelError("bpf_link_create", 524)])
def test_a_fault_of_the_program_is_told_where_ext_is_allowed(
    fault: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = Kernel(monkeypatch, state_of(None), 0)
    kernel.fault = fault
    with pytest.raises(type(fault)) as caught:
        kernel.transact(tmp_path, None)
    assert caught.value is fault
    assert (kernel.tried, kernel.asked) == ([("ext", 0)], 1)


def test_a_fault_of_the_program_on_either_kind_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = Kernel(monkeypatch, state_of(None), 1)
    kernel.fault = VerifierError("a loop")
    with pytest.raises(VerifierError, match="a loop"):
        kernel.transact(tmp_path, None)
    assert (kernel.tried, kernel.asked) == ([("ext", 0), ("fused", 1)], 1)


# --- a change of kind ---------------------------------------------------------------------------

ONE, TWO = running("one", 11), running("two", 12)


@pytest.mark.parametrize(
    ("state", "elsewhere", "names"),
    [
        (state_of([ONE, TWO]), [], ""),
        (state_of([ONE, TWO], kind="fused"), [], ""),
        (state_of([ONE, None], kind="fused", arrays={1: 70}), [], ""),
        (state_of([ONE, TWO], kind="fused", arrays={1: 70}), [], "two"),
        (state_of([ONE, TWO], pinned=False), [], "one, two"),
        (state_of([ONE, TWO], origins={0: Origin(90, 4711, "app")}), [], "one"),
        (state_of([ONE, TWO]), [(12, 500)], "two"),
        (state_of([ONE, TWO], pinned=False), [(12, 500)], "one, two"),
        # Links of others' programs and onto others' roots say nothing of these.
        (state_of([ONE, TWO]), [(13, 500), (12, 501)], ""),
        (state_of([ONE, TWO], kind="fused"), [(12, 500)], ""),
    ],
    ids=[
        *("ext", "fused", "an array without a process", "an array", "links", "borrowed"),
        *("pinned elsewhere", "both", "other pins", "pins beside a fused root"),
    ],
)
def test_a_root_whose_members_have_holders_keeps_its_kind(
    state: State,
    elsewhere: list[tuple[int, int]],
    names: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    links = [("/bpffs/app", LinkInfo(100, 2, program, (0, root))) for program, root in elsewhere]
    monkeypatch.setattr(dispatcher, "links_elsewhere", lambda _bpffs: iter(links))
    assert state.root is not None
    other: Kind = "fused" if state.root.kind == "ext" else "ext"

    def check(*members: Member) -> None:
        assert state.root is not None
        plan = plan_of(state, chain_of(*members), kind=other)
        commit._check_movable(Bpffs("/bpffs"), state.root, plan)

    if not names:
        check(*state.chain.members)
        return
    with pytest.raises(UnsupportedError, match=f"veth7 cannot become one of the {other}") as caught:
        check(*state.chain.members, fresh("new"))
    assert f"hold {names}, and" in caught.value.why
    # What leaves does not stand in the way.
    check(fresh("new"))
