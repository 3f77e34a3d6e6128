"""What holds for every page: links, targets of make, commands, no path of one machine."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

import pytest

from tests.unit.docs.pages import (
    MANUAL,
    PROSE,
    UNITS,
    anchors,
    commands,
    names,
    options,
    read,
)
from tests.unit.samples import ROOT
from xdpctl import errors


def test_all_pages_are_looked_at() -> None:
    assert {"README.md", "CONTRIBUTING.md", "docs/change.md", "examples/README.md"} <= set(PROSE)


@pytest.mark.parametrize("path", PROSE)
def test_links_lead_to_files_and_headings(path: str) -> None:
    here = (ROOT / path).parent
    for target, _, anchor in re.findall(r"\]\(([^)#:\s]*)(#?)([^)\s:]*)\)", read(path)):
        file = (here / target).resolve() if target else ROOT / path
        assert file.exists(), target
        if anchor:
            assert anchor in anchors(str(file.relative_to(ROOT))), f"{target}#{anchor}"


@pytest.mark.parametrize("path", [*PROSE, *MANUAL, *UNITS])
def test_no_path_of_one_machine_is_named(path: str) -> None:
    assert not re.search(r"(?<![\w.])/(?:work|home|root|tmp)/", read(path))


@pytest.mark.parametrize("path", PROSE)
def test_the_targets_of_make_exist(path: str) -> None:
    known = set(re.findall(r"^([a-z-]+):", read("Makefile"), flags=re.MULTILINE))
    used = {
        target
        for code in re.findall(r"`([^`]+)`|```\w*\n(.*?)```", read(path), flags=re.DOTALL)
        for target in re.findall(r"(?:^|\n)make ([a-z-]+)", "\n".join(code))
    }
    assert used <= known


def test_every_target_of_make_is_explained() -> None:
    targets = re.findall(r"^([a-z-]+):(.*)$", read("Makefile"), flags=re.MULTILINE)
    assert [name for name, rest in targets if "## " not in rest] == []


@pytest.mark.parametrize("path", PROSE)
def test_options_that_are_named_exist(path: str) -> None:
    """Long options in code font, such as `--confirm-within 30s`."""
    known = {name for _, command in commands() for name in names(command)}
    code = [one for one in re.findall(r"`([^`\n]+)`", read(path)) if re.match("xdpctl |--", one)]
    used = {option for one in code for option in re.findall(r"(?<!\S)--[a-z][\w-]+", one)}
    assert used <= known


@pytest.mark.parametrize("path", PROSE)
def test_exit_codes_that_are_named_are_the_code_s(path: str) -> None:
    for name, code in re.findall(r"\b(\w+Error), exit code (\d+)", read(path)):
        assert getattr(errors, name).exit_code == int(code), name


def test_exit_codes_are_found() -> None:
    assert "LockTimeoutError, exit code " in read("docs/change.md")
    assert "BpffsError, exit code " in read("docs/pins.md")


def shown(path: str) -> Iterator[list[str]]:
    """The command lines of xdpctl's that a page shows, as words."""
    blocks = re.findall(
        r"^\.Bd .*?\n(.*?)^\.Ed" if path in MANUAL else r"^```\w*\n(.*?)^```",
        read(path),
        flags=re.DOTALL | re.MULTILINE,
    )
    for line in "\n".join(blocks).replace("\\e\n", "").replace("\\\n", "").splitlines():
        if found := re.fullmatch(r"(?:[#$] )?(xdpctl (?!\d).*)", line.replace("\\-", "-")):
            yield shlex.split(found[1].split(" | ")[0], comments=True)


@pytest.mark.parametrize("path", [*PROSE, *MANUAL])
def test_examples_are_command_lines_that_there_can_be(path: str) -> None:
    every = dict(commands())
    with_value = {name for one in options(every[""]) if not one.is_flag for name in one.opts}
    for words in shown(path):
        rest = words[1:]
        while rest and rest[0].startswith("-"):
            rest = rest[2 if rest[0] in with_value else 1 :]
        assert not rest or rest[0] in every, words
        # Behind `test` and `help` there is one more.
        called = [name for name in rest if name in every]
        known = {name for one in ("", *called) for name in names(every[one])}
        assert {word.partition("=")[0] for word in rest if re.match("--?[A-Za-z]", word)} <= known


def test_examples_are_found() -> None:
    assert len([words for path in ("README.md", *MANUAL) for words in shown(path)]) > 60
    bare = {"xdpctl.3", "xdpctl-json.5", "xdpctl-pins.5", "xdpctl.7"}
    assert {path for path in MANUAL if not [*shown(path)]} == {f"man/{name}" for name in bare}


@pytest.mark.parametrize("path", PROSE)
def test_files_that_are_named_exist(path: str) -> None:
    """Paths with a folder of the repository in front, in code font."""
    folders = "bench|bpf|docs|examples|man|systemd|tests|xdpctl"
    for name in re.findall(rf"`((?:{folders})/[\w./@-]*)`", read(path)):
        if "-" not in name or (ROOT / name).suffix:  # xdpctl-… are pins
            assert (ROOT / name).exists(), name


def test_the_hooks_of_pre_commit_are_the_linters_of_make_check() -> None:
    text = read(".pre-commit-config.yaml")
    assert set(re.findall(r"repo: (\S+)", text)) == {"local"}
    assert "://" not in text
    hooks = dict(re.findall(r"name: (.+)\n +entry: (.+)$", text, flags=re.MULTILINE))
    for entry in hooks.values():
        assert entry.startswith((".venv/bin/", "shellcheck ")), entry
    linters = re.findall(r'^ *linter "([^"]+)" ([^"*\n]+)', read("tests/check"), re.MULTILINE)
    for name, call in linters:
        words = call.removesuffix(" bpf/").split()
        assert hooks.get(name, "").removeprefix(".venv/bin/").split() == words, name
    assert len(linters) == 6


def test_the_licence_is_the_one_that_is_declared() -> None:
    assert 'license = "GPL-2.0-only"' in read("pyproject.toml")
    text = read("LICENSE")
    assert "GNU GENERAL PUBLIC LICENSE" in text
    assert "Version 2, June 1991" in text
