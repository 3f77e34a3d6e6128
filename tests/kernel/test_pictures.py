"""docs/pictures: what the commands print now is what they show."""

from __future__ import annotations

import pytest

from tests import picture
from tests.kernel import oracle, pictures
from tests.kernel.conftest import kinds, needs, one_guest
from tests.kernel.tool import ROOT, Tool

PICTURES = ROOT / "docs/pictures"


@one_guest
@kinds(pictures.KIND)
@needs("stats")
def test_the_pictures_show_what_is_printed(tool: Tool, monkeypatch: pytest.MonkeyPatch) -> None:
    """All but ids, tags and counts. If it differs: make pictures."""
    if not oracle.lacks("own_machine"):
        pytest.skip("missing: a kernel of this machine's own, which the pictures are from")
    monkeypatch.setenv("LIBXDP_BPFFS", str(tool.bpffs))
    for name, shown in pictures.scenes(tool, interval=0.5).items():
        kept = (PICTURES / f"{name}.svg").read_text(encoding="utf-8")
        assert picture.command_of(kept) == shown.command
        assert picture.alike(picture.text_of(kept)) == picture.alike(shown.printed), shown.printed
