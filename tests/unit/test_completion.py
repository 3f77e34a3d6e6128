"""What shells offer at the press of a key, by the files of completion/ in the shells themselves."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

from tests.unit.samples import ROOT, built, running, state_of
from xdpctl.cli import complete, offered
from xdpctl.cli.commands import rollback
from xdpctl.cli.settings import Settings
from xdpctl.model.chain import Chain
from xdpctl.model.generation import Generation
from xdpctl.model.plan import make_plan
from xdpctl.model.terms import Terms

# Each shell is made to print what it would show for a command line. bash and zsh have no terminal
# here, so what their functions hand over is printed instead.
SCRIPTS = {
    "bash": """
        . completion/xdpctl.bash
        compopt() { echo "$2"; }
        COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
        _xdpctl xdpctl
        printf '%s\\n' "${COMPREPLY[@]}"
    """,
    "zsh": """
        compadd() { print -rl -- ${(P)2} }
        _describe() { print -rl -- ${${(P)2}%%:*} }
        _files() { print default }
        _path_files() { print dirnames }
        complete() { source completion/_xdpctl }
        words=("$@") CURRENT=$#
        complete
    """,
    "fish": """
        source completion/xdpctl.fish
        complete -C (string join ' ' -- $argv) | string replace -r '\\t.*' ''
    """,
}


@pytest.fixture(scope="module")
def tool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the command, for PATH."""
    directory = tmp_path_factory.mktemp("bin")
    program = directory / "xdpctl"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m xdpctl "$@"\n')
    program.chmod(0o755)
    return directory


def shown(shell: str, tool: Path, *words: str) -> list[str]:
    if shutil.which(shell) is None:
        pytest.skip(f"missing: {shell}")
    plain = {"bash": ["--norc"], "zsh": ["-f"], "fish": ["--no-config"]}[shell]
    behind = ["-"] if shell != "fish" else []
    done = subprocess.run(
        [shell, *plain, "-c", SCRIPTS[shell], *behind, "xdpctl", *words],
        capture_output=True,
        text=True,
        check=False,  # what the shells answer is for other functions of theirs
        cwd=ROOT,
        env={**os.environ, "PATH": f"{tool}:{os.environ['PATH']}"},
    )
    assert done.stderr == ""
    return [line for line in done.stdout.splitlines() if line]


# What is begun, and some of what must be offered then. OBJECT stands for an object's path.
BEGUN: list[tuple[list[str], set[str]]] = [
    (["st"], {"stats", "status"}),
    (["load", "lo", "OBJECT", "-n", "ret_20"], {"ret_200"}),
    (["status", "l"], {"lo"}),
    (["load", "--conf"], {"--confirm-within"}),
    (["load", "lo", "OBJECT", "-s", ""], {"xdp"}),
    (["set", "lo", "count", "-A", "PASS,dr"], {"PASS,drop"}),
    (["test", "lo", "un"], {"unload"}),
    (["test", "lo", "unload", "--pc"], {"--pcap"}),
    (["test", "lo", "set", "--on-end", ""], {"pass", "drop", "aborted"}),
]


@pytest.mark.parametrize("shell", SCRIPTS)
@pytest.mark.parametrize("part", [slice(2), pytest.param(slice(2, None), marks=pytest.mark.long)])
def test_a_shell_shows_what_there_is(shell: str, part: slice, tool: Path) -> None:
    ret = built("ret")
    for words, wanted in BEGUN[part]:
        given = [ret if word == "OBJECT" else word for word in words]
        assert wanted <= set(shown(shell, tool, *given)), words


@pytest.mark.heavy
@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_a_shell_completes_paths_itself(shell: str, tool: Path) -> None:
    assert shown(shell, tool, "load", "lo", "") == ["default"]
    assert shown(shell, tool, "load", "lo", "x.o", "-p", "") == ["dirnames"]
    assert shown(shell, tool, "load", "--bpffs", "") == ["dirnames"]


