"""One grammar for all commands: the same words mean the same, wherever they stand."""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.samples import built, state_of
from xdpctl import __version__
from xdpctl.cli.commands import load
from xdpctl.cli.run import run
from xdpctl.errors import BadObjectError, UsageError
from xdpctl.host import files
from xdpctl.model.chain import Chain, Member
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


@contextlib.contextmanager
def standard_input(patch: pytest.MonkeyPatch, path: str) -> Iterator[None]:
    with open(path, encoding="utf-8", errors="surrogateescape") as stdin:
        patch.setattr("sys.stdin", stdin)
        yield


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
        ("/dev/null", 4, "<stdin> is not an ELF"),
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
