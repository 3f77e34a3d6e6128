"""What a fused root's members have to share, and who is to blame where it does not suffice."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kernel import net, oracle
from tests.kernel.conftest import Objects, kinds, needs
from tests.kernel.differential import change, packets, run_model
from tests.kernel.test_bad_input import unchanged
from tests.kernel.test_fused import model_of
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


# --- what does not fit as a function ------------------------------------------------------------

MISFITS: dict[str, tuple[tuple[str, ...], str, str]] = {
    "the stack": (("pass", "deepstack"), "twoframes", "twoframes"),
    "levels of calls": (("pass", "deepstack"), "levels", "levels"),
    "steps of the verifier": (("costly",), "costly", "costly"),
    "maps": (("maps40",), "maps40", "maps40"),
    "a licence": (("nongpl", "count"), "core", "core"),
    "a licence that another lacks": (("core", "count"), "nongpl", "core"),
    "a loop of no rounds": (("pass",), "noround", "noround"),
}
"""What runs, what comes to it, and which of them has no room, if one has none."""

FITTING = ("the stack", "a loop of no rounds")
"""What some kernels take."""


def called(tool: Tool) -> list[int]:
    """The programs that a root calls through pinned arrays."""
    found = tool.bpffs.glob("xdp/xdpctl-*/map-*-xdpctl_called")
    return sorted(int(path.name.split("-")[1]) for path in found)


@pytest.mark.parametrize("case", MISFITS)
def test_what_does_not_fit_as_a_function(
    tool: Tool, veth: net.Veth, objects: Objects, case: str
) -> None:
    """It is called through a program array, from root to root, and goes with its array."""
    there, new, name = MISFITS[case]
    if case == "levels of calls" and oracle.lacks("eight_frames"):
        pytest.skip("missing: eight_frames")
    if new == "noround" and oracle.lacks("bpf_loop"):
        pytest.skip("missing: bpf_loop")
    tool("load", veth.dev, *[objects[one] for one in there])
    tool("load", "-P", 60, veth.dev, objects[new])
    ids = {one["name"]: one["id"] for one in tool.status(veth.dev)["programs"]}
    assert called(tool) == [ids[name]] or (case in FITTING and not called(tool))
    for _swap in range(2):
        assert tool.chain(veth.ifindex) == tool.ids(veth.dev)
        for frame in packets(1, 20):
            assert oracle.run(root_of(veth), frame) == run_model(model_of(tool, veth), frame)
        assert net.exchange(veth, FRAMES) == FRAMES
        tool("swap-dispatcher", veth.dev)
    status = tool.status(veth.dev)
    assert (status["residue"], [one["array_id"] for one in status["programs"]]) == (
        [],
        [None] * (len(there) + 1),
    )
    tool("unload", veth.dev, "-i", ids[name])
    assert called(tool) == []


@pytest.mark.parametrize("lost", ["prog", "array"])
def test_a_pin_of_what_is_called_that_somebody_removed(
    tool: Tool, veth: net.Veth, objects: Objects, lost: str
) -> None:
    """The next change pins it again."""
    tool("load", veth.dev, objects["nongpl"], objects["core"])
    before = tool.ids(veth.dev)
    programs = {one["name"]: one for one in tool.status(veth.dev)["programs"]}
    (array,) = tool.bpffs.glob("xdp/xdpctl-*/map-*-xdpctl_called")
    (Path(programs["core"]["pin"]) if lost == "prog" else array).unlink()
    assert net.exchange(veth, FRAMES) == FRAMES
    tool("swap-dispatcher", veth.dev)
    assert tool.ids(veth.dev) == before
    assert called(tool) == [programs["core"]["id"]]
    assert all(Path(one["pin"]).exists() for one in tool.status(veth.dev)["programs"])
    assert net.exchange(veth, FRAMES) == FRAMES


def test_more_than_a_root_can_call(tool: Tool, veth: net.Veth, objects: Objects) -> None:
    """The kernel makes 33 tail calls for a packet and leaves the next one out: it is refused."""
    tool("load", veth.dev, objects["nongpl"], *[objects["core"]] * 32)
    assert len(called(tool)) == 32
    with unchanged(tool, veth):
        result = tool.try_("load", veth.dev, objects["core"])
        assert result.code == 7, result.err
        assert "core cannot be fused with nongpl" in result.err
    assert net.exchange(veth, FRAMES) == FRAMES
    assert oracle.packets(tool.ids(veth.dev)[0]) > 0


def gpl_compatible(program: int) -> bool:
    with oracle.prog_fd(program) as fd:
        return bool(oracle._info(fd, 256)[84] & 1)


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
