"""What a fused root's members have to share, and who is to blame where it does not suffice."""

from __future__ import annotations

import pytest

from tests.kernel import net, oracle
from tests.kernel.conftest import Objects, kinds, needs
from tests.kernel.differential import change
from tests.kernel.test_bad_input import Before, unchanged
from tests.kernel.test_holders import root_of, until
from tests.kernel.tool import Tool
from xdpctl.errors import ChainFullError
from xdpctl.programs import objects as objects_of_xdpctl

pytestmark = kinds("fused")
FRAMES = net.udps(20)


def test_a_member_is_refused_for_its_own_faults(
    tool: Tool, veth: net.Veth, objects: Objects
) -> None:
    """By itself, before any root is made; a wrong type before it is loaded at all."""
    tool("load", veth.dev, objects["count"], objects["pass"])
    with unchanged(tool, veth):
        result = tool.try_("load", veth.dev, objects["drop"], objects["refuse"])
        assert (result.code, "fused root" in result.err) == (5, False), result.err
        assert "the verifier refused refuse of" in result.err
        result = tool.try_("load", veth.dev, objects["wrongtype"], "-s", "tc")
        assert (result.code, "wrongtype" in result.err) == (4, True), result.err


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("twoframes", "combined stack size"),
        pytest.param("levels", "frames is too deep", marks=needs("eight_frames")),
    ],
)
def test_a_stack_that_is_too_deep(
    tool: Tool, veth: net.Veth, objects: Objects, name: str, said: str
) -> None:
    """Alone it is the root itself; behind a main function there is no room for it."""
    tool("load", veth.dev, objects[name])
    (member,) = tool.ids(veth.dev)
    assert oracle.run(root_of(veth), FRAMES[0]) == (oracle.XDP_PASS, FRAMES[0])
    before = Before(tool, veth)
    result = tool.try_("load", "-P", 1, veth.dev, objects["pass"], objects["deepstack"])
    if result.code == 0 and name == "twoframes":
        print("a main function that uses no stack has none here, so that it fits")
        # It has some with deepstack's code in line, which therefore stands as a function.
        functions = oracle.btf_funcs(oracle.prog(root_of(veth)).btf_id)
        assert {"prog0_deepstack", "prog1_pass"} <= set(functions)
        assert net.exchange(veth, FRAMES) == FRAMES
        return
    assert result.code == 5, result.err
    before.check()
    assert f"refused {name} (id {member}) in a fused root" in result.err
    assert "by itself, as a function of the root" in result.err
    assert said in result.err
    tool("unload", veth.dev, "--all")
    tool("load", veth.dev, objects["pass"], objects["deepstack"])
    with unchanged(tool, veth):
        result = tool.try_("load", veth.dev, objects[name])
        assert (result.code, f"refused {name} in a fused root" in result.err) == (5, True)
        assert said in result.err


def test_too_complex_together(tool: Tool, veth: net.Veth, objects: Objects) -> None:
    """Each takes the verifier more than half of what it allows; the second is named."""
    tool("load", "-P", 1, veth.dev, objects["costly"])
    with unchanged(tool, veth):
        result = tool.try_("load", "-P", 2, veth.dev, objects["costly"])
        assert result.code == 5, result.err
        assert "refused costly in a fused root" in result.err
        assert "beside the members before it" in result.err
        assert "too large" in result.err


def gpl_compatible(program: int) -> bool:
    with oracle.prog_fd(program) as fd:
        return bool(oracle._info(fd, 256)[84] & 1)


@pytest.mark.parametrize("first", ["core", "nongpl"])
def test_licences_that_do_not_go_together(
    tool: Tool, veth: net.Veth, objects: Objects, first: str
) -> None:
    """What GPL programs alone may call is not called from a root that has another one in it."""
    second = {"core": "nongpl", "nongpl": "core"}[first]
    tool("load", veth.dev, objects[first], objects["count"])
    with unchanged(tool, veth):
        result = tool.try_("load", veth.dev, objects[second])
        assert result.code == 7, result.err
        ids = {one["name"]: one["id"] for one in tool.status(veth.dev)["programs"]}
        core = f"core (id {ids['core']})" if first == "core" else "core"
        assert f"{core} cannot be fused with nongpl" in result.err
        assert "not GPL-compatible" in result.err


def test_the_licence_is_never_more_than_a_member_allows(
    tool: Tool, veth: net.Veth, objects: Objects
) -> None:
    tool("load", veth.dev, objects["nongpl"])
    assert not gpl_compatible(root_of(veth))
    tool("load", veth.dev, objects["count"], objects["subprogs"])
    assert not gpl_compatible(root_of(veth))
    assert [gpl_compatible(one) for one in tool.ids(veth.dev)] == [True, False, True]
    assert net.exchange(veth, FRAMES) == FRAMES
    tool("swap-dispatcher", veth.dev)
    assert not gpl_compatible(root_of(veth))
    tool("unload", veth.dev, "-n", "nongpl")
    assert gpl_compatible(root_of(veth))
    tool("load", veth.dev, objects["core"])
    assert net.exchange(veth, FRAMES) == FRAMES


