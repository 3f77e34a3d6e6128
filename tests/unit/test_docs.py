"""The documentation says what the code does: compared by name, in both directions."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import click
import pytest

from tests.unit.samples import ROOT, fresh, running, state_of
from xdpctl import errors, render
from xdpctl.chain import Chain
from xdpctl.cli import COMMANDS, cli
from xdpctl.commit import Report, Step
from xdpctl.holders import Holder
from xdpctl.plan import make_plan

PAGE = ROOT / "man/xdpctl.8"
PACKAGE = ROOT / "xdpctl"
# Read by what xdpctl stands on: clang is looked for in PATH, rich reads NO_COLOR, click the last.
FOREIGN_VARIABLES = {"PATH", "NO_COLOR", "_XDPCTL_COMPLETE"}


def read(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def sections(macro: str, text: str) -> dict[str, str]:
    """The text of a page's sections (Sh) or of a section's subsections (Ss), by heading."""
    parts = re.split(rf"^\.{macro} (.*)\n", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@cache
def page() -> dict[str, str]:
    return sections("Sh", read("man/xdpctl.8"))


def described_options(text: str) -> set[str]:
    """The options that a list of the page describes: `.It Fl m , Fl -mode Ar mode`."""
    items = re.findall(r"^\.It (Fl .*)", text, flags=re.MULTILINE)
    return {f"-{name}" for item in items for name in re.findall(r"\bFl (-?[\w-]+)", item)}


def commands() -> Iterator[tuple[str, click.Command]]:
    """Every command by name, the group itself as an empty one."""
    context = click.Context(cli)
    yield "", cli
    for name in COMMANDS:
        command = cli.get_command(context, name)
        assert command is not None
        yield name, command


def options(command: click.Command) -> Iterator[click.Option]:
    context = click.Context(command, info_name="xdpctl", help_option_names=["-h", "--help"])
    for parameter in command.get_params(context):
        if isinstance(parameter, click.Option):
            yield parameter


def names(command: click.Command) -> set[str]:
    return {name for option in options(command) for name in (*option.opts, *option.secondary_opts)}


def command_pages() -> dict[str, str]:
    """The subsections that describe commands, by the command's name."""
    found = sections("Ss", page()["COMMANDS"])
    return {heading.split()[0]: text for heading, text in found.items() if heading[0].islower()}


def global_options() -> set[str]:
    return described_options(sections("Ss", page()["COMMANDS"])["Global options"])


# --- the man page -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "lint",
    [["mandoc", "-T", "lint", "-W", "warning"], ["groff", "-mdoc", "-ww", "-z"]],
    ids=lambda lint: str(lint[0]),
)
def test_the_page_is_clean(lint: list[str]) -> None:
    if shutil.which(lint[0]) is None:
        pytest.skip(f"missing: {lint[0]}")
    done = subprocess.run([*lint, PAGE], capture_output=True, text=True, check=False)
    assert (done.stdout + done.stderr, done.returncode) == ("", 0)


def test_every_command_has_its_place() -> None:
    assert set(command_pages()) == set(COMMANDS)
    for name in COMMANDS:
        assert f"\n.Cm {name}\n" in page()["SYNOPSIS"], name


def test_global_options_are_those_of_the_group() -> None:
    assert global_options() == names(cli)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_described_where_its_command_is(name: str) -> None:
    command = dict(commands())[name]
    own = described_options(command_pages()[name])
    assert own == names(command) - global_options()


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_help_explains_every_option(name: str) -> None:
    command = dict(commands())[name]
    assert command.help
    for option in options(command):
        assert option.help, f"{name or 'xdpctl'} {option.opts[-1]} has no help"


def error_classes(base: type[errors.XdpctlError] = errors.XdpctlError) -> Iterator[tuple[str, str]]:
    code = "128+n" if base is errors.Interrupted else str(base.exit_code)
    yield base.__name__, code
    for derived in base.__subclasses__():
        yield from error_classes(derived)


def test_every_error_class_has_its_exit_code() -> None:
    items = re.findall(
        r"^\.It Li ([\d+]+)(?: Ns \+ Ns Ar (n))?(?: Pq Li (\w+))?$",
        page()["EXIT STATUS"],
        flags=re.MULTILINE,
    )
    described = {name: code + (n and f"+{n}") for code, n, name in items if name}
    assert described == dict(error_classes())
    codes = [code for code, _n, _name in items]
    assert len(codes) == len(set(codes)) == page()["EXIT STATUS"].count("\n.It ")
    assert "0" in codes


def test_signals_end_a_command_with_the_documented_code() -> None:
    for number, name in re.findall(r"^(\d+):\n\.Dv SIG(\w+)", page()["EXIT STATUS"], re.MULTILINE):
        signal = {"HUP": 1, "INT": 2, "TERM": 15}[name]
        assert errors.Interrupted(signal).exit_code == int(number)


