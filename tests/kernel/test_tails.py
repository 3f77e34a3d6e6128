"""Program arrays that an object leaves empty: its other programs stay, and a load may fill them."""

from __future__ import annotations

import struct
from pathlib import Path

import xdpctl
from tests.kernel import net, oracle
from tests.kernel.conftest import Objects, kinds, needs
from tests.kernel.test_adopt import bare
from tests.kernel.test_holders import gone
from tests.kernel.tool import Tool
from xdpctl.model.chain import Kind

pytestmark = needs("shared_arrays")

FRAMES = net.udps(6)
DROPPER = "jumps[1]=dropper"
APPLIED = """[[program]]
file = "{}"
prog-name = "hops"
tail = {{ "jumps[1]" = "{}" }}
[[program]]
file = "{}"
"""


def kept(tool: Tool) -> dict[str, Path]:
    """What is pinned beside members, by name without ids."""
    found = [*tool.bpffs.glob("xdp/xdpctl-*/map-*"), *tool.bpffs.glob("xdp/xdpctl-*/callee-*")]
    return {"-".join((path.name.split("-")[0], path.name.split("-", 2)[2])): path for path in found}


def goes(veth: net.Veth) -> str:
    """What becomes of frames."""
    return {0: "dropped", len(FRAMES): "passed"}[len(net.exchange(veth, FRAMES))]


def test_an_array_that_is_filled_later(tool: Tool, veth: net.Veth, objects: Objects) -> None:
    """It is said that it is empty; what could go there stays for as long as the member does."""
    loaded = tool("load", veth.dev, objects["hops"], "-n", "hops")
    (member,) = tool.ids(veth.dev)
    assert f"the program array jumps of hops (id {member}) is empty" in loaded.err
    assert "passer, dropper, aborter of the same object can go there" in loaded.err
    assert "fixed" not in loaded.err
    assert goes(veth) == "passed"
    there = kept(tool)
    assert set(there) == {"map-fixed", "map-jumps", "callee-dropper"}
    dropper = oracle.pinned_prog(there["callee-dropper"]).id
    with oracle.pin_get(there["callee-dropper"]) as program:
        jumps = oracle.pinned_map(there["map-jumps"]).id
        oracle.map_update(jumps, struct.pack("=I", 1), struct.pack("=I", program))
    assert goes(veth) == "dropped"
    tool("swap-dispatcher", veth.dev)
    assert goes(veth) == "dropped"
    tool("load", veth.dev, objects["pass"])
    tool("unload", veth.dev, "-i", member)
    assert not kept(tool)
    gone(dropper)
    assert goes(veth) == "passed"


def test_an_array_that_is_filled_as_it_is_loaded(
    tool: Tool, veth: net.Veth, objects: Objects, tmp_path: Path
) -> None:
    """By load, replace and apply; a program that takes another's place has an array of its own."""
    hops = objects["hops"], "-n", "hops"
    loaded = tool("load", veth.dev, *hops, "--tail", DROPPER, "--tail", "fixed[0]=aborter")
    assert "is empty" not in loaded.err
    assert "callee-aborter" in kept(tool)
    assert goes(veth) == "dropped"
    first = oracle.pinned_prog(kept(tool)["callee-dropper"]).id
    assert "is empty" in tool("replace", veth.dev, "hops", *hops).err
    assert goes(veth) == "passed"
    assert "is empty" not in tool("rollback", veth.dev).err
    assert goes(veth) == "dropped"
    assert oracle.pinned_prog(kept(tool)["callee-dropper"]).id == first
    tool("replace", veth.dev, "hops", *hops, "--maps", "jumps=keep")
    assert goes(veth) == "dropped"
    chain = tmp_path / "chain.toml"
    for name, fate in (("dropper", "dropped"), ("passer", "passed"), ("dropper", "dropped")):
        chain.write_text(APPLIED.format(objects["hops"], name, objects["pass"]))
        tool("apply", veth.dev, chain)
        assert goes(veth) == fate
        assert tool.status(veth.dev)["residue"] == []
    # A place of an array that is shared gets back what it had.
    words = ("replace", veth.dev, "hops", *hops, "--maps", "jumps=keep", "--tail")
    assert tool.try_(*words, "jumps[1]=passer", "--tail", "jumps[0]=fragments").code == 7
    assert goes(veth) == "dropped"
    chain.write_text(
        APPLIED.format(objects["hops"], "passer", objects["refuse"]).replace(
            "tail =", 'maps = "jumps=keep"\ntail ='
        )
    )
    assert tool.try_("apply", veth.dev, chain).code == 5
    assert goes(veth) == "dropped"
    tool(*words, "jumps[1]=passer")
    assert goes(veth) == "passed"
    tool("unload", veth.dev, "--all")
    assert not kept(tool)


