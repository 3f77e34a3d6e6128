"""Nothing grows, however often a chain is swapped."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.kernel import net, oracle
from tests.kernel.conftest import Objects
from tests.kernel.tool import Tool
from xdpctl.bpffs.mount import Bpffs
from xdpctl.change.transact import transact
from xdpctl.host.interfaces import Interface

FIELDS = ("MemAvailable", "Percpu", "VmallocUsed", "Slab", "SUnreclaim")


def memory() -> dict[str, int]:
    """What the kernel says of its memory, in bytes, and this process's resident set."""
    found = {}
    for line in Path("/proc/meminfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name in FIELDS:
            found[name] = 1024 * int(value.split()[0])
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return {**found, "resident": pages * os.sysconf("SC_PAGESIZE")}


def settled_memory() -> dict[str, int]:
    """The same once the page cache is as empty as can be and grace periods are over."""
    for _ in range(0 if oracle.lacks("own_machine") else 2):
        Path("/proc/sys/vm/drop_caches").write_text("3")
        time.sleep(0.2)
    return memory()


def objects_in_kernel(bpffs: Path) -> dict[str, int]:
    now = oracle.snapshot(bpffs)
    return {
        "programs": len(now.progs),
        "links": len(now.links),
        "maps": len(now.maps),
        "pins": len(now.pins),
        "BTF": oracle.count_btf(now),
    }


def slope(points: list[tuple[int, int]]) -> float:
    """Of the line through points with the least squares."""
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    square = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / square


# Bytes a swap. The smallest thing that a swap makes is a link, a dentry or an inode: 200 bytes or
# more each, and a program with its BTF takes pages. What a swap leaked of any would show as such a
# slope at least. Percpu and VmallocUsed move in pages of everybody's, so for few swaps the noise
# of some pages is allowed on top. MemAvailable is the whole guest's, and goes up and down by more
# than 16 MB in seconds: it says something of many swaps alone.
# On a machine that others use, only the process's own says something; its heap grows in steps.
BOUND = 200
NOISE = {"Percpu": 1 << 17, "VmallocUsed": 1 << 18, "SUnreclaim": 2 << 20, "resident": 8 << 20}
NOISE_AVAILABLE, MANY = 16 << 20, 1000


@pytest.mark.parametrize(
    ("count", "warm_up"), [(40, 10), pytest.param(10_000, 300, marks=pytest.mark.soak)]
)
def test_swaps(tool: Tool, veth: net.Veth, objects: Objects, count: int, warm_up: int) -> None:
    """Programs, links, maps, BTF, pins and descriptors are as many; memory is flat."""
    tool("load", veth.dev, objects["count"], objects["percpu"])
    chain = tool.chain(veth.ifindex)
    bpffs, interface = Bpffs(str(tool.bpffs)), Interface.named(veth.dev)

    def swap(times: int) -> None:
        for _ in range(times):
            transact(bpffs, interface, lambda state: state.chain)

    swap(warm_up)
    tool("swap-dispatcher", veth.dev)
    points = [(0, settled_memory())]
    there = oracle.steady(lambda: objects_in_kernel(tool.bpffs))
    descriptors = os.listdir("/proc/self/fd")
    begin = time.monotonic()
    for part in range(1, 5):
        swap(count // 4)
        points.append((part * count // 4, settled_memory()))
    seconds = time.monotonic() - begin
    assert os.listdir("/proc/self/fd") == descriptors
    end, now = time.monotonic() + 30, objects_in_kernel(tool.bpffs)
    while any(now[kind] > there[kind] for kind in there) and time.monotonic() < end:
        time.sleep(0.05)
        now = objects_in_kernel(tool.bpffs)
    assert all(now[kind] <= there[kind] for kind in there), (now, there)
    assert tool.chain(veth.ifindex) == chain
    frames = net.udps(20)
    assert net.exchange(veth, frames) == frames
    assert tool.status(veth.dev)["residue"] == []
    slopes = {
        name: slope([(swaps, found[name]) for swaps, found in points]) for name in points[0][1]
    }
    told = ", ".join(f"{name} {value:+.1f}" for name, value in slopes.items())
    print(f"{count} swaps in {seconds:.0f} s: {now}; bytes a swap: {told}")
    alone = not oracle.lacks("own_machine")
    for name, noise in NOISE.items() if alone else [("resident", NOISE["resident"])]:
        assert slopes[name] < BOUND + noise / count, name
    if alone and count >= MANY:
        assert slopes["MemAvailable"] > -BOUND - NOISE_AVAILABLE / count
