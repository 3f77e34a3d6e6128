"""docs/architecture.md: every module has its place, and the picture is drawn from its text."""

from __future__ import annotations

import re
from types import ModuleType

import pytest

from tests.unit.docs.pages import read, script, table
from tests.unit.samples import ROOT
from tests.unit.test_layout import LEVELS, NEIGHBOURS
from xdpctl.cli.group import COMMANDS

PACKAGE = ROOT / "xdpctl"
PAGE = "docs/architecture.md"
# Without a folder: the version and what is offered; `python -m xdpctl`.
FACE = {"__init__", "__main__"}


@pytest.fixture(scope="module")
def drawing() -> ModuleType:
    return script("docs/drawing.py")


def folders() -> dict[str, dict[str, str]]:
    """The rows of the folders, by name."""
    return {row["Folder"].strip("`/"): row for row in table(PAGE, "Level")}


def code(text: str) -> set[str]:
    return set(re.findall(r"`([^`]+)`", text))


def test_the_levels_are_those_that_imports_are_checked_by() -> None:
    rows = folders()
    assert {name: int(row["Level"]) for name, row in rows.items()} == LEVELS
    beside = {(name, one.rstrip("/")) for name, row in rows.items() for one in code(row["Beside"])}
    assert beside == NEIGHBOURS


def test_every_module_stands_in_the_row_of_its_folder() -> None:
    there: dict[str, set[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        folder, _, name = str(path.relative_to(PACKAGE).with_suffix("")).rpartition("/")
        if folder == "cli/commands":
            folder, name = "cli", "commands/"
        # One that has but a line of its own says what the folder is for.
        if name != "__init__" or len(path.read_text(encoding="utf-8").splitlines()) > 2:
            there.setdefault(folder, set()).add(name)
    assert there.pop("") == FACE | {name for name in LEVELS if (PACKAGE / f"{name}.py").exists()}
    told = {name: code(row["Modules"]) for name, row in folders().items() if row["Modules"]}
    for name, modules in there.items():
        wanted = ", ".join(f"`{one}`" for one in sorted(modules))
        assert told.get(name) == modules, f"the row of {name}/ should have: {wanted}"
    assert set(told) == set(there)


def test_every_command_has_a_module() -> None:
    modules = {path.stem for path in (PACKAGE / "cli/commands").glob("*.py")} - {"__init__"}
    assert len(modules) == len(COMMANDS)
    assert modules <= {name.partition("-")[0] for name in COMMANDS}


@pytest.mark.parametrize("path", [PAGE, "docs/drawing.py", "CONTRIBUTING.md"])
def test_modules_that_are_named_exist(path: str) -> None:
    used = re.findall(rf"(?<![\w/])((?:{'|'.join(LEVELS)})/[a-z_]+(?:/[a-z_]+)?)\b", read(path))
    assert [one for one in used if not (PACKAGE / f"{one}.py").exists()] == []


PICTURES = ("architecture.svg", "steps.svg")


@pytest.mark.parametrize("name", PICTURES)
def test_the_pictures_are_drawn_from_their_text(drawing: ModuleType, name: str) -> None:
    assert set(drawing.DRAWINGS) == set(PICTURES)
    assert read(f"docs/{name}") == drawing.drawn(drawing.DRAWINGS[name]()), "run docs/drawing.py"


@pytest.mark.parametrize("name", PICTURES)
def test_the_text_of_the_pictures_fits(drawing: ModuleType, name: str) -> None:
    picture = drawing.DRAWINGS[name]()
    for box in picture.boxes:
        assert all(len(line) <= box.width - 3 for line in (box.title, *box.lines)), box
        assert box.x + box.width <= picture.width
        assert box.y + box.height <= picture.height
    assert all(note.x + len(note.text) <= picture.width for note in picture.notes)


def test_the_seven_steps_are_those_that_swap_dispatcher_prints(drawing: ModuleType) -> None:
    shown = " ".join(steps for _text, _arrows, steps, _said in drawing.STATES).split()
    assert set(shown) == {"1", "1'", "2", "3", "4", "4'", "5", "6", "7"}
    assert "![The seven steps of a change](steps.svg)" in read("docs/change.md")


def test_the_page_stays_short() -> None:
    """Its tables are as long as what they list."""
    prose = [line for line in read(PAGE).splitlines() if not line.startswith("| ")]
    assert len("\n".join(prose)) <= 8_000
