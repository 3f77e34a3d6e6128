"""What this kernel's verifier refuses, in a plain sentence, with the line of the source."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kernel.conftest import ROOT, Objects
from xdpctl.errors import VerifierError
from xdpctl.programs import loading
from xdpctl.programs import objects as objects_of_xdpctl

# Programs of faults.c, and words of the sentence for each; whether it is about one line.
FAULTS = {
    "unchecked": ("data_end", True),
    "beyond": ("data_end", True),
    "nulled": ("without a test for NULL", True),
    "nopointer": ("a number as a pointer", True),
    "unset": ("has not set", True),
    "endless": ("no end", True),
    "misaligned": ("no multiple of the size", True),
    "deep": ("outside of its stack", True),
    "helper": ("no helper bpf_skb_store_bytes", True),
    "unreachable": ("nothing leads to", False),
    "kept": ("not given back", True),
    "context": ("xdp_md", True),
    "outside": ("has no bound", True),
    "constant": ("only read", True),
    "argument": ("of a kind that it does not take", True),
    "possibly": ("without a test for NULL", True),
    "offset": ("data_end", True),
    "shifted": ("calculates with a pointer", True),
}
SOURCE = Path(ROOT / "tests/bpf/faults.c").read_text().splitlines()


def test_each_refusal_ends_with_its_sentence(objects: Objects) -> None:
    """A kernel that does not name lines shows the text of the line all the same."""
    for name, (words, located) in FAULTS.items():
        member = objects_of_xdpctl.member(str(objects["faults"]), program=name)
        assert member.source is not None
        with pytest.raises(VerifierError) as caught:
            loading.load(member.source, frags=False)
        error = caught.value
        assert error.details.splitlines()[-1] in error.why, name
        sentence = error.why.splitlines()[-2 if located else -1]
        assert words in sentence, (name, error.why)
        if located:
            assert f"/* {name} */" in error.why.splitlines()[-1], (name, error.why)
            (line,) = (at for at, text in enumerate(SOURCE, 1) if f"/* {name} */" in text)
            has_lines = "@ faults.c:" in error.details
            assert sentence.startswith(f"faults.c:{line}: ") == has_lines, (name, error.why)