@pytest.mark.heavy
def test_fish_completes_paths_itself(tool: Path) -> None:
    assert "CHANGELOG.md" in shown("fish", tool, "load", "lo", "CHANGE")


def test_bash_joins_what_it_takes_apart(tool: Path) -> None:
    assert shown("bash", tool, "set", "lo", "--on-end", "=", "p") == ["pass"]
    assert shown("bash", tool, "set", "lo", "--on-end", "=") == ["pass", "drop", "aborted"]


def test_what_a_shell_would_obey_is_quoted(tmp_path: Path) -> None:
    program = tmp_path / "xdpctl"
    program.write_text("#!/bin/sh\nprintf 'plain\\ta$(b)\\nplain\\tc;d\\nplain\\te f\\n'\n")
    program.chmod(0o755)
    assert shown("bash", tmp_path, "status", "") == ["a\\$\\(b\\)", "c\\;d", "e\\ f"]


def test_a_shell_starts_no_program_to_know_the_completion(tmp_path: Path) -> None:
    program = tmp_path / "xdpctl"
    program.write_text("#!/bin/sh\necho started >&2\n")
    program.chmod(0o755)
    for shell, path in (("bash", "xdpctl.bash"), ("fish", "xdpctl.fish")):
        if shutil.which(shell):
            done = subprocess.run(
                [shell, "-c", f"source completion/{path}"],
                capture_output=True,
                text=True,
                check=True,
                cwd=ROOT,
                env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
            )
            assert done.stderr == ""


# --- values --------------------------------------------------------------------------------------


def offer(function: object, start: str, **params: object) -> list[str]:
    context = click.Context(click.Command("x"), obj=Settings())
    context.params.update(params)
    assert callable(function)
    found = function(context, click.Argument(["x"]), start)
    return [one if isinstance(one, str) else str(one.value) for one in found]


def test_verdicts_are_completed_in_the_form_that_was_begun() -> None:
    assert offer(offered.actions, "XDP_P") == ["XDP_PASS"]
    assert offer(offered.actions, "XDP_PASS,XDP_D") == ["XDP_PASS,XDP_DROP"]
    assert offer(offered.actions, "pass,p") == []
    assert offer(offered.actions, "dr") == ["drop"]
    assert offer(offered.actions, "n") == ["none"]
    assert "none" not in offer(offered.verdicts, "")


def test_namespaces_are_those_with_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offered, "NAMESPACES", str(tmp_path))
    for name in ("blue", "black", "re\x1bd"):
        (tmp_path / name).touch()
    assert offer(offered.namespaces, "bl") == ["black", "blue"]
    assert offer(offered.namespaces, "") == ["black", "blue"]
    (item,) = offered.namespaces(click.Context(click.Command("x")), click.Argument(["x"]), "/run/n")
    assert not isinstance(item, str)
    assert item.type == "file"
    monkeypatch.setattr(offered, "NAMESPACES", str(tmp_path / "none"))
    assert offer(offered.namespaces, "") == []


def test_programs_and_sections_are_those_of_the_file() -> None:
    assert offer(complete.functions, "ret_20", files=(built("ret"),)) == ["ret_200"]
    assert offer(complete.sections, "", file=built("count")) == ["xdp"]
    assert offer(complete.functions, "", files=("none.o", __file__)) == []


def test_generations_are_those_of_the_interface(monkeypatch: pytest.MonkeyPatch) -> None:
    state = state_of([running("count", 9)])
    plan = make_plan(state, Chain())
    found = [Generation.of(number, state, plan, 600, Terms("load")) for number in (3, 4, 13)]
    monkeypatch.setattr(complete, "_state", lambda _context: state)
    monkeypatch.setattr("xdpctl.bpffs.history.generations", lambda _bpffs, _state: found)
    monkeypatch.setattr(Settings, "enter", lambda _settings: None)
    assert offer(complete.generations, "") == ["13", "4", "3"]
    assert offer(complete.generations, "1") == ["13"]
    (option,) = [one for one in rollback.command.params if "--to" in one.opts]
    assert option._custom_shell_complete is complete.generations
