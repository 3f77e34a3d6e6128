"""docs/architecture.md: every module has its place there."""

from __future__ import annotations

import re

from tests.unit.docs.pages import read
from tests.unit.samples import ROOT

PACKAGE = ROOT / "xdpctl"


def test_every_module_stands_in_the_architecture() -> None:
    text = read("docs/architecture.md")
    modules = {str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py")}
    assert {name for name in modules if f"`{name}`" not in text} == set()
    named = {name for name in re.findall(r"`([\w/]+\.py)`", text) if not name.startswith("tests/")}
    assert named <= modules
