"""The folders of the package: who may import whom (docs/architecture.md), read from the source."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from functools import cache
from typing import NamedTuple

import pytest

from tests.unit.samples import ROOT

LEVELS = {
    "cli": 10,
    "view": 9,
    "api": 8,
    "trial": 8,
    "metrics": 8,
    "change": 7,
    "traffic": 7,
    "doctor": 7,
    "roots": 6,
    "observe": 6,
    "programs": 5,
    "bpffs": 5,
    "model": 4,
    "supply": 4,
    "host": 3,
    "kernel": 2,
    "errors": 1,
    "value": 1,
}
"""Imports run downwards: to a folder of a lower number, or within a folder."""

NEIGHBOURS = {("doctor", "change"), ("roots", "observe")}
"""What may be imported on the same line, by whom: there is no way back."""

SYSTEM = {"os", "socket", "subprocess", "ctypes", "fcntl", "signal", "pathlib", "shutil", "select"}
"""Modules of the library that touch the system; `model` is data."""


class Import(NamedTuple):
    """An import: the module that it stands in and the one that it names."""

    source: str
    target: str
    typed: bool
    """For the type checker alone: nothing is loaded."""


def imports(modules: Mapping[str, str]) -> Iterator[Import]:
    """All imports of some modules, by name and text, those within functions included."""
    for name, text in modules.items():
        for node, typed in _statements(text):
            for target in _targets(node, name, modules):
                yield Import(name, target, typed)


@cache
def _statements(text: str) -> list[tuple[ast.Import | ast.ImportFrom, bool]]:
    """The import statements of a module's text, each with whether it is for types alone."""
    tree = ast.parse(text)
    typed = {
        id(inner)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for inner in ast.walk(block)
    }
    return [
        (node, id(node) in typed)
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]


def _targets(
    node: ast.Import | ast.ImportFrom, name: str, modules: Mapping[str, str]
) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    else:
        package = name if f"{name}.__init__" in modules or _is_package(name, modules) else ""
        parts = (package or name.rpartition(".")[0]).split(".")
        base = parts[: len(parts) - node.level + 1] if node.level else []
        where = ".".join([*base, *([node.module] if node.module else [])])
        for alias in node.names:
            inner = f"{where}.{alias.name}"
            yield inner if inner in modules else where


def _is_package(name: str, modules: Mapping[str, str]) -> bool:
    return any(other.startswith(f"{name}.") for other in modules)


def package() -> dict[str, str]:
    """The modules of xdpctl, by dotted name."""
    found = {}
    for path in sorted((ROOT / "xdpctl").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path.read_text()
    return found


def folder(module: str) -> str:
    """The folder of a module of xdpctl; nothing for others, and for the package's own face."""
    parts = module.split(".")
    return parts[1] if parts[0] == "xdpctl" and len(parts) > 1 else ""


def upward(found: Iterator[Import]) -> list[Import]:
    """The imports that do not run downwards."""
    return [
        one
        for one in found
        if (here := folder(one.source)) in LEVELS
        and (there := folder(one.target)) in LEVELS
        and here != there
        and LEVELS[there] >= LEVELS[here]
        and (here, there) not in NEIGHBOURS
    ]


def circles(found: Iterator[Import]) -> list[str]:
    """Modules that import each other, by whatever way; for types alone counts as well."""
    graph: dict[str, set[str]] = {}
    for one in found:
        if folder(one.source) and folder(one.target) and one.source != one.target:
            graph.setdefault(one.source, set()).add(one.target)

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        waiting = [start]
        while waiting:
            for following in graph.get(waiting.pop(), set()) - seen:
                seen.add(following)
                waiting.append(following)
        return seen

    return sorted(name for name in graph if name in reached(name))


def touching(found: Iterator[Import]) -> list[Import]:
    """What `model` imports of the system: of the library, or of the folders that wrap it."""
    return [
        one
        for one in found
        if folder(one.source) == "model"
        and not one.typed
        and (one.target.split(".")[0] in SYSTEM or folder(one.target) in ("host", "kernel"))
        and one.target not in PURE
    ]


PURE = {"xdpctl.kernel.asm", "xdpctl.kernel.uapi", "xdpctl.kernel.records"}
"""Modules of `kernel` that are data."""


def test_every_folder_has_its_line() -> None:
    there = {path.name for path in (ROOT / "xdpctl").iterdir() if (path / "__init__.py").exists()}
    assert there | {"errors", "value"} == set(LEVELS)


def test_imports_run_downwards() -> None:
    assert upward(imports(package())) == []


def test_there_is_no_circle() -> None:
    assert circles(imports(package())) == []


def test_the_model_is_data() -> None:
    assert touching(imports(package())) == []


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("xdpctl.kernel.libbpf", "from ..host import locks"),
        ("xdpctl.model.chain", "from ..change.transact import transact"),
        ("xdpctl.api.look", "from ..trial import trial"),
        ("xdpctl.errors", "def f():\n    from .host import locks"),
    ],
)
def test_what_runs_upwards_is_seen(module: str, line: str) -> None:
    found = package()
    found[module] += f"\n{line}\n"
    assert {one.source for one in upward(imports(found))} == {module}


def test_a_circle_is_seen() -> None:
    found = package()
    found["xdpctl.model.chain"] += "\nfrom . import plan\n"
    assert {"xdpctl.model.chain", "xdpctl.model.plan"} <= set(circles(imports(found)))


@pytest.mark.parametrize("line", ["import os", "from ..kernel import libbpf", "import socket"])
def test_a_system_call_in_the_model_is_seen(line: str) -> None:
    found = package()
    found["xdpctl.model.labels"] += f"\n{line}\n"
    assert {one.source for one in touching(imports(found))} == {"xdpctl.model.labels"}
