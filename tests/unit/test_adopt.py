"""xdpctl adopt: its command line, and which program it lets a new member stand for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import click
import pytest

from tests.unit.samples import DROP, PASS, built, chain_of, fresh, running, state_of
from xdpctl.change import planning
from xdpctl.cli.commands import adopt
from xdpctl.cli.run import run
from xdpctl.errors import HookBusyError, NotFoundError
from xdpctl.host.holders import Holder
from xdpctl.model.chain import Chain
from xdpctl.model.plan import make_plan
from xdpctl.model.request import Request
from xdpctl.model.state import State

BARE = state_of([], owner="other", link_id=0)
LINKED = state_of([], owner="other", link_id=77)


class Asked:
    """What the command asks of a change, in place of the change."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.target: Callable[[State], Chain] | None = None
        self.interface = ""
        self.request: object = None
        patch.setattr(adopt, "change", self.change)

    def change(
        self,
        _settings: object,
        command: str,
        _bpffs: object,
        interface: str,
        target: Callable[[State], Chain],
        *options: object,
    ) -> None:
        assert command == "adopt"
        self.interface, self.target, self.request = interface, target, options[-1]

    def chain(self, state: State) -> Chain:
        assert self.target is not None
        return self.target(state)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    return Asked(monkeypatch)


# --- the command line ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["lo"], "xdpctl adopt lo FILE"),
        (["--object", "f.o"], "INTERFACE"),
        (["lo", "count.o", "--object", "count.o"], "FILE is given twice"),
        (["lo", "count.o", "pass.o"], "pass.o"),
        (["lo", "--object", "count.o", "-P", "-1"], "--prio"),
        (["lo", "--object", "count.o", "-A", "XDP_MAYBE"], "XDP_MAYBE"),
        (["lo", "--object", "count.o", "--protocol", "0"], "--protocol"),
        (["lo", "--object", "count.o", "--protocol", "4"], "--protocol"),
        (["lo", "--object", "count.o", "--root", "tape"], "tape"),
        (["lo", "--object", "count.o", "-m", "skb"], "-m"),
        (["lo", "--object", "count.o", "--attach", "link"], "--attach"),
        (["lo", "--object", "tailcall.o"], "several XDP programs"),
    ],
)
def test_usage_errors(
    asked: Asked,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    text: str,
) -> None:
    """It is attached as it is: neither the mode nor the way can be chosen."""
    monkeypatch.chdir(Path(built("count")).parent)
    assert run(["adopt", *arguments]) == 2
    assert text in capsys.readouterr().err
    assert asked.target is None


@pytest.mark.parametrize(
    ("file", "code"), [("/nonexistent/f.o", 3), ("/bin/sh", 4), ("noprog.o", 4)]
)
def test_a_file_that_will_not_do(
    asked: Asked, monkeypatch: pytest.MonkeyPatch, file: str, code: int
) -> None:
    monkeypatch.chdir(Path(built("noprog")).parent)
    assert run(["adopt", "lo", "--object", file]) == code
    assert asked.target is None


def test_the_member_is_what_the_options_say(asked: Asked) -> None:
    words = ["-n", "callee_drop", "-P", "7", "-A", "drop"]
    assert run(["adopt", "lo", "--object", built("tailcall"), *words]) == 0
    (member,) = asked.chain(BARE).members
    assert (member.name, member.priority, member.actions) == ("callee_drop", 7, DROP)
    source = member.source
    assert source is not None
    told = (source.program, source.pin_path, source.maps_of, source.forced)
    assert told == ("callee_drop", "/sys/fs/bpf", 500, False)
    assert run(["adopt", "lo", "--object", built("several"), "-s", "xdp/second"]) == 0
    assert asked.chain(BARE).members[0].name == "second"


def test_the_file_stands_behind_the_interface_or_an_option(asked: Asked) -> None:
    for words in ([built("count")], ["--object", built("count")]):
        assert run(["adopt", "lo", *words]) == 0
        assert asked.chain(BARE).members[0].name == "count"


