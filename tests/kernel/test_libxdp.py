"""Beside libxdp's tools on one interface: who loads, adds, lists and removes, in any order."""

from __future__ import annotations

import contextlib
import itertools
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.kernel import net, oracle
from tests.kernel.conftest import Objects, every_kernel, kinds, needs
from tests.kernel.test_packets import Traffic
from tests.kernel.test_readers import reading, readings
from tests.kernel.tool import Tool

pytestmark = kinds("ext")


def rows(tool: Tool, dev: str) -> list[int]:
    """The ids that the real xdp-loader lists."""
    lines = tool.xdp_loader("status", dev).splitlines()
    return [int(line.split()[3]) for line in lines if line.startswith(" =>")]


@contextmanager
def counted(
    tool: Tool, veth: net.Veth, *programs: int, rate: float | None = None
) -> Iterator[None]:
    """Meanwhile no packet misses any of some programs."""
    with Traffic(veth, programs, rate=rate) as traffic:
        yield
        assert traffic.missed(1, "a change") == [0] * len(programs)


def test_join_and_hand_back(tool: Tool, veth: net.Veth, objects: Objects) -> None:
    """Each tool goes on with what the other has made; the chain is the same to both."""
    dev = veth.dev
    tool.xdp_loader("load", dev, objects["count"], objects["config"])
    first = tool.ids(dev)
    with counted(tool, veth, first[1]):
        tool("load", dev, objects["pass"])
    root = tool.status(dev)["root"]
    assert (root["owner"], root["attach"], root["protocol"]) == ("xdpctl", "netlink", 2)
    ids = tool.ids(dev)
    assert len(ids) == 3
    assert set(first) < set(ids)
    assert ids == tool.chain(veth.ifindex) == rows(tool, dev)
    with counted(tool, veth, first[1]):
        tool.xdp_loader("unload", dev, "-i", first[0])
    root = tool.status(dev)["root"]
    assert (root["owner"], root["attach"]) == ("libxdp", "netlink")
    assert tool.ids(dev) == rows(tool, dev) == [one for one in ids if one != first[0]]
    tool.xdp_loader("load", dev, objects["percpu"])
    with counted(tool, veth, first[1]):
        tool("swap-dispatcher", dev)
    assert tool.status(dev)["residue"] == []
    assert tool.ids(dev) == rows(tool, dev) == tool.chain(veth.ifindex)
    tool.xdp_loader("unload", dev, "--all")
    tool("clean")
    assert tool.pins() == []


def test_unload_what_libxdp_loaded(tool: Tool, veth: net.Veth, objects: Objects) -> None:
    """All of it, or one program; nothing of libxdp's is left either."""
    tool.xdp_loader("load", veth.dev, objects["count"], objects["pass"])
    ids = tool.ids(veth.dev)
    tool("unload", veth.dev, "-i", ids[0])
    assert tool.ids(veth.dev) == rows(tool, veth.dev) == ids[1:]
    tool("unload", veth.dev, "--all")
    assert oracle.xdp_prog_id(veth.ifindex)[0] == 0
    assert tool.pins() == []


@pytest.mark.parametrize("protocol", [1, 2, 3])
def test_protocols(tool: Tool, veth: net.Veth, objects: Objects, protocol: int) -> None:
    """What is there stays; it changes when that is asked for. 1.3.1 reads 1 and 2."""
    dev = veth.dev
    tool("load", "--attach", "netlink", "--protocol", protocol, dev, objects["count"])
    tool("load", dev, objects["config"])
    assert tool.status(dev)["root"]["protocol"] == protocol
    if protocol < 3:
        assert rows(tool, dev) == tool.ids(dev)
    else:
        assert subprocess.run(["xdp-loader", "status", dev], capture_output=True).returncode
    counter = next(one["id"] for one in tool.status(dev)["programs"] if one["name"] == "count")
    with counted(tool, veth, counter):
        for other in (1, 2, 3, protocol):
            tool("swap-dispatcher", "--protocol", other, dev)
            assert tool.status(dev)["root"]["protocol"] == other
    # A root of ours whose records are lost is to be joined like one of libxdp's.
    for path in tool.bpffs.glob("xdp/xdpctl-*/dispatch-*"):
        path.unlink()
    assert tool.status(dev)["root"]["owner"] == "libxdp"
    with counted(tool, veth, counter):
        tool("load", dev, objects["pass"])
    root = tool.status(dev)["root"]
    assert (root["owner"], root["protocol"], len(tool.ids(dev))) == ("xdpctl", protocol, 3)


@needs("shared_arrays")
@every_kernel
def test_a_program_array_outlives_the_other_tools_swaps(
    tool: Tool, veth: net.Veth, objects: Objects
) -> None:
    """xdpctl keeps the pin for as long as the program runs, whoever made the root."""
    dev = veth.dev
    tool("load", "--attach", "netlink", dev, objects["tailcall"], "-n", "tailcall")
    try:
        tool.xdp_loader("load", dev, objects["count"])
    except subprocess.CalledProcessError:
        pytest.skip("missing: an xdp-loader that can hook tail-calling programs on this kernel")
    tool("clean")
    assert list(tool.bpffs.glob("xdp/xdpctl-*/map-*"))
    tool("swap-dispatcher", dev)
    assert list(tool.bpffs.glob("xdp/xdpctl-*/map-*"))
    tool.xdp_loader("unload", dev, "--all")
    tool("clean")
    assert tool.pins() == []


