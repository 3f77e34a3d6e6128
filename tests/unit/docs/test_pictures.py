"""docs/pictures: pictures of real runs, which need nothing from elsewhere; README shows them."""

from __future__ import annotations

import re

import pytest

from tests import picture
from tests.kernel.pictures import COLUMNS, COMMANDS
from tests.unit.docs.pages import read
from tests.unit.samples import ROOT

PICTURES = ROOT / "docs/pictures"
SNAPSHOTS = ROOT / "tests/unit/snapshots"
RULE = re.compile(r"^(.*)\n─+$", re.MULTILINE)


def test_there_is_one_of_each_command_and_readme_refers_to_it() -> None:
    assert {path.stem for path in PICTURES.iterdir()} == COMMANDS.keys()
    shown = set(re.findall(r"docs/pictures/(\w+)\.svg", read("README.md")))
    assert shown == COMMANDS.keys()


@pytest.mark.parametrize("name", COMMANDS)
def test_it_shows_the_command_and_what_it_printed(name: str) -> None:
    kept = read(f"docs/pictures/{name}.svg")
    assert picture.command_of(kept) == f"xdpctl {COMMANDS[name]}"
    text = picture.text_of(kept)
    assert max(map(len, text.splitlines())) <= COLUMNS
    drawn = [line.rstrip() for line in picture.drawn_text(kept).splitlines()]
    assert drawn == [line.rstrip() for line in text.splitlines()]


@pytest.mark.parametrize("name", COMMANDS)
def test_it_is_small_and_needs_nothing_from_elsewhere(name: str) -> None:
    kept = read(f"docs/pictures/{name}.svg")
    assert len(kept) < 20_000
    assert re.findall(r"\w+://[^\"\s]+", kept) == ["http://www.w3.org/2000/svg"]
    assert "@font-face" not in kept
    assert "url(" not in re.sub(r"url\(#[\w-]+\)", "", kept)


@pytest.mark.parametrize("name", ["status", "test"])
def test_its_tables_have_the_heads_that_the_views_give_them_now(name: str) -> None:
    """Those of the snapshots, which are what the views print."""
    now = {picture.alike(head) for head in RULE.findall((SNAPSHOTS / f"{name}.txt").read_text())}
    heads = RULE.findall(picture.text_of(read(f"docs/pictures/{name}.svg")))
    assert heads
    assert {picture.alike(head) for head in heads} <= now
