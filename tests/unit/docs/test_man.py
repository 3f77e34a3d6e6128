"""The manual: commands, options, exit codes, variables and numbers are the code's."""

from __future__ import annotations

import ast
import inspect
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import get_args

import click
import pytest

from tests.unit.docs.pages import (
    MANUAL,
    TIMER,
    UNITS,
    command_page,
    commands,
    described_options,
    global_options,
    item,
    names,
    one_line,
    options,
    page,
    read,
    script,
    sections,
)
from tests.unit.samples import ROOT
from xdpctl import errors
from xdpctl.cli.group import COMMANDS, SECTIONS, cli
from xdpctl.host import locks
from xdpctl.model import record
from xdpctl.model.chain import Kind
from xdpctl.programs import chainfile
from xdpctl.roots import fused

PACKAGE = ROOT / "xdpctl"
# Read by what xdpctl stands on: clang is looked for in PATH, rich reads NO_COLOR, click the last.
FOREIGN_VARIABLES = {"PATH", "BCC_KERNEL_SOURCE", "NO_COLOR", "_XDPCTL_COMPLETE"}


@pytest.fixture(scope="module")
def generated() -> ModuleType:
    return script("man/options.py")


KINDS_OF_CHAIN = [kind for kind in get_args(Kind) if kind != "bare"]


@pytest.mark.parametrize("path", MANUAL)
@pytest.mark.heavy
@pytest.mark.parametrize(
    "lint",
    [["mandoc", "-T", "lint", "-W", "warning"], ["groff", "-mdoc", "-ww", "-z"]],
    ids=lambda lint: str(lint[0]),
)
def test_the_pages_are_clean(lint: list[str], path: str) -> None:
    if shutil.which(lint[0]) is None:
        pytest.skip(f"missing: {lint[0]}")
    done = subprocess.run([*lint, ROOT / path], capture_output=True, text=True, check=False)
    assert (done.stdout + done.stderr, done.returncode) == ("", 0)


@pytest.mark.parametrize("path", MANUAL)
def test_a_page_is_called_like_its_file(path: str) -> None:
    name, _, section = Path(path).name.rpartition(".")
    assert f"\n.Dt {name.upper()} {section}\n" in read(path)
    assert f".Nm {name}\n.Nd " in page(Path(path).name)["NAME"]


@pytest.mark.parametrize("path", MANUAL)
def test_what_a_page_refers_to_exists(path: str) -> None:
    """Other pages of xdpctl's, and sections of the page itself or of the page named before it."""
    there = {Path(one).name for one in MANUAL}
    text = read(path)
    referred = set(re.findall(r"Xr (xdpctl\S*) (\d)", text))
    assert {f"{name}.{section}" for name, section in referred} <= there
    for name, section, heading in re.findall(
        r"(?:Xr (xdpctl\S*) (\d) ,\n\.|\.)Sx ([\w -]+?)(?: [,.;:)].*)?$", text, re.MULTILINE
    ):
        other = read(f"man/{name}.{section}") if name else text
        assert re.search(rf"^\.S[hs] {re.escape(heading)}$", other, re.MULTILINE), heading


def test_every_page_and_completion_is_installed_where_it_is_looked_for() -> None:
    project = tomllib.loads(read("pyproject.toml"))
    shared = project["tool"]["hatch"]["build"]["targets"]["wheel"]["shared-data"]
    installed = {path: f"share/man/man{path[-1]}/{Path(path).name}" for path in MANUAL}
    installed |= {
        "completion/xdpctl.bash": "share/bash-completion/completions/xdpctl",
        "completion/_xdpctl": "share/zsh/site-functions/_xdpctl",
        "completion/xdpctl.fish": "share/fish/vendor_completions.d/xdpctl.fish",
    }
    assert {path: to for path, to in shared.items() if path not in (*UNITS, TIMER)} == installed
    completion = (ROOT / "completion").iterdir()
    assert {*MANUAL, *(f"completion/{one.name}" for one in completion)} == set(installed)
    for path in installed.values():
        assert path in page()["FILES"] or path.startswith("share/man/")


def test_the_first_page_is_short() -> None:
    assert len(read("man/xdpctl.8").splitlines()) <= 505