def test_too_many_maps(tool: Tool, veth: net.Veth, objects: Objects) -> None:
    """A program may use 64."""
    tool("load", veth.dev, objects["maps40"])
    with unchanged(tool, veth):
        result = tool.try_("load", "-P", 60, veth.dev, objects["maps40"])
        assert result.code == 5, result.err
        assert "refused maps40 in a fused root" in result.err
        assert "64 maps" in result.err
    tool("load", veth.dev, objects["count"])


@needs("frags")
def test_tail_calls_of_those_that_take_fragments(
    tool: Tool, veth: net.Veth, objects: Objects
) -> None:
    """Such a program array is not called from a root that takes none; who has it is named."""
    tool("load", veth.dev, objects["tailfrags"], "-n", "tailfrags")
    with unchanged(tool, veth):
        result = tool.try_("load", veth.dev, objects["count"])
        assert result.code == 7, result.err
        assert "program arrays of tailfrags" in result.err
    tool("load", veth.dev, objects["frags"])
    assert net.exchange(veth, FRAMES) == FRAMES


@kinds("ext", "fused")
@pytest.mark.parametrize("count", [12, pytest.param(200, marks=pytest.mark.soak)])
def test_many_members(tool: Tool, veth: net.Veth, objects: Objects, count: int) -> None:
    """All of them count, three by themselves; for the 201st there is no place."""
    dev, many = veth.dev, [objects["pinned"]] * (count // 2 - 2)
    for priority, name in ((1, "count"), (50, "count"), (90, "count")):
        tool("load", "-P", priority, dev, objects[name])
    tool("load", "-P", 20, dev, *many)
    tool("load", "-P", 60, dev, *many)
    tool("load", "-P", 70, dev, objects["pinned"])
    ids, packets = tool.ids(dev), oracle.pinned_map(tool.bpffs / "packets").id
    assert ids == tool.chain(veth.ifindex)
    assert len(ids) == 2 * len(many) + 4 == count
    counters = [ids[0], ids[len(many) + 1], ids[-1]]
    for round_ in (1, 2):
        assert net.exchange(veth, FRAMES) == FRAMES
        assert oracle.array_counter(packets) == round_ * (count - 3) * len(FRAMES)
        assert [oracle.packets(one) for one in counters] == [round_ * len(FRAMES)] * 3
        tool("swap-dispatcher", dev)
        assert tool.ids(dev) == ids
    more = [objects_of_xdpctl.member(str(objects["pass"]))] * (201 - count)
    with unchanged(tool, veth):
        with pytest.raises(ChainFullError, match="would have 201 programs") as refused:
            change(tool, veth, lambda members: [*members, *more], tool.kind)
        assert (refused.value.exit_code, "200 slots" in refused.value.why) == (10, True)
    tool("unload", dev, "-i", counters.pop(1))
    assert net.exchange(veth, FRAMES) == FRAMES
    assert [oracle.packets(one) for one in counters] == [3 * len(FRAMES)] * 2
    assert len(tool.ids(dev)) == len(tool.chain(veth.ifindex)) == count - 1
    tool("unload", dev, "--all")
    assert tool.pins() == []


@kinds("ext")
def test_a_gap_in_a_wide_chain(tool: Tool, veth: net.Veth, objects: Objects) -> None:
    """Slots beyond the tenth are as the others: one whose pin is gone is closed."""
    tool("load", veth.dev, *[objects["pass"]] * 11)
    tool("load", veth.dev, "-P", 60, objects["count"])
    root, ids = root_of(veth), tool.ids(veth.dev)
    (tool.bpffs / f"xdp/dispatch-{veth.ifindex}-{root}/prog10-link").unlink()

    def vacant() -> list[int]:
        return [one["slot"] for one in tool.status(veth.dev)["programs"] if one["vacant"]]

    until(vacant)
    assert vacant() == [10]
    assert net.exchange(veth, FRAMES) == FRAMES
    tool("swap-dispatcher", veth.dev)
    assert tool.ids(veth.dev) == tool.chain(veth.ifindex) == [*ids[:10], ids[11]]
    assert oracle.packets(ids[11]) == len(FRAMES)
    # The root's record is lost: what it is, it is still, and nobody's.
    for path in tool.bpffs.glob("xdp/xdpctl-*/dispatch-*"):
        path.unlink()
    status = tool.status(veth.dev)
    assert (status["root"]["owner"], len(status["programs"])) == ("other", 11)
    assert tool.try_("load", veth.dev, objects["pass"]).code == 8


@kinds("ext")
def test_more_than_a_protocol_has_places_for(tool: Tool, veth: net.Veth, objects: Objects) -> None:
    """Who asks for one of libxdp's, is told; the chain that runs stays what it is."""
    eleven = [objects["pass"]] * 11
    with unchanged(tool, veth):
        result = tool.try_("load", "--protocol", 2, veth.dev, *eleven)
        assert (result.code, "protocol 2 has 10 slots" in result.err) == (10, True), result.err
        assert "leave out --protocol" in result.err
    tool("load", veth.dev, *eleven)
    with unchanged(tool, veth):
        result = tool.try_("swap-dispatcher", "--protocol", 2, veth.dev)
        assert (result.code, "11 programs are there" in result.err) == (10, True), result.err
    tool("unload", veth.dev, "-i", tool.ids(veth.dev)[0])
    tool("swap-dispatcher", "--protocol", 3, veth.dev)
    assert tool.status(veth.dev)["root"]["protocol"] == 3
