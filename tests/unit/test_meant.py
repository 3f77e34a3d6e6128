"""Command lines that people type, and that are wrong: each is answered with what was meant."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.unit.samples import built, running, state_of
from xdpctl.cli import many, meant
from xdpctl.cli.group import COMMANDS
from xdpctl.cli.run import run
from xdpctl.errors import choices, listed

BUSY = state_of([running("count", 9), running("firewall_v2", 11, label="guard")])

WRONG = {
    # commands
    "laod eth0 prog.o": "  do: did you mean load? see xdpctl --help\n",
    "Status": "did you mean status?",
    "unlaod eth0 -a": "did you mean unload?",
    "attach eth0 prog.o": "did you mean load?",
    "detach eth0": "did you mean unload?",
    "list": "did you mean status?",
    "undo eth0": "did you mean rollback?",
    "version": "did you mean --version?",
    "help laod": "did you mean load?",
    "eth0 load prog.o": "the command comes first: xdpctl load eth0 prog.o",
    # places
    "load prog.o eth0": "the interface comes first: xdpctl load eth0 prog.o",
    "load prog.o -P 3": "the interface comes first: xdpctl load INTERFACE prog.o",
    "load dev eth0 prog.o": "leave out dev: xdpctl load eth0 prog.o",
    "apply chain.toml eth0": "the interface comes first: xdpctl apply eth0 chain.toml",
    "replace count eth0 prog.o": "the interface comes first: xdpctl replace eth0 count prog.o",
    "unload count eth0": "the interface comes first: xdpctl unload eth0 count",
    "set guard eth0 -P 3": "the interface comes first: xdpctl set eth0 guard",
    "adopt prog.o eth0": "the interface comes first: xdpctl adopt eth0 prog.o",
    "test eth0 prog.o": "xdpctl test INTERFACE load prog.o",
    "load eth0 eth1 prog.o": "several interfaces are named eth0,eth1",
    "status eth0 eth1": "several interfaces are named eth0,eth1; see xdpctl status --help\n",
    "rollback eth0 3": "did you mean --to 3?",
    # interfaces, programs, files
    "load eht0 prog.o": "did you mean eth0? there are lo, eth0, eth1",
    "status wlan0": "there are lo, eth0, eth1",
    "show": "there are lo, eth0, eth1",
    "unload eth0 cuont": "did you mean count? there are count (id 9), guard (id 11)",
    "set eth0 firewall -P 3": "did you mean firewall_v2? there are count (id 9), guard (id 11)",
    "replace eth0 10 prog.o": "there are count (id 9), guard (id 11)",
    "unload eth0 -i 10": "there are count (id 9), guard (id 11)",
    "load eth0 porg.o": "did you mean prog.o?",
    "load eth0 prog": "did you mean prog.o?",
    "load eth0 several.o -n secnd": "did you mean second?",
    "load eth0 several.o -s xdp/secnd": "did you mean xdp/second?",
    "load eth0 prog.o --before guad": "did you mean guard?",
    # options
    "load eth0 prog.o --proi 3": "--prio",
    "load eth0 prog.o -prio 3": "did you mean --prio?",
    "unload eth0 -all": "did you mean --all?",
    "set eth0 count prio 3": "did you mean --prio?",
    "load eth0 prog.o -A XDP_PAS": "did you mean XDP_PASS?",
    "load eth0 prog.o -m genric": "'skb'",
    "load eth0 prog.o -A pass tx": "actions stand in one word: -A pass,tx",
    "test load eth0 prog.o": "the interface comes first: xdpctl test eth0 load prog.o",
    "test eth0 laod prog.o": "did you mean load?",
    # chain files
    "apply eth0 chain.toml": "did you mean prio?",
    "apply eth0 chian.toml": "did you mean chain.toml?",
    "--netns nosuch status": "there are none",
}


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Two interfaces, one of which runs two programs; some files."""
    numbers = {"lo": 1, "eth0": 2, "eth1": 3}
    socket = "xdpctl.host.interfaces.socket"
    names = {number: name for name, number in numbers.items()}
    monkeypatch.setattr(f"{socket}.if_nameindex", lambda: list(names.items()))
    monkeypatch.setattr(f"{socket}.if_nametoindex", lambda name: numbers.get(name, 0))
    monkeypatch.setattr(f"{socket}.if_indextoname", names.__getitem__)
    monkeypatch.setattr("xdpctl.cli.settings.os.listdir", lambda _path: [])

    def transact(_bpffs: Any, _one: Any, target: Any, *_words: Any, **_options: Any) -> None:
        target(BUSY)
        pytest.fail("it is not wrong")

    monkeypatch.setattr(many, "transact", transact)
    monkeypatch.setattr("xdpctl.host.rights.require", lambda: None)
    monkeypatch.chdir(tmp_path)
    shutil.copy(built("count"), "prog.o")
    shutil.copy(built("several"), "several.o")
    Path("chain.toml").write_text("[[program]]\nfile = 'prog.o'\npiro = 3\n")


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize("line", WRONG)
def test_it_says_what_was_meant(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(line.split()) in (2, 3, 4)
    told = capsys.readouterr().err
    assert WRONG[line] in told
    assert len(told.splitlines()) <= 3


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize(
    "line", ["xyzzy", "status qqqq", "load eth0 qqqq", "unload eth0 qqqq", "load eth0 prog.o -n q"]
)
def test_nothing_is_made_up(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(line.split()) in (2, 3)
    assert "did you mean" not in capsys.readouterr().err


def test_words_of_other_tools_are_no_commands_and_name_some() -> None:
    assert not set(meant.OTHERS) & set(COMMANDS)
    assert {*meant.OTHERS.values()} - {"--version"} <= set(COMMANDS)


def test_long_lists_are_cut() -> None:
    names = [f"eth{number}" for number in range(100)]
    assert listed(names) == ", ".join(names[:12]) + " and 88 more"
    assert choices("eth", []) == "there are none"
    assert choices("x", ["eth0"]) == "there is eth0"
