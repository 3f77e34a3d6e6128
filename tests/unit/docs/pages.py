"""The pages of the documentation, and what is in them."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType

import click

from tests.unit.samples import ROOT
from xdpctl.cli.group import COMMANDS, cli

MANUAL = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "man").glob("*.[0-9]"))
PROSE = sorted(
    str(path.relative_to(ROOT))
    for place in (".", "docs", "examples", "tests")
    for path in (ROOT / place).glob("*.md")
)
UNITS = (
    "systemd/xdpctl-watch.service",
    "systemd/xdpctl-apply@.service",
    "systemd/xdpctl-metrics.service",
    "systemd/xdpctl-metrics-textfile.service",
)
TIMER = "systemd/xdpctl-metrics-textfile.timer"


def read(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def one_line(text: str) -> str:
    """A text whose line breaks are blanks."""
    return re.sub(r"\s+", " ", text)


# --- pages in Markdown ---------------------------------------------------------------------------


@cache
def headings(path: str) -> dict[str, str]:
    """The sections of a page by heading, of whatever level; each has those below it as well."""
    lines = re.split(r"^(#+) (.*)\n", read(path), flags=re.MULTILINE)
    found: dict[str, str] = {}
    open_: list[tuple[int, str]] = []
    for level, heading, text in zip(lines[1::3], lines[2::3], lines[3::3], strict=True):
        open_ = [(depth, name) for depth, name in open_ if depth < len(level)]
        open_.append((len(level), heading))
        found[heading] = ""
        for _depth, name in open_:
            found[name] += text
    return found


def tables(text: str) -> list[list[dict[str, str]]]:
    """The tables of a text, each a list of rows, each a dictionary by the column's heading."""
    found = []
    for lines in re.findall(r"(?:^\|.*\|\n)+", text, flags=re.MULTILINE):
        rows = [
            [cell.strip() for cell in line.strip("|").split("|")] for line in lines.splitlines()
        ]
        found.append([dict(zip(rows[0], row, strict=True)) for row in rows[2:]])
    return found


def table(path: str, column: str) -> list[dict[str, str]]:
    """The only table of a page whose first column has this heading."""
    (found,) = [one for one in tables(read(path)) if next(iter(one[0])) == column]
    return found


def anchors(path: str) -> set[str]:
    """What links into a page may name behind #."""
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings(path)}


# --- the manual ----------------------------------------------------------------------------------


def sections(macro: str, text: str) -> dict[str, str]:
    """The text of a page's sections (Sh) or of a section's subsections (Ss), by heading."""
    parts = re.split(rf"^\.{macro} (.*)\n", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@cache
def page(name: str = "xdpctl.8") -> dict[str, str]:
    """The sections of a page of the manual, by heading."""
    return sections("Sh", read(f"man/{name}"))


def command_page(name: str) -> dict[str, str]:
    """The sections of a command's page."""
    return page(f"xdpctl-{name}.8")


def described_options(text: str) -> set[str]:
    """The options that a list of the page describes: `.It Fl m , Fl -mode Ar mode`."""
    items = re.findall(r"^\.It (Fl .*)", text, flags=re.MULTILINE)
    return {f"-{name}" for item in items for name in re.findall(r"\bFl (-?[\w-]+)", item)}


def global_options() -> set[str]:
    return described_options(page()["COMMON OPTIONS"])


def item(text: str, heading: str) -> str:
    """The text of a list's item: `.It` and its heading, or the beginning of that."""
    parts = re.split(rf"^\.It {re.escape(heading)}(?: .*)?\n", text, flags=re.MULTILINE)
    assert len(parts) == 2, f"there are {len(parts) - 1} items {heading}"
    return parts[1].split("\n.It ")[0]


# --- the command line ----------------------------------------------------------------------------


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


def script(path: str) -> ModuleType:
    """A script of the repository that is no module of a package, as a module."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
