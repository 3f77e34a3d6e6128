"""Objects whose type information is missing, or is that of an older compiler."""

from __future__ import annotations

from tests.kernel import net, oracle
from tests.kernel.conftest import Objects, needs
from tests.kernel.test_bad_input import unchanged
from tests.kernel.tool import Tool

EVEN, ODD = net.udps(10, size=100), net.udps(10, start=100, size=101)
# What loads, and which map has its count; all of them pass frames of even length.
LITTLE = {
    "g0_global": "g0_globa.bss",
    "g0_legacies": "packets",
    "stripped_global": "stripped.bss",
    "noext_count": "packets",
    "noext_subprogs": "packets",
    "static_count": "packets",
    "static_subprogs": "packets",
}


def test_they_are_members_like_any_other(tool: Tool, veth: net.Veth, objects: Objects) -> None:
    """Loaded one after the other, and all again as one change: they count, through swaps."""
    dev = veth.dev
    for priority, name in enumerate(LITTLE):
        tool("load", "-P", priority, dev, objects[name])
    ids = tool.ids(dev)
    assert ids == tool.chain(veth.ifindex)
    kind = oracle.PROG_TYPE_EXT if tool.kind == "ext" else oracle.PROG_TYPE_XDP
    assert {oracle.prog(one).type for one in ids} == {kind}
    counts = [oracle.prog_map(one, name) for one, name in zip(ids, LITTLE.values(), strict=True)]
    for round_ in range(1, 4):
        assert net.exchange(veth, EVEN) == EVEN
        assert [oracle.array_counter(one) for one in counts] == [10 * round_] * len(ids)
        tool("swap-dispatcher", dev)
        assert tool.ids(dev) == ids
    # Odd frames are the second and third from the end's to drop, and the first's.
    assert net.exchange(veth, ODD) == []
    tool("load", "-P", 60, dev, *(objects[name] for name in LITTLE))
    assert net.exchange(veth, EVEN) == EVEN
    assert [oracle.array_counter(one) for one in counts] == [40] * len(ids)
    assert len(tool.ids(dev)) == 2 * len(ids)
    tool("unload", dev, "--all")
    assert tool.pins() == []


@needs("shared_arrays")
def test_tail_calls(tool: Tool, veth: net.Veth, objects: Objects) -> None:
    """With the functions' linkage as older compilers write it."""
    tool("load", "-P", 1, veth.dev, objects["static_tailcall"], "-n", "tailcall")
    tool("load", "-P", 2, veth.dev, objects["static_count"])
    for round_ in (1, 2):
        assert net.exchange(veth, EVEN + ODD) == EVEN
        assert oracle.packets(tool.ids(veth.dev)[1]) == 10 * round_
        tool("swap-dispatcher", veth.dev)


def test_what_cannot_be_loaded(tool: Tool, veth: net.Veth, objects: Objects) -> None:
    """Maps that are described in BTF, without BTF, and what to do."""
    tool("load", veth.dev, objects["count"])
    with unchanged(tool, veth):
        result = tool.try_("load", veth.dev, objects["stripped_count"])
        assert (result.code, "clang -g" in result.err) == (4, True), result.err
        assert "describes its maps in BTF, which it lacks" in result.err
