"""Objects whose maps are defined as before BTF: what there is for maps is there for theirs."""

from __future__ import annotations

from pathlib import Path

from tests.kernel import net, oracle
from tests.kernel.conftest import Objects, kinds, needs, one_guest
from tests.kernel.test_bad_input import unchanged
from tests.kernel.tool import Tool
from tests.unit.samples import compiled

pytestmark = one_guest

FRAMES = net.udps(10)
APPLIED = """[[program]]
file = "{}"
prog-name = "legacyjumps"
tail = {{ "jumps[1]" = "{}" }}
"""
ELF = "struct { unsigned type, key, value, entries, flags, id, pin, inner_id, inner_idx; } "


def test_values_sizes_and_sharing(tool: Tool, veth: net.Veth, objects: Objects) -> None:
    """All packets are counted, in maps that a program in the place of another goes on with."""
    path, sized = objects["legacies"], ("--entries", "longer=64")
    tool("load", veth.dev, path, *sized, "-g", "verdict=1")
    (first,) = tool.ids(veth.dev)
    assert net.exchange(veth, FRAMES) == []
    assert oracle.packets(first) == len(FRAMES)
    assert oracle.map(oracle.prog_map(first, "longer")).max_entries == 64
    tool("replace", veth.dev, "legacies", path, *sized)
    (second,) = tool.ids(veth.dev)
    assert net.exchange(veth, FRAMES) == FRAMES
    assert oracle.packets(second) == 2 * len(FRAMES)
    result = tool.try_("replace", veth.dev, "legacies", path)
    assert (result.code, "map longer: " in result.err) == (7, True), result.err
    tool("replace", veth.dev, "legacies", path, "--maps", "new")
    assert net.exchange(veth, FRAMES) == FRAMES
    (third,) = tool.ids(veth.dev)
    assert oracle.packets(third) == len(FRAMES)


@needs("shared_arrays")
def test_pins_and_program_arrays(
    tool: Tool, veth: net.Veth, objects: Objects, tmp_path: Path
) -> None:
    """What aya asks to be pinned by its name is, and an array that nothing fills is told."""
    path, pins = objects["legacyjumps"], tool.bpffs / "pins"
    loaded = tool("load", veth.dev, path, "-n", "legacyjumps", "-p", pins)
    assert "the program array jumps of legacyjumps" in loaded.err
    assert net.exchange(veth, FRAMES) == FRAMES
    counted = oracle.pinned_map(pins / "packets").id
    assert oracle.array_counter(counted) == len(FRAMES)
    tool("replace", veth.dev, "legacyjumps", path, "-n", "legacyjumps")
    assert net.exchange(veth, FRAMES) == FRAMES
    assert oracle.packets(tool.ids(veth.dev)[0]) == 2 * len(FRAMES)
    chain = tmp_path / "chain.toml"
    chain.write_text(APPLIED.format(path, "dropper"))
    for _time in range(2):
        tool("apply", veth.dev, chain)
        assert net.exchange(veth, FRAMES) == []


@kinds("fused")
def test_what_is_not_plain(tool: Tool, veth: net.Veth, objects: Objects, tmp_path: Path) -> None:
    """It is told with exit code 4, and nothing changes."""
    tool("load", veth.dev, objects["count"])
    path = compiled(
        tmp_path,
        ELF + 'flows SEC("maps") = {1, 4, 8, 1, 0, 0, 2};'
        'SEC("xdp") int f(struct xdp_md *ctx) { return 2; }',
    )
    with unchanged(tool, veth):
        result = tool.try_("load", veth.dev, path)
        assert (result.code, "map flows: pinning is 2" in result.err) == (4, True), result.err
