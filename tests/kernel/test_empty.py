"""An interface kept ready: an empty root is on the hook, and the first program is a flip."""

from __future__ import annotations

from pathlib import Path

from tests.kernel import net, oracle
from tests.kernel.conftest import Objects, kinds, needs, one_guest
from tests.kernel.test_libxdp import rows
from tests.kernel.tool import Tool

FRAMES = net.udps(10)


@needs("link_target")
def test_the_first_program_is_a_flip(tool: Tool, veth: net.Veth, objects: Objects) -> None:
    """The root's link stays the same from before the first program until after the last one."""
    assert "the root is empty" in tool("load", veth.dev, "--empty").out
    status = tool.status(veth.dev)
    link, root = status["root"]["link_id"], status["root"]["id"]
    assert (status["programs"], status["residue"], status["root"]["kind"]) == ([], [], tool.kind)
    assert oracle.xdp_prog_id(veth.ifindex)[0] == root
    assert net.exchange(veth, FRAMES) == FRAMES

    loaded = tool("load", veth.dev, objects["drop"], "--json").json
    assert (loaded["plan"]["flip"], loaded["plan"]["kind"]) == ("update", tool.kind)
    assert net.exchange(veth, FRAMES) == []
    unloaded = tool("unload", veth.dev, "drop", "--empty", "--json").json
    assert unloaded["plan"]["flip"] == "update"
    assert net.exchange(veth, FRAMES) == FRAMES
    swapped = tool("swap-dispatcher", veth.dev, "--json").json
    assert swapped["new_root"] not in (None, root)
    assert tool.status(veth.dev)["root"]["link_id"] == link
    assert "<empty" in tool("show", veth.dev).out
    assert tool("clean").out == ""
    assert oracle.xdp_prog_id(veth.ifindex)[0] == swapped["new_root"]
    assert tool("unload", veth.dev, "-a", "--json").json["plan"]["flip"] == "detach"
    assert oracle.xdp_prog_id(veth.ifindex)[0] == 0
    assert tool.pins() == []


@one_guest
def test_what_is_there_stays(tool: Tool, veth: net.Veth, objects: Objects, tmp_path: Path) -> None:
    """A chain is ready as it is. A file without programs leaves an empty root, twice the same."""
    tool("load", veth.dev, objects["count"])
    before = oracle.xdp_prog_id(veth.ifindex)
    told = tool("load", veth.dev, "--empty", "--json").json
    assert (told["plan"]["flip"], told["new_root"]) == ("none", None)
    assert oracle.xdp_prog_id(veth.ifindex) == before
    file = tmp_path / "none.toml"
    file.write_text("program = []\non-end = 'drop'\n")
    for flip in ("update", "none"):
        told = tool("apply", veth.dev, file, "--json").json
        assert (told["plan"]["flip"], told["programs"]) == (flip, [])
        assert net.exchange(veth, FRAMES) == []
    file.write_text("program = []\n")
    tool("apply", veth.dev, file)
    assert net.exchange(veth, FRAMES) == FRAMES


@one_guest
def test_it_comes_back(tool: Tool, veth: net.Veth, objects: Objects) -> None:
    """An empty root is a chain that ran before, as others are; before it there was none."""
    tool("load", veth.dev, "--empty")
    tool("load", veth.dev, objects["drop"])
    assert "an empty root" in tool("history", veth.dev).out
    tool("rollback", veth.dev)
    assert net.exchange(veth, FRAMES) == FRAMES
    assert tool.status(veth.dev)["root"] is not None
    tool("rollback", veth.dev)
    assert oracle.xdp_prog_id(veth.ifindex)[0] == 0
    tool("load", veth.dev, "--empty", "--confirm-within", "10m")
    tool("rollback", veth.dev)
    assert oracle.xdp_prog_id(veth.ifindex)[0] == 0
    assert tool.pins() == []


@one_guest
def test_another_program_takes_it_off(tool: Tool, veth: net.Veth) -> None:
    tool("load", veth.dev, "--empty")
    link = oracle.link_fd(tool.status(veth.dev)["root"]["link_id"])
    oracle.link_detach(link)
    link.close()
    assert tool.status(veth.dev)["off"] == []
    assert "an empty root: off the hook" in tool("status", veth.dev).err
    tool("rollback", veth.dev)
    status = tool.status(veth.dev)
    assert (status["programs"], status["off"]) == ([], None)
    assert oracle.xdp_prog_id(veth.ifindex)[0] == status["root"]["id"]
    tool("unload", veth.dev, "-a")
    assert tool.pins() == []


@one_guest
def test_what_it_is_counted_and_tried_with(tool: Tool, veth: net.Veth, objects: Objects) -> None:
    """Rules, counters and trials work on a chain without programs."""
    tool("load", veth.dev, "--empty")
    assert "no program" in tool.try_("trace", veth.dev, "-c", 1).err
    tool("stats", veth.dev, "--on")
    assert "empty" in tool("test", veth.dev, "unload", "-a", "--empty").out
    tool("set", veth.dev, "--on-end", "drop")
    assert net.exchange(veth, FRAMES) == []
    tool("load", veth.dev, objects["pass"])
    assert tool("stats", veth.dev, "--interval", 0, "--json").json["interfaces"]
    tool("unload", veth.dev, "-a", "--empty")
    assert net.exchange(veth, FRAMES) == []
    tool("unload", veth.dev, "-a")
    assert tool.pins() == []


@kinds("ext")
def test_beside_libxdp(tool: Tool, veth: net.Veth, objects: Objects) -> None:
    """Its tools list an empty dispatcher as one, join it, and take programs off again.

    1.3.1 reads protocol 1 as well, and joins it nowhere.
    """
    dev = veth.dev
    tool("load", dev, "--empty", "--attach", "netlink", "--protocol", 1)
    assert rows(tool, dev) == []
    tool("swap-dispatcher", dev, "--protocol", 2)
    assert rows(tool, dev) == []
    tool.xdp_loader("load", dev, objects["drop"])
    assert rows(tool, dev) == tool.ids(dev) == tool.chain(veth.ifindex)
    assert net.exchange(veth, FRAMES) == []
    tool.xdp_loader("unload", dev, "--all")
    tool("clean")
    assert tool.pins() == []