@pytest.mark.parametrize("rounds", [3, pytest.param(50, marks=pytest.mark.soak)])
def test_both_at_once(
    tool: Tool, veth: net.Veth, objects: Objects, tmp_path: Path, rounds: int
) -> None:
    """Each round both begin a load at once: no program is lost, no false state is told."""
    dev, begin = veth.dev, threading.Barrier(2)
    tool("load", "--attach", "netlink", "-P", 1, dev, objects["count"])
    (kept,) = tool.ids(dev)
    codes = {name: Counter[int]() for name in ("xdp-loader load", "load", "unload")}
    root = oracle.xdp_prog_id(veth.ifindex)[0]
    chains: dict[int, set[tuple[int, ...]]] = {root: {(kept,)}}  # by root
    unloaded = set[int]()

    def theirs() -> None:
        words = ["/usr/sbin/xdp-loader", "load", dev, str(objects["pass"])]
        with contextlib.suppress(threading.BrokenBarrierError):
            for _ in range(rounds):
                begin.wait()
                codes["xdp-loader load"][subprocess.run(words, capture_output=True).returncode] += 1

    def done(*words: object) -> set[int]:
        """The programs after a command of ours; none where it came too late."""
        result = tool.try_(*words, "--json")
        codes[str(words[0])][result.code] += 1
        if result.code:
            return set()
        ids = tuple(one["id"] for one in result.json["programs"])
        chains[result.json["new_root"]] = {ids}
        return {one["id"] for one in result.json["programs"] if one["name"] == "percpu"}

    with (
        reading(tool, dev, tmp_path) as log,
        counted(tool, veth, kept, rate=2000),
    ):
        thread = threading.Thread(target=theirs)
        thread.start()
        try:
            ours = {kept}
            for number in range(rounds):
                begin.wait()
                ours |= done("load", dev, objects["percpu"])
                ids = tool.ids(dev)
                assert ours <= set(ids), number
                for one in ids[1:] if len(ids) > 7 else []:
                    if done("unload", dev, "-i", one):
                        unloaded.add(one)
                ours -= unloaded
        finally:
            begin.abort()
            thread.join()
    ids = tool.ids(dev)
    print(f"{rounds} rounds, by exit code: {codes}; {len(ids)} programs at the end")
    assert ids == tool.chain(veth.ifindex)
    assert ids[0] == kept
    assert ours <= set(ids)
    assert len(ids) == 1 + codes["xdp-loader load"][0] + codes["load"][0] - codes["unload"][0]
    # Each root that was read has one chain, which nothing has left but what we unloaded.
    seen, total = readings(log)
    print(f"{total} readings, {len(seen)} times something else")
    for read in seen:
        chains.setdefault(read.root, set()).add(read.chain)
        assert (read.root > 0, read.chain[:1], 0 in read.chain) == (True, (kept,), False), read
        assert read.owner == "libxdp" or not read.residue, read
    assert [chain for chain in chains.values() if len(chain) > 1] == []
    for before, after in itertools.pairwise(seen):
        assert before.root <= after.root
        assert set(before.chain) - set(after.chain) <= unloaded, (before, after)
    tool("unload", dev, "--all")
    tool("clean")
    assert tool.pins() == []


@needs("frags")
def test_frags_of_a_chain_that_is_joined(tool: Tool, veth: net.Veth, objects: Objects) -> None:
    """Each program keeps its flag, and the root has it while all of them do.

    The chain is like one of libxdp's: the xdp-loaders of 1.3.1 and 1.6 ask for no frags themselves.
    """
    dev, frames = veth.dev, net.udps(5, size=8000)

    def found() -> tuple[str, bool, list[bool]]:
        status = tool.status(dev)
        programs = [one["frags"] for one in status["programs"]]
        return status["root"]["owner"], status["root"]["frags"], programs

    def set_mtu(size: int) -> None:
        for name in (veth.dev, veth.peer):
            net.ip("link", "set", name, "mtu", str(size))

    tool("load", "--attach", "netlink", dev, objects["frags"])
    for path in tool.bpffs.glob("xdp/xdpctl-*/dispatch-*"):
        path.unlink()
    assert found() == ("libxdp", True, [True])
    with counted(tool, veth, *tool.ids(dev)):
        tool("load", dev, objects["frags"])
    assert found() == ("xdpctl", True, [True, True])
    ids = tool.ids(dev)
    # The kernel allows it where the root that runs has the flag.
    set_mtu(9000)
    before = [oracle.packets(one) for one in ids]
    assert net.exchange(veth, frames) == frames
    assert [oracle.packets(one) for one in ids] == [one + len(frames) for one in before]
    refused = tool.try_("load", dev, objects["count"])
    assert (refused.code, "count lacks it" in refused.err) == (7, True), refused.err
    assert found() == ("xdpctl", True, [True, True])
    set_mtu(1500)
    with counted(tool, veth, *ids):
        tool("load", dev, objects["count"], "-P", 90)
        assert found() == ("xdpctl", False, [True, True, False])
        tool("swap-dispatcher", dev)
        assert found() == ("xdpctl", False, [True, True, False])
        tool("unload", dev, "-n", "count")
    assert found() == ("xdpctl", True, [True, True])
    assert tool.ids(dev) == ids == tool.chain(veth.ifindex)
    tool("unload", dev, "--all")
    tool("clean")
    assert tool.pins() == []
