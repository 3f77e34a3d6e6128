"""README.md: its examples work, and its targets exist."""

from __future__ import annotations

import ast
import inspect
import re

import xdpctl
from tests.unit.docs.pages import read, table
from tests.unit.docs.test_man import check_chain_file
from tests.unit.samples import ROOT
from xdpctl.api.attach import attach
from xdpctl.api.attachment import Attachment


def blocks(language: str) -> list[str]:
    """The examples in a language."""
    return re.findall(rf"```{language}\n(.*?)```", read("README.md"), flags=re.DOTALL)


def test_the_two_targets_to_start_with_are_shown() -> None:
    assert "make demo\nmake test\n" in blocks("sh")


def test_the_wrong_bcc_is_never_recommended() -> None:
    assert not re.search(r"pip3? install[^\n]*\bbcc\b", read("README.md"))


def test_the_example_of_a_chain_file_says_what_can_be() -> None:
    (text,) = blocks("toml")
    check_chain_file(text)


def test_the_examples_in_python_call_what_there_is() -> None:
    (example,) = blocks("python")
    assert set(re.findall(r"xdpctl\.(\w+)", example)) <= set(xdpctl.__all__)
    tree = ast.parse(example)
    (call,) = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "xdpctl.attach"
    ]
    inspect.signature(attach).bind(*call.args, **{str(one.arg): one for one in call.keywords})
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "attachment"
    }
    assert used <= {*vars(Attachment), "program_id"}


def test_it_is_short() -> None:
    assert len(read("README.md").splitlines()) <= 150


def test_the_table_of_paths_names_what_is_there() -> None:
    paths = [row["Path"].strip("`") for row in table("CONTRIBUTING.md", "Path")]
    assert [path for path in paths if not (ROOT / path).exists()] == []