def test_every_page_is_referred_to() -> None:
    """From the first page, or from one that it refers to."""
    seen: set[str] = set()
    waiting = ["xdpctl.8"]
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting += [
                ".".join(one) for one in re.findall(r"Xr (xdpctl\S*) (\d)", read(f"man/{name}"))
            ]
    listed = {
        f"xdpctl-{name}.8"
        for name in re.findall(r"^\.It Cm ([\w-]+)$", page()["COMMANDS"], re.MULTILINE)
    }
    assert {Path(one).name for one in MANUAL} == seen | listed


# --- commands and options ------------------------------------------------------------------------


def test_the_pages_are_what_the_command_line_says(generated: ModuleType) -> None:
    old = [path.name for path, now, wanted in generated.pages() if now != wanted]
    assert old == [], "run man/options.py"


def test_what_is_written_of_an_option_stays(generated: ModuleType) -> None:
    option = click.Option(["-x", "--long"], metavar="A|B=c", help="Do it [no].")
    heading = ".It Fl x , Fl -long Ar a | Ar b Ns Li = Ns Cm c"
    head = f".Bl -tag -width Ds\n{heading}\nDo it.\nDefault: no.\n"
    kept = '.\\" more\n.Bl -bullet\n.It\nMore.\n.El\n'
    text = f"Before.\n{head}{kept}.El\nBehind.\n"
    assert generated.options_of(text, [option]) == text
    assert generated.options_of(text.replace("Do it", "Did it"), [option]) == text
    with pytest.raises(SystemExit, match="--long"):
        generated.options_of(text, [])


def test_every_command_has_its_page() -> None:
    names = [name for commands in SECTIONS.values() for name in commands]
    assert sorted(names) == sorted(COMMANDS)
    for name in COMMANDS:
        assert f"man/xdpctl-{name}.8" in MANUAL
        assert f"\n.It Cm {name}\n" in page()["COMMANDS"], name


def test_global_options_are_those_of_the_group() -> None:
    assert global_options() == names(cli)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_described_where_its_command_is(name: str) -> None:
    command = dict(commands())[name]
    own = described_options(command_page(name).get("OPTIONS", ""))
    assert own == names(command) - global_options()


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_help_explains_every_option(name: str) -> None:
    command = dict(commands())[name]
    assert command.help
    for option in options(command):
        assert option.help, f"{name or 'xdpctl'} {option.opts[-1]} has no help"


def test_defaults_are_the_code_s() -> None:
    found = {option.name: option.default for _, one in commands() for option in options(one)}
    for text, option, default in (
        (page()["COMMON OPTIONS"], "lock-timeout", locks.DEFAULT_TIMEOUT),
        (command_page("watch")["OPTIONS"], "interval", found["interval"]),
    ):
        first = text.split(f".It Fl -{option} ")[1].split(".It ")[0]
        assert re.findall(r"^Default: ([\d.]+)\.$", first, re.MULTILINE) == [f"{default:g}"], option


def choices(name: str, long: str) -> click.Option:
    (option,) = [one for one in options(dict(commands())[name]) if f"--{long}" in one.opts]
    return option


@pytest.mark.parametrize("name", ["load", "swap-dispatcher"])
def test_kinds_of_root_are_named_where_they_are_chosen(name: str) -> None:
    option = choices(name, "root")
    assert isinstance(option.type, click.Choice)
    assert list(option.type.choices) == [*KINDS_OF_CHAIN, "auto"]
    assert f".It Fl -root Cm {' | '.join(option.type.choices)}\n" in command_page(name)["OPTIONS"]


def test_the_variable_for_the_kind_of_root_names_all_kinds() -> None:
    text = item(page()["ENVIRONMENT"], "Ev XDPCTL_ROOT")
    assert set(re.findall(r"^\.Cm (\w+)", text, re.MULTILINE)) == {*KINDS_OF_CHAIN, "auto"}


@pytest.mark.parametrize("name", ["load", "adopt", "swap-dispatcher"])
def test_protocols_are_named_where_they_are_chosen(name: str) -> None:
    known = record.PROTOCOLS
    option = choices(name, "protocol")
    assert isinstance(option.type, click.IntRange)
    assert (option.type.min, option.type.max) == (known[0], known[-1])
    assert f".It Fl -protocol Cm {' | '.join(map(str, known))}\n" in command_page(name)["OPTIONS"]


def test_the_protocol_of_a_first_dispatcher_is_the_code_s() -> None:
    text = one_line(item(command_page("load")["OPTIONS"], "Fl -protocol Cm 1 | 2 | 3"))
    assert re.findall(r"first dispatcher gets (\d+)", text) == [str(record.PROTOCOL)]
    assert f"Default: the present one, or {record.PROTOCOL}." in text


