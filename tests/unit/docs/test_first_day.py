"""docs/first-day.md: written by the commands on it, and about what a first day is about."""

from __future__ import annotations

import re
from pathlib import Path

from tests.kernel import session
from tests.kernel.session import Shown
from tests.unit.docs.pages import read
from tests.unit.samples import ROOT

PAGE = "docs/first-day.md"


def test_it_is_as_it_was_written() -> None:
    """Its blocks are what the script makes of them; nothing of the machine that ran it is there."""
    text = read(PAGE)
    found = session.blocks(text)
    assert session.with_blocks(text, found) == text
    shown = [one for block in found for one in block]
    failed = {one.command for one in shown if "[exit code" in one.told}
    assert {one.command for one in shown if re.search(r"^xdpctl: .*\n  (why|do): ", one.told)} <= (
        failed
    )
    assert all(one.told for one in shown if one.command.startswith("xdpctl"))
    here = re.escape(f"/{ROOT.parts[1]}/")  # where this checkout is
    assert not re.search(rf"Traceback|/tmp/|{here}|/root/|\x1b|\0", text)
    verbs = {one.command.split()[1] for one in shown if one.command.startswith("xdpctl")}
    assert {"load", "set", "test", "replace", "unload", "apply", "clean", "doctor"} <= verbs


def test_commands_and_what_they_print_are_told_apart() -> None:
    text = "a\n```console\n# one x\nsaid\n#no command\n# two\n```\nb\n```console\n# three\n```\n"
    assert session.blocks(text) == [
        [Shown("one x", "said\n#no command\n"), Shown("two", "")],
        [Shown("three", "")],
    ]
    new = [[Shown("one x", "other\n"), Shown("two", "2\n")], [Shown("three", "")]]
    assert session.blocks(session.with_blocks(text, new)) == new


def test_numbers_and_widths_are_masked() -> None:
    one, other = "va  12   ad247eaabed2b548 ─────\n", "va  1234 0123456789abcdef ───────\n"
    assert session.alike(one) == session.alike(other)
    assert session.alike("a 1") != session.alike("b 1")


def test_the_terminal_of_a_session(tmp_path: Path) -> None:
    """Enter is pressed once it is asked for, but not by those in haste; the exit code is told."""
    asked = f"{session.KEEP.decode()}\n"
    ask = "printf '" + session.KEEP.decode() + "\\n'; if read -t {} x; then echo kept; fi #"
    assert session.printed(ask.format(5), tmp_path) == f"{asked}kept\n"
    assert session.printed(f"{ask.format(0.2)} --confirm-within 2s", tmp_path) == asked
    assert session.printed("test -t 0; exit 3", tmp_path) == "[exit code 3]\n"
