"""Programs that ask the device about packets: they are bound to it, and the root with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kernel import net, oracle
from tests.kernel.conftest import Objects, kinds, needs
from tests.kernel.test_adopt import bare
from tests.kernel.tool import Tool
from tests.unit.samples import compiled
from xdpctl.model.chain import Kind

pytestmark = needs("bound")
FRAMES = net.udps(6)
FUNCTION = "bpf_xdp_metadata_rx_hash"


def bound(veth: net.Veth, tool: Tool) -> list[bool]:
    """Whether the root and its members are bound to their device, members in their order."""
    found = [oracle.xdp_prog_id(veth.ifindex)[0], *tool.ids(veth.dev)]
    with net.Veth() as other:
        return [oracle.is_bound(one, other.ifindex) for one in found]


def passes(tool: Tool, veth: net.Veth, *seen: int) -> None:
    """Packets pass, and members by id count each."""
    before = [oracle.packets(one) for one in seen]
    assert net.exchange(veth, FRAMES) == FRAMES
    assert [oracle.packets(one) for one in seen] == [len(FRAMES) + one for one in before]


def test_the_root_is_bound_for_as_long_as_a_member_is(
    tool: Tool, veth: net.Veth, objects: Objects
) -> None:
    """Others beside it are bound to nothing, so that they go on alone, whoever came first."""
    here = veth.ifindex
    tool("load", veth.dev, objects["count"])
    (count,) = tool.ids(veth.dev)
    tool("load", veth.dev, objects["metadata"], "-P", 60)
    asking = tool.ids(veth.dev)[1]
    assert bound(veth, tool) == [True, False, True]
    passes(tool, veth, count, asking)
    tool("load", veth.dev, objects["global"], "-P", 70)
    assert bound(veth, tool) == [True, False, True, False]
    root = oracle.xdp_prog_id(here)[0]
    tool("swap-dispatcher", veth.dev)
    assert oracle.xdp_prog_id(here)[0] != root
    assert bound(veth, tool) == [True, False, True, False]
    tool("set", veth.dev, "metadata", "-P", 10)
    passes(tool, veth, count, asking)
    tool("unload", veth.dev, "-i", asking)
    assert bound(veth, tool) == [False] * 3
    passes(tool, veth, count)


def test_alone_replaced_applied_and_adopted(
    tool: Tool, veth: net.Veth, objects: Objects, tmp_path: Path
) -> None:
    path = objects["metadata"]
    tool("load", veth.dev, path)
    (first,) = tool.ids(veth.dev)
    tool("replace", veth.dev, "metadata", path)
    (second,) = tool.ids(veth.dev)
    assert (second != first, bound(veth, tool)) == (True, [True, True])
    passes(tool, veth, second)
    tool("unload", veth.dev, "--all")
    chain = tmp_path / "chain.toml"
    chain.write_text(f'[[program]]\nfile = "{path}"\n[[program]]\nfile = "{objects["pass"]}"\n')
    for _time in range(2):
        tool("apply", veth.dev, chain)
        passes(tool, veth, tool.ids(veth.dev)[0])
    with net.Veth() as other:
        tool("apply", other.dev, chain)
        assert bound(other, tool)[0]
        tool("unload", other.dev, "--all")
    tool("unload", veth.dev, "--all")
    with bare(tool, veth, path, bound=True) as running:
        counter = oracle.prog_map(running)
        tool("adopt", veth.dev, "--object", path)
        (member,) = tool.ids(veth.dev)
        assert (oracle.prog_map(member), bound(veth, tool)) == (counter, [True, True])
        passes(tool, veth, member)
        tool("unload", veth.dev, "--all")


def test_beside_a_program_array(tool: Tool, veth: net.Veth, objects: Objects, kind: Kind) -> None:
    """Kernels before 6.16 keep it from programs that are bound: on a fused root, from all of it."""
    tool("load", veth.dev, objects["metadata"])
    words = ("load", veth.dev, objects["jumps"])
    result = tool.try_(*words)
    if result.code:
        assert (result.code, kind) == (7, "fused"), result.err
        assert "jumps_on cannot be fused with metadata" in result.err
        assert "--root ext" in result.err
    else:
        assert bound(veth, tool) == [True, False, True]
    passes(tool, veth, tool.ids(veth.dev)[-1])


@kinds("fused")
def test_an_object_of_which_one_program_asks(tool: Tool, veth: net.Veth, tmp_path: Path) -> None:
    """The others are free; and a function that is not called in the end binds nobody wrongly."""
    source = f"""
extern int {FUNCTION}(const struct xdp_md *ctx, unsigned int *hash, int *type)
    __attribute__((section(".ksyms")));
extern int bpf_xdp_metadata_of_no_kernel(const struct xdp_md *ctx)
    __attribute__((section(".ksyms"), weak));
SEC("xdp") int asks(struct xdp_md *ctx)
{{
    return bpf_xdp_metadata_of_no_kernel ? bpf_xdp_metadata_of_no_kernel(ctx) : 2;
}}
SEC("xdp") int plain(struct xdp_md *ctx) {{ return 2; }}
"""
    path = compiled(tmp_path, source, "-Wno-everything")
    tool("load", veth.dev, path, "-n", "plain")
    assert bound(veth, tool) == [False, False]
    tool("load", veth.dev, path, "-n", "asks")
    assert net.exchange(veth, FRAMES) == FRAMES


@kinds("fused")
@pytest.mark.parametrize("words", [("-m", "skb"), ("-m", "hw")])
def test_modes_without_the_driver(
    tool: Tool, veth: net.Veth, objects: Objects, words: tuple[str, ...]
) -> None:
    result = tool.try_("load", *words, veth.dev, objects["metadata"])
    assert (result.code, "-m native" in result.err) == (7, True), result.err


def test_a_device_without_xdp_of_its_own(tool: Tool, objects: Objects) -> None:
    with net.NetNs() as elsewhere:
        result = tool.try_("--netns", elsewhere.name, "load", "lo", objects["metadata"])
    assert (result.code, "the driver" in result.err) == (7, True), result.err


@kinds("fused")
def test_a_function_that_this_kernel_lacks(tool: Tool, veth: net.Veth, tmp_path: Path) -> None:
    source = """
extern int bpf_xdp_metadata_none(const struct xdp_md *ctx) __attribute__((section(".ksyms")));
SEC("xdp") int asks(struct xdp_md *ctx) { return bpf_xdp_metadata_none(ctx); }
"""
    result = tool.try_("load", veth.dev, compiled(tmp_path, source, "-Wno-everything"))
    assert (result.code, "bpf_xdp_metadata_none, which this kernel" in result.err) == (7, True)
