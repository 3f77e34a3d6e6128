"""xdpctl.view.style and words: nothing that is printed can control the terminal."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.unit import terminal
from tests.unit.samples import INTERFACE, ROOT
from xdpctl.errors import XdpctlError
from xdpctl.host.interfaces import Failure
from xdpctl.view import style
from xdpctl.view.style import Style, printable, say, tell
from xdpctl.view.words import error_text, failure_text

VIEW = ROOT / "xdpctl/view"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("a\x1b[2J", "a\\x1b[2J"),
        ("two\nlines\t", "two\\nlines\\t"),
        ("\u202eright to left", "\\u202eright to left"),
        ("no text \udcff", "no text \\xff"),
        ("größer", "größer"),
    ],
)
def test_printable(text: str, shown: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert printable(text) == shown
    assert printable(shown) == shown
    say(text, "next")
    tell(text)
    out, err = capsys.readouterr()
    with_tabs = shown.replace("\\t", "\t")
    assert (out, err) == (f"{with_tabs}\nnext\n", f"xdpctl: {with_tabs}\n")


def test_an_error_keeps_its_lines_and_nothing_else() -> None:
    error = XdpctlError("what\x1b", why="one\ntwo\r", hint="\x9b", details="a\tb\nc\x07")
    text = "what\\x1b\n  why: one\n       two\\r\n  do: \\x9b\na\tb\nc\\x07"
    assert error_text(error, Style(verbose=1)) == text
    assert failure_text(Failure(INTERFACE, error), Style()).startswith("veth7: what\\x1b\n")


def test_a_terminal_is_one_while_something_is_shown_live() -> None:
    """Rich puts another stream in the place of standard output, which does not say what it is."""
    found = []

    def work() -> None:
        from rich.console import Console
        from rich.live import Live

        with Live(console=Console(), auto_refresh=False):
            found.append((style.on_terminal(), style.can_print("─"), style.short("XDP_PASS")))

    terminal.on_terminal(work)
    assert found == [(True, True, "PASS")]


@pytest.mark.parametrize("path", sorted(VIEW.glob("*.py")), ids=lambda path: path.stem)
def test_only_style_and_document_print(path: Path) -> None:
    """What else is printed in its own way has fixed text, or was made printable."""
    found = re.findall(r"(?<![\w.])print\((.*)\)", path.read_text(encoding="utf-8"))
    allowed = {
        "status": 4,  # the head of xdp-loader's rows, and errors of several lines
        "style": 2,
        "document": 2,
    }
    assert len(found) == allowed.get(path.stem, 0), found