def variables(path: Path) -> Iterator[str]:
    """The environment variables that a module reads: environ.get(…), environ[…], getenv(…), in."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.Call(func=ast.Attribute(attr="get" | "pop", value=value), args=[key, *_]):
                pass
            case ast.Call(func=ast.Attribute(attr="getenv") as value, args=[key, *_]):
                pass
            case ast.Subscript(value=value, slice=key):
                pass
            case ast.Compare(left=key, comparators=[value]):
                pass
            case _:
                continue
        if ast.unparse(value) in ("os.environ", "environ", "os.getenv"):
            # A name that is put together cannot be looked up here, so it fails.
            yield str(ast.literal_eval(key))


def test_every_environment_variable_is_described() -> None:
    read = {name for path in PACKAGE.rglob("*.py") for name in variables(path)}
    assert {"LIBXDP_BPFFS", "XDPCTL_CACHE"} <= read, "the search itself is broken"
    described = set(re.findall(r"^\.It Ev (\w+)$", page()["ENVIRONMENT"], flags=re.MULTILINE))
    assert described == read | FOREIGN_VARIABLES


def test_the_search_sees_every_way_to_read_a_variable(tmp_path: Path) -> None:
    path = tmp_path / "sample.py"
    path.write_text('os.environ.get("A"), os.environ["B"], os.getenv("C", ""), "D" in os.environ')
    assert sorted(variables(path)) == ["A", "B", "C", "D"]
    used = re.compile(r"\b(environ|getenv)\b")
    for module in PACKAGE.rglob("*.py"):
        assert len(used.findall(module.read_text(encoding="utf-8"))) == len(
            list(variables(module))
        ), module


def keys(value: Any) -> Iterator[str]:
    """The names of all fields in a JSON document."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from keys(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from keys(inner)


def documents(capsys: pytest.CaptureFixture[str]) -> Iterator[dict[str, Any]]:
    """A document of each kind, with every field there is."""
    member = running("count", 9)
    state = state_of([member, None], residue=("/bpffs/xdp/dispatch-7-400",))
    plan = make_plan(state, Chain((member, fresh())), None)
    ids = {"root": 1, "btf": 2, "program": 3, "link": 4, "function": 5, "root_link": 6}
    steps = [Step("4", "loaded", {**ids, "X": 7, "Y": 8}, 0.1)]
    report = Report(plan, state, plan.target.members, 600, steps, state.residue)
    held = {100: [Holder(77, "agent", 5)]}
    render.swap(report, held, True, render.Style(json=True))
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    # Named by the id of a link.
    document["holders"] = list(document["holders"].values())
    yield document
    assert set(render.report_data("load", report)) <= set(document)
    yield {"schema": render.SCHEMA, "command": "status", "interfaces": [render.state_data(state)]}
    yield {"error": errors.UsageError("what", why="why", hint="hint").as_dict()}


def test_every_field_of_the_json_documents_is_described(
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = page()["JSON OUTPUT"]
    described = {
        name
        for line in re.findall(r"^\.(?:It )?Li (.*)$", text, flags=re.MULTILINE)
        for name in re.findall(r"\w+", line)
    }
    fields = {name for document in documents(capsys) for name in keys(document)}
    assert fields - described == set()
    # What else stands in this way: the value null.
    assert described - fields == {"null"}


def test_the_schema_version_is_the_code_s() -> None:
    assert f"is the number of the schema, now {render.SCHEMA}.\n" in page()["JSON OUTPUT"]


def test_no_root_is_null_and_has_no_programs() -> None:
    document = render.state_data(state_of(None))
    assert document["root"] is None
    assert document["programs"] == []


# --- README.md and docs/architecture.md ---------------------------------------------------------


def test_readme_names_the_two_targets_and_they_exist() -> None:
    text, makefile = read("README.md"), read("Makefile")
    for target in ("demo", "test"):
        assert f"make {target}\n" in text
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE)
    for target in re.findall(r"\bmake ([a-z-]+)\b", text):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


def test_readme_never_recommends_the_wrong_bcc() -> None:
    assert not re.search(r"pip3? install[^\n]*\bbcc\b", read("README.md"))


@pytest.mark.parametrize("path", ["README.md", "docs/architecture.md", "man/xdpctl.8"])
def test_no_path_of_one_machine_stands_in_the_documentation(path: str) -> None:
    assert not re.search(r"(?<![\w.])/(?:work|home|root|tmp)/", read(path))


@pytest.mark.parametrize("path", ["README.md", "docs/architecture.md"])
def test_links_lead_to_files(path: str) -> None:
    here = (ROOT / path).parent
    for target in re.findall(r"\]\(([^)#:]+)\)", read(path)):
        assert (here / target).exists(), target


def test_every_module_stands_in_the_architecture() -> None:
    text = read("docs/architecture.md")
    modules = {str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py")}
    assert {name for name in modules if f"`{name}`" not in text} == set()
    named = {name for name in re.findall(r"`([\w/]+\.py)`", text) if not name.startswith("tests/")}
    assert named <= modules


def test_the_licence_is_the_one_that_is_declared() -> None:
    assert 'license = "GPL-2.0-only"' in read("pyproject.toml")
    text = read("LICENSE")
    assert "GNU GENERAL PUBLIC LICENSE" in text
    assert "Version 2, June 1991" in text
