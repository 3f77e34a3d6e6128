"""One grammar for all commands: the same words mean the same, wherever they stand."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.samples import built, running, standard_input, state_of
from xdpctl import __version__
from xdpctl.cli.commands import load
from xdpctl.cli.options import ChangeOptions
from xdpctl.cli.run import run
from xdpctl.errors import BadObjectError, UsageError, XdpctlError
from xdpctl.host import files
from xdpctl.model.chain import Chain, Member, Rules
from xdpctl.model.request import Request
from xdpctl.model.state import State


class Loaded:
    """What `load` hands to the transaction, which does not run."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.target: Callable[[State], Chain] | None = None
        self.request = Request()
        patch.setattr(load, "change", self.change)

    def change(self, *words: Any, **_options: object) -> None:
        self.target, self.request = words[4], words[6]

    def chain(self, state: State) -> Chain:
        assert self.target is not None
        return self.target(state)


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> Loaded:
    monkeypatch.chdir(Path(built("count")).parent)
    return Loaded(monkeypatch)


@pytest.mark.parametrize(
    ("words", "mode"),
    [
        (("native", "driver", "xdpdrv"), "native"),
        (("skb", "generic", "xdpgeneric"), "skb"),
        (("hw", "offload", "xdpoffload"), "hw"),
        (("unspecified", "xdp"), "unspecified"),
    ],
)
def test_modes_are_taken_in_anybodys_words(
    loaded: Loaded, words: tuple[str, ...], mode: str
) -> None:
    for word in words:
        assert run(["load", "lo", "count.o", "-m", word]) == 0
        assert loaded.request.mode == mode


def test_short_names_of_global_options(capsys: pytest.CaptureFixture[str]) -> None:
    """Before the command and behind it; an error in the words before -j is a document, too."""
    for words in (["-V"], ["status", "-V"]):
        assert run(words) == 0
        assert capsys.readouterr().out == f"xdpctl {__version__}\n"
    for words in (["-j", "status", "nosuch0"], ["status", "nosuch0", "-j"], ["status", "-x", "-j"]):
        assert run(words) in (2, 3)
        assert json.loads(capsys.readouterr().out)["error"]["exit_code"] in (2, 3)
    assert run(["status", "nosuch0", "--", "-j"]) == 2
    assert capsys.readouterr().out == ""


