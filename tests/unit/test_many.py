"""xdpctl.cli.many: a change on many interfaces, with work of the tests' own."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import pytest

from tests.unit.samples import HOME, chain_of, ending_signals, fresh, running, send, state_of
from tests.unit.terminal import on_terminal
from xdpctl.change.batch import Batch
from xdpctl.change.report import Report
from xdpctl.cli import outcomes, xdp_loader
from xdpctl.cli.commands import status
from xdpctl.cli.many import change_each
from xdpctl.cli.run import run
from xdpctl.cli.settings import Settings
from xdpctl.errors import (
    BadObjectError,
    HookBusyError,
    Interrupted,
    KernelError,
    RaceError,
    VanishedError,
    XdpctlError,
)
from xdpctl.host import output, rights, signals
from xdpctl.host.interfaces import Interface
from xdpctl.model.plan import make_plan
from xdpctl.model.state import State
from xdpctl.observe.reading import View
from xdpctl.view.document import SCHEMA

FOUND = [Interface(f"eth{number}", 10 + number, "4711") for number in range(4)]
BUSY, BAD = HookBusyError("hook is busy", why="so it is", hint="wait"), BadObjectError("no object")
VIEW = View({})

handlers = pytest.fixture(ending_signals)


class Work:
    """Loads one program onto each interface, with an error or a late signal for some.

    Remembers who came.
    """

    def __init__(
        self,
        errors: Mapping[str, Exception] | None = None,
        late: Mapping[str, int] | None = None,
    ) -> None:
        self.errors = errors or {}
        self.late = late or {}  # signals that come after the flips of these
        self.came: list[str] = []

    def __call__(self, interface: Interface, batch: Batch | None) -> Report:
        assert batch is not None
        assert batch.view is VIEW
        signals.release()
        self.came.append(interface.name)
        if interface.name in self.errors:
            raise self.errors[interface.name]
        state = State(interface, None, (), HOME.home)
        plan = make_plan(state, chain_of(fresh("new")))
        members = (running("new", 90 + interface.ifindex),)
        signals.hold()
        if interface.name in self.late:
            send(self.late[interface.name])
        return Report(plan, state, members, 500)


def code_of(work: Work, settings: Settings, command: str = "load") -> int:
    """The exit code of a change."""
    try:
        change_each(settings, command, FOUND, work, Batch(VIEW))
    except click.exceptions.Exit as done:
        return done.exit_code
    return 0


def test_each_interface_has_a_result_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    work = Work()
    assert code_of(work, Settings()) == 0
    captured = capsys.readouterr()
    assert captured.out.splitlines() == [
        f"eth{number}: loaded new (id {100 + number})" for number in range(4)
    ]
    assert captured.err == ""
    assert work.came == ["eth0", "eth1", "eth2", "eth3"]


def test_the_others_are_changed_all_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    work = Work({"eth0": BUSY, "eth2": BUSY})
    assert code_of(work, Settings()) == 8
    captured = capsys.readouterr()
    assert captured.out.splitlines() == [
        "eth1: loaded new (id 101)",
        "eth3: loaded new (id 103)",
    ]
    text = ["hook is busy", "  why: so it is", "  do: wait"]
    assert captured.err.splitlines() == [
        *(f"xdpctl: eth0: {text[0]}", *text[1:]),
        *(f"xdpctl: eth2: {text[0]}", *text[1:]),
        "xdpctl: 2 of 4 interfaces failed: eth0, eth2",
    ]
    assert work.came == ["eth0", "eth1", "eth2", "eth3"]


@pytest.mark.parametrize(
    ("errors", "code"),
    [
        ({}, 0),
        ({"eth3": BAD}, 4),
        ({"eth0": BUSY, "eth1": BUSY, "eth2": BUSY, "eth3": BUSY}, 8),
        ({"eth0": BUSY, "eth3": BAD}, 1),
        ({"eth0": XdpctlError("failed")}, 1),
    ],
)
def test_the_exit_code_is_that_of_the_failures(
    errors: dict[str, Exception], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert code_of(Work(errors), Settings(quiet=True)) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    if errors:
        last = captured.err.splitlines()[-1]
        assert last == f"xdpctl: {len(errors)} of 4 interfaces failed: {', '.join(errors)}"


def test_a_signal_stops_the_rest(capsys: pytest.CaptureFixture[str]) -> None:
    work = Work({"eth1": Interrupted(15)})
    assert code_of(work, Settings()) == 143
    captured = capsys.readouterr()
    assert work.came == ["eth0", "eth1"]
    assert captured.out.splitlines() == ["eth0: loaded new (id 100)"]
    assert captured.err.splitlines() == [
        "xdpctl: eth1: interrupted by signal 15",
        "xdpctl: 3 of 4 interfaces failed: eth1, eth2, eth3",
    ]


def test_a_signal_after_another_failure(capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of(Work({"eth0": BUSY, "eth1": Interrupted(2)}), Settings()) == 1
    assert capsys.readouterr().err.splitlines()[-1].endswith("failed: eth0, eth1, eth2, eth3")


def test_what_the_kernel_refuses_on_one_does_not_stop_the_rest(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Such as ENOMEM: an error of one interface like any other."""
    work = Work({"eth1": KernelError("bpf_prog_load", 12)})
    assert code_of(work, Settings()) == 1
    assert work.came == ["eth0", "eth1", "eth2", "eth3"]
    assert capsys.readouterr().err.splitlines() == [
        "xdpctl: eth1: a kernel call failed: bpf_prog_load",
        "  why: bpf_prog_load: Cannot allocate memory (ENOMEM)",
        "  do: there is not enough memory: see ulimit -v, and the limits of the control group",
        "xdpctl: 1 of 4 interfaces failed: eth1",
    ]


