"""A bare program on the hook becomes the first member of a chain, and no packet misses it."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.kernel import crash, net, oracle
from tests.kernel.conftest import Objects, one_guest
from tests.kernel.test_packets import Traffic
from tests.kernel.tool import Tool
from xdpctl.cli.run import run
from xdpctl.kernel import libbpf, uapi
from xdpctl.model.source import Source
from xdpctl.programs import loading
from xdpctl.programs.binding import Device

pytestmark = one_guest

Attach = Callable[[Tool, net.Veth, Path], contextlib.AbstractContextManager[int]]


@contextlib.contextmanager
def loaded(
    path: Path, device: int = 0, arrays: contextlib.ExitStack | None = None
) -> Iterator[int]:
    """The descriptor of a plain XDP program of an object file, bound to a `device` or none.

    Its program arrays stay open for as long as `arrays`.
    """
    source = Source(str(path), path.read_bytes(), path.stem)
    one = loading.load(source, frags=False, device=Device(device) if device else None)
    with one:
        if arrays:
            for array in one.arrays.values():
                arrays.enter_context(array.duplicate())
        yield one.program.fd


@contextlib.contextmanager
def bare(
    tool: Tool, veth: net.Veth, path: Path, mode: str = "xdpdrv", *, bound: bool = False
) -> Iterator[int]:
    """A program that iproute2 attached over netlink, bound to the device if it is to be; its id.

    Somebody holds its program arrays meanwhile.
    """
    pin = tool.bpffs / "theirs"
    with contextlib.ExitStack() as arrays:
        with loaded(path, veth.ifindex if bound else 0, arrays) as fd:
            libbpf.pin(fd, str(pin))
            net.ip("link", "set", "dev", veth.dev, mode, "pinned", str(pin))
            pin.unlink()
        try:
            yield oracle.xdp_prog_id(veth.ifindex)[0]
        finally:
            with contextlib.suppress(Exception):
                net.ip("link", "set", "dev", veth.dev, mode, "off")


@pytest.mark.parametrize("mode", ["xdpdrv", "xdpgeneric"])
def test_adopt_under_traffic(tool: Tool, veth: net.Veth, objects: Objects, mode: str) -> None:
    """It counts every packet in the same map, before and after, and others can join it."""
    with bare(tool, veth, objects["count"], mode) as running:
        packets = oracle.prog_map(running)
        with Traffic(veth, [running]) as traffic:
            result = tool("adopt", veth.dev, "--object", objects["count"], "-P", 10, "--json").json
            assert traffic.missed(1, "adopted") == [0]
        (member,) = result["programs"]
        assert member["name"] == "count"
        assert oracle.prog_map(member["id"]) == packets
        status = tool.status(veth.dev)
        assert (status["root"]["owner"], status["root"]["attach"]) == ("xdpctl", "netlink")
        assert oracle.array_counter(oracle.prog_map(member["id"])) == traffic.sent
        with Traffic(veth, [member["id"]]) as traffic:
            tool("load", veth.dev, objects["pass"])
            assert traffic.missed(1, "joined") == [0]
        assert tool.chain(veth.ifindex)[0] == member["id"]
        tool("unload", veth.dev, "--all")
        assert oracle.xdp_prog_id(veth.ifindex)[0] == 0


def test_what_is_not_adopted(tool: Tool, veth: net.Veth, objects: Objects) -> None:
    """Another file than the one that runs, no program, a dispatcher: nothing changes."""
    assert tool.try_("adopt", veth.dev, "--object", objects["count"]).code == 3
    with bare(tool, veth, objects["count"]) as running:
        before = oracle.snapshot(tool.bpffs)
        for name, code in (("pass", 2), ("percpu", 7), ("noprog", 4)):
            result = tool.try_("adopt", veth.dev, "--object", objects[name])
            assert result.code == code, (name, result.err)
        assert tool.try_("load", veth.dev, objects["pass"]).code == 8
        assert "xdpctl adopt" in tool.try_("load", veth.dev, objects["pass"]).err
        assert not oracle.settle(before).added(before)
        assert oracle.xdp_prog_id(veth.ifindex)[0] == running
        tool("adopt", veth.dev, objects["pass"], "--force")
        result = tool.try_("adopt", veth.dev, "--object", objects["pass"])
        assert result.code == 8
        assert "xdpctl load" in result.err
        tool("unload", veth.dev, "--all")


@contextlib.contextmanager
def linked(_tool: Tool, veth: net.Veth, path: Path) -> Iterator[int]:
    """A program that this process attached by a bpf_link, which nobody pinned; its id."""
    flags = uapi.XDP_FLAGS_DRV_MODE
    with loaded(path) as fd, libbpf.owned(libbpf.link_xdp(fd, veth.ifindex, flags)):
        yield libbpf.prog_info(fd).id


def test_a_link_of_anothers(tool: Tool, veth: net.Veth, objects: Objects) -> None:
    """Refused, its holder named; by force its link goes on, its owner gone or not."""
    with linked(tool, veth, objects["count"]) as running:
        refused = tool.try_("load", veth.dev, objects["pass"])
        before = oracle.snapshot(tool.bpffs)
        assert refused.code == 8
        assert f"held by process {os.getpid()} (" in refused.err
        refused = tool.try_("adopt", veth.dev, "--object", objects["count"])
        assert refused.code == 8
        assert "--force" in refused.err
        assert oracle.xdp_prog_id(veth.ifindex)[0] == running
        assert not oracle.settle(before).added(before)
        with Traffic(veth, [running]) as traffic:
            tool("adopt", veth.dev, "--object", objects["count"], "--force")
            assert traffic.missed(1, "adopted") == [0]
    # Its owner's descriptor is closed now.
    root = tool.status(veth.dev)["root"]
    assert (root["owner"], root["attach"]) == ("xdpctl", "link")
    (member,) = tool.ids(veth.dev)
    with Traffic(veth, [member]) as traffic:
        tool("load", veth.dev, objects["pass"])
        assert traffic.missed(1, "joined") == [0]
    tool("unload", veth.dev, "--all")
    assert tool.pins() == []


def killed(veth: net.Veth, words: list[str], point: int, packets: int) -> int:
    """SIGKILL at a boundary of a command; the root of then, under which all frames are counted."""
    frames = net.udps(5)
    with crash.Stepped(lambda: run(words)) as child:
        child.run_to(point)
    root = oracle.xdp_prog_id(veth.ifindex)[0]
    before = oracle.array_counter(packets)
    net.exchange(veth, frames)
    assert oracle.array_counter(packets) - before == len(frames), point
    return root


def nothing_but_new(tool: Tool) -> bool:
    """No pins; an interface's directory, while it is new, may be another command's."""
    return all(re.fullmatch(r"xdp/xdpctl-(ino)?\d+-\d+", pin) for pin in tool.pins())


@pytest.mark.parametrize("count", [4, pytest.param(400, marks=pytest.mark.soak)])
@pytest.mark.parametrize("by", [bare, linked])
def test_killed_while_it_adopts(
    tool: Tool, veth: net.Veth, objects: Objects, by: Attach, count: int
) -> None:
    """SIGKILL around its system calls: the bare program runs or the chain does, in one piece."""
    words = ["adopt", veth.dev, "--object", str(objects["count"]), "--force", "-q"]
    with by(tool, veth, objects["count"]):
        calls = crash.boundaries(lambda: run(words))
        tool("unload", veth.dev, "--all")
    points = [n for n, (call, _) in enumerate(calls, 1) if call not in crash.READS]
    points = points[:: max(1, len(points) // count)]
    outcomes = Counter[str]()
    for point in points:
        with by(tool, veth, objects["count"]) as running:
            packets = oracle.prog_map(running)
            root = killed(veth, words, point, packets)
            outcomes["before" if root == running else "after"] += 1
            tool("clean")
            assert oracle.xdp_prog_id(veth.ifindex)[0] == root, point
            if root == running:
                assert nothing_but_new(tool), point
                assert tool.status(veth.dev)["root"]["owner"] == "other"
                tool(*words)
            assert tool.status(veth.dev)["root"]["owner"] == "xdpctl"
            assert [oracle.prog_map(one) for one in tool.chain(veth.ifindex)] == [packets]
            tool("unload", veth.dev, "--all")
        assert tool.pins() == []
    print(f"\nadopt ({by.__name__}): {len(calls)} boundaries, killed at {len(points)}: {outcomes}")
    assert set(outcomes) == {"before", "after"}


@pytest.mark.parametrize("by", [bare, linked])
def test_an_adoption_that_is_taken_back(
    tool: Tool, veth: net.Veth, objects: Objects, by: Attach
) -> None:
    """The program has the hook to itself again, and counted every packet; nothing is left."""
    words = ["adopt", veth.dev, "--object", objects["count"], "--force", "--confirm-within"]
    (tool.bpffs / "xdp").mkdir(mode=0o700)
    with by(tool, veth, objects["count"]) as running:
        before = oracle.snapshot(tool.bpffs)
        with Traffic(veth, [running]) as traffic:
            tool(*words, "1s")
            end = time.monotonic() + 20
            while oracle.xdp_prog_id(veth.ifindex)[0] != running and time.monotonic() < end:
                time.sleep(0.1)
            assert traffic.missed(2, "not confirmed") == [0]
        assert oracle.xdp_prog_id(veth.ifindex)[0] == running
        assert not oracle.settle(before).added(before)
        with Traffic(veth, [running]) as traffic:
            tool(*words, "1m")
            told = tool("rollback", veth.dev).out
            assert traffic.missed(2, "rolled back") == [0]
        assert f"brought back count (id {running})" in told
        assert not oracle.settle(before).added(before)
        tool(*words, "1m")
        refused = tool.try_("rollback", veth.dev, "--confirm-within", "1m")
        assert (refused.code, "no member of a chain" in refused.err) == (7, True)
        assert tool("confirm", veth.dev).out.endswith("does not go back to count\n")
        assert "count" in tool("history", veth.dev).out
        assert tool.status(veth.dev)["root"]["owner"] == "xdpctl"
        tool("unload", veth.dev, "--all")
    assert tool.pins() == []


@pytest.mark.parametrize("count", [3, pytest.param(400, marks=pytest.mark.soak)])
@pytest.mark.parametrize("by", [bare, linked])
def test_killed_while_it_goes_back(
    tool: Tool, veth: net.Veth, objects: Objects, by: Attach, count: int
) -> None:
    """SIGKILL around its system calls: the chain runs or the bare program does, in one piece."""
    adopt = ["adopt", veth.dev, "--object", objects["count"], "--force", "--confirm-within", "5m"]
    back = ["rollback", veth.dev, "-q"]
    with by(tool, veth, objects["count"]) as running:
        packets, outcomes = oracle.prog_map(running), Counter[str]()
        tool(*adopt)
        calls = crash.boundaries(lambda: run(back))
        points = [n for n, (call, _) in enumerate(calls, 1) if call not in crash.READS]
        points = points[-1 :: -max(1, len(points) // count)]
        # The busier the machine is, the more calls does the wait after the flip make.
        points.append(next(n for n, (call, _) in enumerate(calls, 1) if call == "symlink"))
        for point in points:
            tool(*adopt)
            root = killed(veth, back, point, packets)
            outcomes["after" if root == running else "before"] += 1
            if root == running:
                tool("clean")
            else:
                tool(*back)
            assert oracle.xdp_prog_id(veth.ifindex)[0] == running, point
            assert nothing_but_new(tool), point
    print(f"\nback ({by.__name__}): {len(calls)} boundaries, killed at {len(points)}: {outcomes}")
    assert set(outcomes) == {"before", "after"}
