"""docs/cost.svg is drawn from docs/cost.json, and the pages say what that has."""

from __future__ import annotations

import json
import re
from types import ModuleType
from typing import Any

import pytest

from tests.unit.docs.pages import read, script

MOST = 1.1
"""How much a fused root may add to a packet, as a ratio to the same members in one C program."""


@pytest.fixture(scope="module")
def plot() -> ModuleType:
    return script("docs/plot.py")


@pytest.fixture(scope="module")
def figures() -> dict[str, Any]:
    return dict(json.loads(read("docs/cost.json")))


def test_the_plot_is_drawn_from_its_figures(plot: ModuleType, figures: dict[str, Any]) -> None:
    assert read("docs/cost.svg") == plot.drawn(figures), "run docs/plot.py"
    assert re.findall(r"\w+://[^\"\s]+", read("docs/cost.svg")) == ["http://www.w3.org/2000/svg"]
    assert "![What a chain adds to the cost of a packet](cost.svg)" in read("docs/compare.md")


def test_a_fused_root_of_members_that_do_something_is_near_the_floor(
    figures: dict[str, Any],
) -> None:
    """As the last measurement had it, at its largest chain."""
    for place in figures.values():
        lines = place["added"]["member"]
        assert lines["fused"]["10"] <= MOST * lines["one program"]["10"], place


def test_the_page_has_the_figures(plot: ModuleType, figures: dict[str, Any]) -> None:
    assert "\n".join(["", *plot.rows(figures), ""]) in read("docs/compare.md"), "run docs/plot.py"