# --- limits --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS_OF_CHAIN)
def test_the_limit_of_a_kind_is_the_code_s(kind: str) -> None:
    text = one_line(item(page("xdpctl.7")["KINDS OF ROOT"], f"Cm {kind}"))
    assert re.findall(r"[Aa]t most (\d+) programs", text) == [str(record.MAX_SLOTS)]


def test_the_limit_of_libxdps_protocol_is_the_code_s() -> None:
    few, many = str(record.LIBXDP_SLOTS), str(record.MAX_SLOTS)
    text = one_line(item(page("xdpctl.7")["KINDS OF ROOT"], "Cm ext"))
    assert re.findall(r"(?:up to|of more than) (\d+)", text) == [few, few]
    assert record.WIDE in text
    semantics = one_line(page("xdpctl.7")["CHAIN SEMANTICS"])
    assert re.findall(r"at most (\d+) programs", semantics) == [many]
    assert re.findall(r"more than (\d+)", semantics) == [few]


def test_what_a_refusal_says_of_limits_is_in_the_list_of_them() -> None:
    """A refusal's hint is the short form of the page's list."""
    limit = re.compile(r"(\d+|one million) (bytes|verifier steps|maps|levels)")
    (hint,) = [
        str(node.value)
        for node in ast.walk(ast.parse(inspect.getsource(fused._explain)))
        if isinstance(node, ast.Constant) and "verifier steps" in str(node.value)
    ]
    listed = sections("Ss", page("xdpctl.7")["KINDS OF ROOT"])["Limits of a fused root"]
    assert len(limit.findall(hint)) == 4
    assert set(limit.findall(hint)) == set(limit.findall(one_line(listed).lower()))


# --- chain files ---------------------------------------------------------------------------------


def test_every_key_of_a_chain_file_is_described() -> None:
    for heading, known in (
        ("KEYS OF THE INTERFACE", chainfile._INTERFACE),
        ("KEYS OF A PROGRAM", chainfile._PROGRAM),
    ):
        text = page("xdpctl-chain.5")[heading]
        assert sorted(re.findall(r"^\.It Li ([\w-]+)", text, flags=re.MULTILINE)) == sorted(known)


def check_chain_file(text: str) -> None:
    """Its keys are known and its values can be."""
    document = tomllib.loads(text)
    programs = document.pop("program")
    assert len(programs) == 2
    assert chainfile._values("", document, chainfile._INTERFACE)
    assert all(chainfile._values("", one, chainfile._PROGRAM)["file"] for one in programs)


def test_the_example_of_a_chain_file_says_what_can_be() -> None:
    shown = page("xdpctl-chain.5")["EXAMPLES"].split("# cat /etc/xdpctl/va.toml\n")[1]
    check_chain_file(shown.split("\n# xdpctl")[0])


# --- exit codes ----------------------------------------------------------------------------------


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


# --- environment variables -----------------------------------------------------------------------


def variables(path: Path) -> Iterator[str]:
    """The environment variables that a module reads: environ.get(…), environ[…], getenv(…), in.

    By their names, or by constants of the module.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    constants = {
        target.id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for node in ast.walk(tree):
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
            named = constants.get(key.id, key) if isinstance(key, ast.Name) else key
            yield str(ast.literal_eval(named))


@pytest.mark.heavy
def test_every_environment_variable_is_described() -> None:
    read = {name for path in PACKAGE.rglob("*.py") for name in variables(path)}
    assert {"LIBXDP_BPFFS", "XDPCTL_CACHE"} <= read, "the search itself is broken"
    described = set(re.findall(r"^\.It Ev (\w+)$", page()["ENVIRONMENT"], flags=re.MULTILINE))
    assert described == read | FOREIGN_VARIABLES


@pytest.mark.heavy
def test_the_search_sees_every_way_to_read_a_variable(tmp_path: Path) -> None:
    path = tmp_path / "sample.py"
    path.write_text(
        'E = "F"\n'
        'os.environ.get("A"), os.environ["B"], os.getenv("C", ""), "D" in os.environ, os.getenv(E)'
    )
    assert sorted(variables(path)) == ["A", "B", "C", "D", "F"]
    used = re.compile(r"\b(environ|getenv)\b")
    for module in PACKAGE.rglob("*.py"):
        assert len(used.findall(module.read_text(encoding="utf-8"))) == len(
            list(variables(module))
        ), module