WRONG = {
    "leaps[1]=dropper": (2, "there is no program array leaps; there is fixed, jumps"),
    "jumps[4]=dropper": (2, "jumps has no place 4: its last place is jumps[3]"),
    "jumps[1]=hopper": (2, "there is no program hopper; there is passer, hops, dropper, aborter"),
    "jumps[1]=classifier": (2, "classifier (section tc) is no XDP program"),
    "fixed[1]=dropper": (2, "fixed[1] is that of passer: the object puts it there"),
    "jumps[1]=fragments": (7, "jumps[1] does not take fragments: its section is xdp.frags"),
}


def test_places_that_cannot_be_filled(tool: Tool, veth: net.Veth, objects: Objects) -> None:
    """What there is, is named; nothing is left, and nothing runs."""
    for word, (code, told) in WRONG.items():
        result = tool.try_("load", veth.dev, objects["hops"], "-n", "hops", "--tail", word)
        assert (result.code, told in result.err) == (code, True), result.err
        assert not kept(tool)
    assert oracle.xdp_prog_id(veth.ifindex)[0] == 0


@kinds("fused")  # the kernel ties an array to the type and the attach type of its first user
def test_an_adopted_program_keeps_what_is_in_its_array(
    tool: Tool, veth: net.Veth, objects: Objects
) -> None:
    """It is the array of the program that ran, and outlives who has filled it."""
    with bare(tool, veth, objects["hops"]) as running:
        jumps = oracle.prog_map(running, "jumps")
        with oracle.xdp_load(oracle.returning(oracle.XDP_DROP)) as dropping:
            oracle.map_update(jumps, struct.pack("=I", 1), struct.pack("=I", dropping))
            assert goes(veth) == "dropped"
            adopt = "adopt", veth.dev, "--object", objects["hops"], "-n", "hops"
            result = tool.try_(*adopt, "--tail", "jumps[1]=passer", "--tail", "jumps[1]=dropper")
            assert (result.code, "said twice" in result.err) == (2, True)
            assert "is empty" not in tool(*adopt).err
        assert "callee-dropper" in kept(tool)
        assert goes(veth) == "dropped"
        tool("swap-dispatcher", veth.dev)
        assert goes(veth) == "dropped"
        tool("unload", veth.dev, "--all")
    assert not kept(tool)


@kinds("fused")
def test_a_program_in_its_own_array(tool: Tool, veth: net.Veth, objects: Objects) -> None:
    """A fused root's members are of the type that an array has."""
    tool("load", veth.dev, objects["hops"], "-n", "hops", "--tail", "jumps[1]=hops")
    assert goes(veth) == "passed"  # after the last of 33 calls


def test_a_process_that_holds_such_a_program(
    tool: Tool, veth: net.Veth, objects: Objects, kind: Kind
) -> None:
    """By the Python API: what is kept beside its program goes with the attachment."""
    with xdpctl.attach(
        objects["hops"],
        veth.dev,
        program="hops",
        root=kind,
        tail={"jumps[1]": "dropper"},
    ):
        assert "callee-dropper" in kept(tool)
        assert goes(veth) == "dropped"
        tool("swap-dispatcher", veth.dev)
        assert goes(veth) == "dropped"
    assert not kept(tool)