def test_without_options_it_is_what_the_file_says(asked: Asked) -> None:
    assert run(["adopt", "lo", "--object", built("count")]) == 0
    (member,) = asked.chain(BARE).members
    assert (asked.interface, member.name) == ("lo", "count")
    assert (member.priority, member.actions, member.id) == (50, PASS, 0)
    assert asked.request == Request(adopts=True)


def test_the_root_is_what_the_options_say(asked: Asked) -> None:
    words = ["--root", "fused", "--protocol", "3"]
    assert run(["adopt", *words, "lo", "--object", built("count")]) == 0
    assert asked.request == Request(kind="fused", protocol=3, adopts=True)


@pytest.mark.parametrize("command", ["load", "swap-dispatcher"])
@pytest.mark.parametrize("protocol", ["0", "4", "two"])
def test_other_commands_know_the_same_protocols(
    command: str, protocol: str, capsys: pytest.CaptureFixture[str]
) -> None:
    files = ["f.o"] if command == "load" else []
    assert run([command, "--protocol", protocol, "lo", *files]) == 2
    assert "--protocol" in capsys.readouterr().err


# --- what is adopted ----------------------------------------------------------------------------


@pytest.mark.parametrize("force", [False, True])
def test_a_program_over_netlink(force: bool) -> None:
    found = adopt._in_place_of(BARE, fresh("new"), force)
    assert found.source is not None
    assert (found.source.maps_of, found.source.forced) == (500, force)
    assert replace(found, source=fresh("new").source) == fresh("new")


def test_a_link_of_anothers_is_taken_by_force_alone() -> None:
    with pytest.raises(
        HookBusyError, match=r"program 500 \(firewall\) on veth7 .* bpf_link"
    ) as got:
        adopt._in_place_of(LINKED, fresh("new"), force=False)
    assert "link 77" in got.value.why
    assert "--force" in got.value.hint
    found = adopt._in_place_of(LINKED, fresh("new"), force=True)
    assert found.source is not None
    assert found.source.maps_of == 500


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize(
    "state",
    [
        state_of([running("one", 11)]),
        state_of([running("one", 11)], kind="fused"),
        state_of([running("one", 11)], owner="libxdp", link_id=0),
    ],
    ids=["ours", "fused", "libxdp's"],
)
def test_a_root_is_joined_and_not_adopted(state: State, force: bool) -> None:
    with pytest.raises(HookBusyError) as caught:
        adopt._in_place_of(state, fresh("new"), force)
    assert "xdpctl load veth7 FILE" in caught.value.hint


def test_where_nothing_runs_there_is_nothing_to_adopt() -> None:
    with pytest.raises(NotFoundError, match="veth7 runs no XDP program") as caught:
        adopt._in_place_of(state_of(None), fresh("new"), force=True)
    assert "xdpctl load veth7 FILE" in caught.value.hint


# --- who holds what stands in the way -----------------------------------------------------------


def test_a_busy_hook_names_the_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that hold the link or the program itself, each once."""

    def holders(handles: list[tuple[str, int]]) -> dict[tuple[str, int], list[Holder]]:
        assert handles == [("link_id", 77), ("prog_id", 500)]
        link, program = handles
        agent = Holder(4711, "agent", 5)
        return {link: [agent], program: [agent, Holder(12, "other", 3)]}

    monkeypatch.setattr("xdpctl.host.holders.holders", holders)
    with pytest.raises(HookBusyError) as caught:
        make_plan(LINKED, chain_of(fresh("new")))
    error = caught.value
    planning._name_holders(error, LINKED)
    assert error.why.endswith("bpf_link 77; held by process 12 (other), 4711 (agent)")
    assert error.exit_code == 8


def test_a_busy_hook_whose_holder_cannot_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xdpctl.host.holders.holders", lambda _handles: {})
    error = HookBusyError("busy", why="its hook holds program 500")
    for state in (BARE, state_of(None)):
        planning._name_holders(error, state)
        assert error.why == "its hook holds program 500"


def test_its_help_says_what_it_is_for() -> None:
    assert isinstance(adopt.command, click.Command)
    assert "first member of a chain" in (adopt.command.help or "")
