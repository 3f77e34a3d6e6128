"""What others' objects have: each feature as a small program of our own, in all that is done to it.

Each passes every packet, and aborts if it finds what it keeps in disorder.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel import net, oracle
from tests.kernel.conftest import Objects
from tests.kernel.test_adopt import bare
from tests.kernel.tool import Tool

FIELD: dict[str, tuple[str, ...]] = {
    "count": (),
    "devmaps": (),
    "devpinned": (),
    "global": (),
    "kfunc": ("kfuncs",),
    "mapflags": (),
    "mapkinds": (),
    "maps40": (),
    "oddsection": (),
    "percpu": (),
    "pinned": (),
    "subprogs": (),
    "twins": (),
}
"""The objects, of tests/bpf/<name>.c, each with what it wants of a kernel."""

PINNING = ("devpinned", "pinned")
FRAMES = net.udps(6)
APPLIED = '[[program]]\nfile = "{}"\nname = "it"\n[[program]]\nfile = "{}"\nname = "last"\n'


def lacking(name: str) -> None:
    for capability in FIELD[name]:
        if capability in oracle.PROBES and (reason := oracle.lacks(capability)):
            pytest.skip(f"missing: {capability} ({reason})")


def passes(veth: net.Veth) -> None:
    assert net.exchange(veth, FRAMES) == FRAMES


@pytest.mark.parametrize("name", FIELD)
def test_an_object_of_the_field(
    tool: Tool, veth: net.Veth, objects: Objects, name: str, tmp_path: Path
) -> None:
    """Alone, between two others, replaced by itself, applied twice and adopted: it works on."""
    lacking(name)
    tool("load", veth.dev, objects[name])
    passes(veth)
    tool("load", "-P", 10, veth.dev, objects["count"])
    tool("load", "-P", 90, veth.dev, objects["pass"])
    assert len(tool.ids(veth.dev)) == 3
    passes(veth)
    if name != "mapflags":  # queues cannot be copied
        tool("test", veth.dev, "load", objects["pass"])
    it = tool.ids(veth.dev)[1]
    tool("replace", veth.dev, it, objects[name])
    assert tool.ids(veth.dev)[1] != it
    passes(veth)
    tool("unload", veth.dev, "--all")
    chain = tmp_path / "chain.toml"
    chain.write_text(APPLIED.format(objects[name], objects["pass"]))
    for _time in range(2):
        tool("apply", veth.dev, chain)
        passes(veth)
    tool("unload", veth.dev, "--all")
    adopt(tool, veth, objects[name])


def adopt(tool: Tool, veth: net.Veth, path: Path) -> None:
    """A program of iproute2's; of those that pin maps, whose pins are elsewhere, one of our own."""
    with bare(tool, veth, path) if path.stem in PINNING else by_ip(veth, path) as running:
        passes(veth)
        info = oracle.prog(running)
        maps = {one for one in info.map_ids if oracle.map(one).name != "xdpctl_image"}
        tool("adopt", veth.dev, "--object", path)
        passes(veth)
        (member,) = tool.ids(veth.dev)
        assert maps <= set(oracle.prog(member).map_ids)
        tool("load", veth.dev, path.with_name("pass.o"))
        passes(veth)
        tool("unload", veth.dev, "--all")


@contextlib.contextmanager
def by_ip(veth: net.Veth, path: Path) -> Iterator[int]:
    section = "prog" if path.stem == "oddsection" else "xdp"
    net.ip("link", "set", "dev", veth.dev, "xdpdrv", "object", str(path), "section", section)
    try:
        yield oracle.xdp_prog_id(veth.ifindex)[0]
    finally:
        net.ip("link", "set", "dev", veth.dev, "xdpdrv", "off")
