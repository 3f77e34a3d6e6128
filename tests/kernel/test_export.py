"""A chain that runs is written to a file, and the file makes that chain again."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.kernel import net
from tests.kernel.conftest import Objects, one_guest
from tests.kernel.test_field import CALLING, FIELD
from tests.kernel.tool import Tool

pytestmark = one_guest

FRAMES = net.udps(5)
STANDING = ("name", "label", "priority", "actions", "before", "after")


def standing(tool: Tool, dev: str) -> list[list[object]]:
    return [[one[key] for key in STANDING] for one in tool.status(dev)["programs"]]


def test_there_and_back(tool: Tool, veth: net.Veth, objects: Objects, tmp_path: Path) -> None:
    """On the interface itself it changes nothing; on an empty one it makes the same chain."""
    path = tmp_path / "chain.toml"
    copy = tmp_path / "a program \N{SNOWMAN}\x7f.o"
    copy.write_bytes(Path(objects["count"]).read_bytes())
    tool("load", veth.dev, copy, "--name", "first", "-P", 3, "-A", "pass,tx")
    words = ("-n", "tuned", "-g", "verdict=XDP_PASS", "--entries", "flows=64")
    tool("load", veth.dev, objects["tuned"], *words, "--before", "first")
    tool("set", veth.dev, "--on-vacant", "drop")
    before, text = standing(tool, veth.dev), tool("export", veth.dev).out
    path.write_text(text)
    assert tool("apply", veth.dev, path, "--json").json["plan"]["flip"] == "none"
    tool("unload", veth.dev, "--all")
    tool("apply", veth.dev, path)
    assert standing(tool, veth.dev) == before
    assert net.exchange(veth, FRAMES) == FRAMES
    assert tool("export", veth.dev).out == text
    found = tool("export", veth.dev, "--json").json["interfaces"]
    assert found == [{"interface": veth.dev, "file": text}]
    written = tmp_path / f"{veth.dev}.toml"
    for _again in range(2):
        assert str(written) in tool("export", f"{veth.dev},{veth.peer}", "--to", tmp_path).out
        assert written.read_text() == text
    written.write_text("program = []")
    result = tool.try_("export", f"{veth.dev[:-1]}*", "--to", tmp_path)
    assert (result.code, "another text" in result.err) == (2, True)
    written.unlink()

    copy.write_bytes(Path(objects["pass"]).read_bytes())
    assert "# The file has changed since the program was loaded.\n" in tool("export", veth.dev).out
    copy.unlink()
    assert "# The file is gone.\n" in tool("export", veth.dev).out


def test_what_a_file_cannot_say(
    tool: Tool, veth: net.Veth, objects: Objects, tmp_path: Path
) -> None:
    """A program of unknown origin is to be named before the file can be applied."""
    assert tool.try_("export", veth.dev).code == 3
    path = tmp_path / "chain.toml"
    from_input = ("sh", "-c", 'exec "$@" <"$0"', str(objects["count"]))
    assert tool.process("load", veth.dev, "-", prefix=from_input).code == 0
    text = tool("export", veth.dev).out
    assert '# Which file "count" was loaded from is not known: name it.\n# file = ""\n' in text
    path.write_text(text)
    result = tool.try_("apply", veth.dev, path)
    assert (result.code, "no file" in result.err) == (4, True)
    path.write_text(text.replace('# file = ""', f'file = "{objects["count"]}"'))
    tool("apply", veth.dev, path)
    assert standing(tool, veth.dev)[0][0] == "count"


def test_the_files_of_a_host(tool: Tool, veth: net.Veth, objects: Objects, tmp_path: Path) -> None:
    """What runs elsewhere than its file says is told, and brought to it; what does not is left."""
    (tmp_path / "one.toml").write_text(
        f'interface = ["{veth.dev}"]\n[[program]]\nfile = "{objects["count"]}"\n'
        f'[[program]]\nfile = "{objects["pass"]}"\n'
    )
    other = tmp_path / f"{veth.peer}.toml"
    other.write_text(f'mode = "skb"\n[[program]]\nfile = "{objects["pass"]}"\n')
    words = ("apply", "--files", tmp_path)
    result = tool.try_(*words, "--check")
    assert (result.code, f"{veth.dev}: added count; added pass" in result.out) == (17, True)
    tool(*words)
    before = tool.ids(veth.dev)
    assert "the file says" in tool(*words, "--check").out
    tool("set", veth.dev, "pass", "-P", 7)
    result = tool.try_(*words, "--check", "--json")
    found = {one["interface"]: one["plan"]["flip"] for one in result.json["interfaces"]}
    assert (result.code, found) == (17, {veth.dev: "update", veth.peer: "none"})
    assert "pass: priority 7 → 50" in tool.try_(*words, "--check", veth.dev).out
    other.write_text("[[program")
    assert tool.try_(*words).code == 4
    assert tool.ids(veth.dev) == before
    assert net.exchange(veth, FRAMES) == FRAMES
    tool("unload", veth.peer, "--all")


WRITTEN = sorted({*FIELD} - {*CALLING, "kfunc", "metadata", "mapkinds", "timer"})
LEFT = {"mapkinds": "it holds maps", "tailcall": "goes on in other programs", "timer": "timer"}
"""Why others are left out: types of values are not written."""


def with_its_file_gone(tool: Tool, veth: net.Veth, path: Path, directory: Path) -> str:
    """What export prints of a program that runs."""
    copy = directory / "copy.o"
    copy.write_bytes(path.read_bytes())
    tool("load", veth.dev, copy, "-n", path.stem)
    assert net.exchange(veth, FRAMES) == FRAMES
    copy.unlink()
    return tool("export", veth.dev, "--programs", directory).out


@pytest.mark.parametrize("name", WRITTEN)
def test_a_program_whose_file_is_gone(
    tool: Tool, veth: net.Veth, objects: Objects, tmp_path: Path, name: str
) -> None:
    """It is written as an object: the same code, by its tag, and the same answers."""
    chain = tmp_path / "chain.toml"
    chain.write_text(with_its_file_gone(tool, veth, objects[name], tmp_path))
    (before,) = tool.status(veth.dev)["programs"]
    tool("unload", veth.dev, "--all")
    tool("apply", veth.dev, chain)
    (now,) = tool.status(veth.dev)["programs"]
    assert (now["name"], now["tag"]) == (before["name"], before["tag"])
    assert net.exchange(veth, FRAMES) == FRAMES
    assert tool("export", veth.dev).out.count("# ") == 1  # the file is there
    tool("unload", veth.dev, "--all")


@pytest.mark.parametrize("name", LEFT)
def test_a_program_that_cannot_be_written(
    tool: Tool, veth: net.Veth, objects: Objects, tmp_path: Path, name: str
) -> None:
    text = with_its_file_gone(tool, veth, objects[name], tmp_path)
    why = re.search(r"# It cannot be written as an object: (.*)", text)
    assert why
    assert LEFT[name] in why[1]
    assert [one.name for one in tmp_path.glob("*.o")] == []
    tool("unload", veth.dev, "--all")