@pytest.mark.usefixtures("handlers")
@pytest.mark.parametrize("options", [Settings(), Settings(json=True)], ids=["text", "json"])
def test_a_signal_after_a_flip_stops_the_rest(
    options: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    """The interface that was flipped is changed, and said to be; those after it fail."""
    work = Work(late={"eth1": 15})
    assert code_of(work, options) == 143
    assert work.came == ["eth0", "eth1"]
    captured = capsys.readouterr()
    told = ["xdpctl: eth2: interrupted by signal 15"] if not options.json else []
    last = "xdpctl: 2 of 4 interfaces failed: eth2, eth3"
    assert captured.err.splitlines() == [*told, last]
    if options.json:
        documents = json.loads(captured.out)["interfaces"]
        assert [one["interface"] for one in documents] == ["eth0", "eth1", "eth2", "eth3"]
        assert [one["programs"][0]["id"] for one in documents[:2]] == [100, 101]
        assert [one["error"]["exit_code"] for one in documents[2:]] == [143, 143]
    else:
        assert captured.out.splitlines() == [
            "eth0: loaded new (id 100)",
            "eth1: loaded new (id 101)",
        ]


@pytest.mark.usefixtures("handlers")
def test_a_signal_after_the_last_flip_came_too_late(capsys: pytest.CaptureFixture[str]) -> None:
    """All that was asked is done."""
    assert code_of(Work(late={"eth3": 2}), Settings(quiet=True)) == 0
    assert capsys.readouterr().err == ""


# --- documents ----------------------------------------------------------------------------------


def document(capsys: pytest.CaptureFixture[str]) -> tuple[dict[str, Any], str]:
    captured = capsys.readouterr()
    found = json.loads(captured.out)  # one, or this fails
    assert found["schema"] == SCHEMA
    return dict(found), captured.err


def test_one_document_for_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of(Work({"eth2": BUSY}), Settings(json=True)) == 8
    data, err = document(capsys)
    assert (data["command"], data["dry_run"]) == ("load", False)
    assert [one["interface"] for one in data["interfaces"]] == ["eth0", "eth1", "eth2", "eth3"]
    ids = [[program["id"] for program in one.get("programs", [])] for one in data["interfaces"]]
    assert ids == [[100], [101], [], [103]]
    errors = [one.get("error") for one in data["interfaces"]]
    assert errors == [None, None, BUSY.as_dict(), None]
    assert err == "xdpctl: 1 of 4 interfaces failed: eth2\n"


def test_a_dry_run_as_a_document(capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of(Work(), Settings(json=True, dry_run=True)) == 0
    data, err = document(capsys)
    assert (data["dry_run"], err) == (True, "")


def test_the_document_of_a_command_that_a_signal_ended(capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of(Work({"eth1": Interrupted(15)}), Settings(json=True)) == 143
    data, err = document(capsys)
    # The interfaces that nobody came to have failed, too, and are there.
    assert [one["interface"] for one in data["interfaces"]] == ["eth0", "eth1", "eth2", "eth3"]
    codes = [one["error"]["exit_code"] for one in data["interfaces"][1:]]
    assert codes == [143, 143, 143]
    assert err == "xdpctl: 3 of 4 interfaces failed: eth1, eth2, eth3\n"


# --- commands -----------------------------------------------------------------------------------


def test_a_swap_of_many_tells_the_roots(capsys: pytest.CaptureFixture[str]) -> None:
    def work(interface: Interface, batch: Batch | None) -> Report:
        state = state_of([running("one", 11)])
        named = State(interface, state.root, (), HOME.home)
        return Report(make_plan(named, state.chain), named, state.chain.members, 501)

    change_each(Settings(), "swap-dispatcher", FOUND[:2], work, Batch(VIEW))
    assert capsys.readouterr().out.splitlines() == ["eth0: root 500 → 501", "eth1: root 500 → 501"]
    change_each(Settings(quiet=True), "swap-dispatcher", FOUND[:2], work, Batch(VIEW))
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_command_line_with_a_pattern(
    options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a bpffs, or a right to it, each interface fails, and why is told once."""
    code = run(["unload", "*", "--all", "--bpffs", str(tmp_path), *options])
    assert code == (9 if os.geteuid() == 0 else 6)
    captured = capsys.readouterr()
    names = [one.name for one in Interface.all()]
    last = captured.err.splitlines()[-1]
    count = len(names)
    assert last == f"xdpctl: {count} of {count} interfaces failed: {', '.join(names)}"
    if options:
        documents = json.loads(captured.out)["interfaces"]
        assert [one["interface"] for one in documents] == names
        assert {one["error"]["exit_code"] for one in documents} == {code}
    else:
        assert captured.out == ""
        assert len(re.findall(r"^xdpctl: \S+: ", captured.err, re.MULTILINE)) == 1


def test_a_progress_bar_is_for_a_terminal(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On standard error, where a person looks on and has to wait; elsewhere there is none."""

    def work() -> None:
        change_each(Settings(), "load", FOUND, Work(), Batch(VIEW))

    assert on_terminal(work, stream="stderr") == ""
    monkeypatch.setattr(outcomes, "_SOON", 0)
    said = on_terminal(work, stream="stderr")
    assert "load" in said
    assert "75%" in said
    capfd.readouterr()
    work()
    captured = capfd.readouterr()
    assert captured.err == ""
    # What is printed meanwhile goes where it went.
    assert captured.out

    def as_a_command() -> None:
        with output.prepared():
            work()

    shown = on_terminal(as_a_command, stream="stderr")
    assert capfd.readouterr().out == captured.out
    assert captured.out not in shown
    # And rich's controls are not escaped.
    assert "75%" in shown
    assert r"\x1b" not in shown


# --- looks --------------------------------------------------------------------------------------


@pytest.fixture
def observed(monkeypatch: pytest.MonkeyPatch) -> dict[str, Exception]:
    """Four interfaces that run nothing, and the errors with which some are to be read."""
    errors: dict[str, Exception] = {}

    def observe(interface: Interface, bpffs: object, view: object = None) -> State:
        if interface.name in errors:
            raise errors[interface.name]
        return State(interface, None, (), HOME.home)

    monkeypatch.setattr(status, "observe", observe)
    monkeypatch.setattr(status, "View", lambda: VIEW)
    monkeypatch.setattr(rights, "require", lambda: None)
    monkeypatch.setattr(Interface, "all", lambda: FOUND)
    monkeypatch.setattr(Interface, "named", lambda name: FOUND[int(name[-1])])
    return errors


NOWHERE = NotADirectoryError(20, "Not a directory", "/left")


@pytest.mark.parametrize("words", [["status"], ["status", "eth?"], ["show", "eth*"]])
def test_what_cannot_be_read_does_not_hide_the_rest(
    words: list[str], observed: dict[str, Exception], capsys: pytest.CaptureFixture[str]
) -> None:
    """It is named, by itself and with all others; one that goes meanwhile is just not there."""
    observed |= {"eth0": KernelError("bpf_obj_get", 13), "eth2": NOWHERE, "eth3": VanishedError("")}
    assert run(words) == 1
    captured = capsys.readouterr()
    assert re.findall(r"^(eth\d).*No XDP program", captured.out, re.MULTILINE) == ["eth1"]
    assert captured.err.splitlines() == [
        "xdpctl: eth0: a kernel call failed: bpf_obj_get",
        "  why: bpf_obj_get: Permission denied (EACCES)",
        "xdpctl: eth2: a system call failed",
        "  why: [Errno 20] Not a directory: '/left'",
        "xdpctl: 2 of 3 interfaces failed: eth0, eth2",
    ]
    assert run([*words, "--json"]) == 1
    data, err = document(capsys)
    assert (data["command"], err) == (words[0], captured.err.splitlines()[-1] + "\n")
    assert [one["interface"] for one in data["interfaces"]] == ["eth0", "eth1", "eth2"]
    assert [one.get("error", {}).get("exit_code") for one in data["interfaces"]] == [1, None, 1]


def test_the_exit_code_of_looks_is_that_of_the_failures(
    observed: dict[str, Exception], capsys: pytest.CaptureFixture[str]
) -> None:
    observed["eth1"] = RaceError("restless")
    assert run(["status"]) == 11
    assert xdp_loader.run(["status"]) == 256 - 16  # EBUSY
    assert capsys.readouterr().err.splitlines()[-1] == "xdp-loader: 1 of 4 interfaces failed: eth1"
    observed["eth0"] = NOWHERE
    assert run(["status"]) == 1
    assert xdp_loader.run(["status"]) == 256 - 5  # EIO


@pytest.mark.parametrize(("error", "code"), [(NOWHERE, 1), (VanishedError("it went"), 12)])
def test_one_that_is_named_and_cannot_be_read(
    error: Exception,
    code: int,
    observed: dict[str, Exception],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Told as the error of the command, without rows."""
    observed["eth2"] = error
    assert run(["status", "eth2"]) == code
    captured = capsys.readouterr()
    assert (captured.out, "interfaces failed" in captured.err) == ("", False)


def test_a_signal_ends_a_look_at_all(
    observed: dict[str, Exception], capsys: pytest.CaptureFixture[str]
) -> None:
    observed["eth1"] = Interrupted(15)
    assert run(["status"]) == 143
    assert capsys.readouterr() == ("", "xdpctl: interrupted by signal 15\n")
