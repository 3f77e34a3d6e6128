"""What `--help` and `help` print: it fits, shows how it is done, and says where to read on."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from tests.unit.docs.pages import commands, names, options
from xdpctl.cli.commands import test as trial
from xdpctl.cli.group import COMMANDS, SECTIONS, cli, summary
from xdpctl.cli.run import run
from xdpctl.cli.settings import CommonOption, Settings

READING = {
    *("doctor", "export", "features", "history", "metrics", "monitor", "show", "status", "trace"),
    "watch",
}
CHANGING = sorted(set(COMMANDS) - READING - {"help", "test"})
COMMON = ("--json", "--netns", "--bpffs", "--verbose", "--quiet", "--version", "--help")


def helped(*words: str, width: int = 78) -> str:
    done = CliRunner().invoke(cli, list(words), obj=Settings(), terminal_width=width)
    assert done.exit_code == 0, done.output
    return done.output


def examples(text: str) -> list[list[str]]:
    """The command lines under Examples, as words."""
    found = re.search(r"^  Examples:\n((?:    .*\n)+)", text, flags=re.MULTILINE)
    assert found, text
    lines = [re.split(r" \| |  +", line.strip())[0] for line in found[1].splitlines()]
    return [shlex.split(line) for line in lines]


@pytest.mark.parametrize("option", ["-h", "--help"])
@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_help_fits_the_terminal(name: str, option: str) -> None:
    text = helped(*name.split(), option)
    assert text.startswith(f"Usage: xdpctl {name}".replace("xdpctl", "cli").rstrip() + " ")
    # click leaves two columns of a terminal free.
    assert max(map(len, text.splitlines())) <= 78


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_says_where_to_read_on(name: str) -> None:
    lines = helped(name, "--help").splitlines()
    assert lines[-2].split()[-3:] == ["xdpctl", "help", "options"]
    assert lines[-1].split()[-2:] == ["man", f"xdpctl-{name}"]


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_begins_with_one_line(name: str) -> None:
    first = helped(name, "--help").splitlines()[2:4]
    assert first[0].endswith("."), first
    assert first[1] == "", first


@pytest.mark.parametrize("name", COMMANDS)
def test_the_examples_of_a_command_can_be(name: str) -> None:
    shown = examples(helped(name, "--help"))
    assert 2 <= len(shown) <= 3
    assert any(words[1] == name for words in shown)
    for words in shown:
        assert words[0] == "xdpctl"
        command = dict(commands())[words[1]]
        rest = words[2:]
        if command is trial.command:
            group = click.Context(cli, obj=Settings())
            command = trial._tried(click.Context(command, parent=group), words[3])
            rest = [words[2], *(word for word in words[4:] if not word.endswith(".pcap"))]
            rest = [word for word in rest if word != "--pcap"]
        command.make_context(words[1], rest, obj=Settings(), resilient_parsing=True)
        used = {word for word in rest if re.match("--?[A-Za-z]", word)}
        assert used <= names(command), words


def test_common_options_are_told_once() -> None:
    told = helped("help", "options")
    for name in (*COMMON, "--dry-run", "--lock-timeout"):
        assert re.search(rf"^  (?:-\w, )?{name}\b", told, flags=re.MULTILINE), name
    for name in ("", *COMMANDS):
        text = helped(*name.split(), "--help").partition("\nOptions:\n")[2]
        assert not re.search(r"^  (?:-\w, )?--(?:json|netns|bpffs|lock-timeout)\b", text, re.M), (
            name
        )
    with_all = {name for name, one in commands() if "--dry-run" in names(one)}
    assert with_all == {"", *CHANGING}
    for _name, command in commands():
        common = [one for one in options(command) if isinstance(one, CommonOption)]
        assert {*COMMON} - {"--help"} <= {name for one in common for name in one.opts}


def test_help_lists_every_command_by_what_people_want() -> None:
    text = helped("--help")
    for heading, section in SECTIONS.items():
        part = text.partition(f"\n{heading}:\n")[2].partition("\n\n")[0]
        assert [line.split()[0] for line in part.splitlines()] == [*section]
    listed = [name for section in SECTIONS.values() for name in section]
    assert sorted(listed) == sorted(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_summary_fits_its_line(name: str) -> None:
    assert len(summary(name)) <= 80 - len("  swap-dispatcher  ")


def test_help_of_a_command_is_that_of_its_option() -> None:
    for name in COMMANDS:
        assert helped("help", name).splitlines()[1:] == helped(name, "--help").splitlines()[1:]


def test_help_of_what_is_not_there(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["help", "nosuch"]) == 2
    assert "nosuch" in capfd.readouterr().err


def test_the_list_of_commands_needs_none_of_them(capfd: pytest.CaptureFixture[str]) -> None:
    code = """
import sys
from xdpctl.cli.run import run
run(["--help"])
print(*[one for one in sys.modules if one.startswith("xdpctl.cli.commands.")], file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.split() == []