def test_a_dash_is_an_object_from_standard_input(
    loaded: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    with standard_input(monkeypatch, "count.o"):
        assert run(["load", "lo", "-", "-"]) == 2
        assert run(["load", "lo", "pass.o", "-"]) == 0
    assert loaded.target is not None
    (new,) = (one for one in members(loaded) if one.name == "count")
    assert new.source is not None
    assert (new.source.path, new.source.data) == ("<stdin>", Path("count.o").read_bytes())


def members(loaded: Loaded) -> tuple[Member, ...]:
    return loaded.chain(state_of(None)).members


def test_what_is_no_object_on_standard_input(
    loaded: Loaded, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A terminal would be waited for; what never ends is not read to its end."""
    for path, code, text in (
        ("/dev/null", 4, "standard input is empty"),
        (__file__, 4, "<stdin> is not an ELF"),
        ("/dev/zero", 4, "standard input is too large"),
    ):
        with standard_input(monkeypatch, path):
            assert run(["load", "lo", "-"]) == code
        assert text in capsys.readouterr().err
    controller, terminal = os.openpty()
    with open(controller, "rb"), open(terminal, encoding="utf-8") as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        with pytest.raises(UsageError, match="terminal"):
            files.read_input(files.OBJECT)
    monkeypatch.setattr("sys.stdin", io.StringIO())
    with pytest.raises((BadObjectError, UsageError)):
        files.read_input(files.OBJECT)


# --- options of one of several files ------------------------------------------------------------


def shape(loaded: Loaded) -> list[tuple[object, ...]]:
    return [(one.name, one.priority, one.actions, one.label) for one in members(loaded)]


@pytest.mark.parametrize(
    ("words", "chain"),
    [
        ("-P 10 lo count.o pass.o", [("count", 10, 4, ""), ("pass", 10, 4, "")]),
        ("lo -P 10 count.o pass.o", [("count", 10, 4, ""), ("pass", 10, 4, "")]),
        ("lo count.o pass.o -P 10", [("count", 10, 4, ""), ("pass", 10, 4, "")]),
        ("lo -P 10 count.o -P 5 pass.o", [("pass", 5, 4, ""), ("count", 10, 4, "")]),
        ("lo -P10 count.o --prio=5 pass.o", [("pass", 5, 4, ""), ("count", 10, 4, "")]),
        ("lo count.o -P 5 pass.o", [("pass", 5, 4, ""), ("count", 50, 4, "")]),
        ("-P 7 lo count.o -P 5 pass.o", [("pass", 5, 4, ""), ("count", 7, 4, "")]),
        ("lo -P 9 count.o -m skb pass.o", [("count", 9, 4, ""), ("pass", 9, 4, "")]),
        ("lo count.o -P 5 -m skb -v pass.o -q", [("pass", 5, 4, ""), ("count", 50, 4, "")]),
        ("lo --name a count.o -A none --name b count.o",
         [("count", 50, 4, "a"), ("count", 50, 0, "b")]),
        ("lo -n second several.o -P 60 pass.o", [("second", 50, 4, ""), ("pass", 60, 4, "")]),
        ("-A drop lo count.o -P 5 -- pass.o drop.o",
         [("pass", 5, 2, ""), ("count", 50, 2, ""), ("drop", 50, 2, "")]),
        ("lo -P 1 -P 2 count.o", [("count", 2, 4, "")]),
        ("lo -P 9 count.o -P 3 pass.o drop.o",
         [("pass", 3, 4, ""), ("count", 9, 4, ""), ("drop", 50, 4, "")]),
    ],
)  # fmt: skip
def test_options_of_single_files(
    loaded: Loaded, words: str, chain: list[tuple[object, ...]]
) -> None:
    """They stand in front of their file; in front of all, or behind them, they are for all."""
    assert run(["load", *words.split()]) == 0
    assert shape(loaded) == chain
    assert loaded.request.mode == ("skb" if "skb" in words else None)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("-P 10 lo count.o pass.o -P 20", "-P is given twice for all FILEs"),
        ("lo -P 10 -P 20 count.o pass.o", "-P is given twice for all FILEs"),
        ("lo count.o -P 10 pass.o -P 20", "-P stands behind the last FILE"),
        ("lo -P 10 count.o -P 20 pass.o -A drop", "-A stands behind the last FILE"),
        ("lo -P 10 count.o -P x pass.o", "--prio"),
        ("lo count.o -P 5 -s xdp -n y pass.o", "-s and -n exclude each other"),
        ("lo count.o --nosuch pass.o", "--nosuch"),
        ("lo count.o -P 5 pass.o -m fast", "fast"),
        ("lo count.o pass.o --name x", "another program is called x"),
        ("lo count.o --before nosuch", "no program named nosuch"),
        ("lo count.o --before 7", "'7' cannot be a label"),
        ("lo count.o --name count --before count", "cannot run before or after itself"),
        ("lo count.o --name -", "'-' cannot be a label"),
        ("lo --empty -P 3", "--empty loads no program"),
        ("lo --empty count.o", "--empty loads no program"),
        ("lo --empty -p /sys/fs/bpf", "nothing is to be pinned"),
    ],
)
def test_never_silently_the_last_for_all(
    loaded: Loaded, capsys: pytest.CaptureFixture[str], words: str, text: str
) -> None:
    code = run(["load", *words.split()])
    told = capsys.readouterr().err
    if code == 0:
        with pytest.raises(XdpctlError) as caught:
            members(loaded)
        code, told = caught.value.exit_code, caught.value.what
    assert code in (2, 3)
    assert text in told


def test_a_named_ordered_load_is_one_change(loaded: Loaded) -> None:
    """A label, an order among what runs and what comes, and rules, in one target."""
    busy = state_of([running("count", 9), running("pass", 11, label="last")])
    words = "lo --name guard --before last --after count drop.o --before guard several.o"
    words += " --on-end drop --on-vacant drop"
    assert run(["load", *words.split(), "-n", "second"]) == 2
    words = words.replace("several.o", "-n second several.o")
    assert run(["load", *words.split()]) == 0
    chain = loaded.chain(busy)
    assert [one.known_as for one in chain.members] == ["count", "second", "guard", "last"]
    assert chain.rules == Rules(on_end=1, on_vacant=1)
    assert run(["load", "lo", "drop.o", "--name", "count"]) == 0
    with pytest.raises(UsageError, match="another program is called count"):
        loaded.chain(busy)
    assert run(["load", "lo", "--empty", "--on-end", "drop"]) == 0
    assert loaded.chain(state_of(None)) == Chain(rules=Rules(on_end=1), kept=True)


def test_a_trial_takes_options_on_either_side(
    loaded: Loaded, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before the interface, before the command and behind it; those of the command are its own."""
    frame = "00" * 14
    for words in (
        f"--packet {frame} lo load -P 3 count.o -P 2 pass.o -m skb",
        f"lo --packet {frame} load -P 3 count.o -P 2 pass.o -m skb",
        f"lo load -P 3 --packet {frame} count.o -P 2 pass.o -m skb",
        f"lo load -P 3 count.o -P 2 pass.o -m skb --packet {frame}",
        f"lo load -P 3 count.o -P 2 --packet {frame} -- pass.o",
        f"-- lo load --packet {frame} -P 3 count.o -P 2 pass.o",
    ):
        asked: list[ChangeOptions] = []

        def change(*all_words: Any, found: list[ChangeOptions] = asked, **_options: object) -> None:
            loaded.target = all_words[4]
            found.append(all_words[5])

        monkeypatch.setattr(load, "change", change)
        assert run(["test", *words.split()]) == 0
        (one,) = asked
        assert one.trial is not None
        assert [packet.data for packet in one.trial.packets] == [bytes(14)]
        assert shape(loaded) == [("pass", 2, 4, ""), ("count", 3, 4, "")]
    assert run(["test", "lo", "-j", "nosuch"]) == 2
    assert "nosuch is no command that can be tried" in capsys.readouterr().err
