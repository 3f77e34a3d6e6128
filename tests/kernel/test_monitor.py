"""monitor: what goes wrong is counted, to the packet, with its reason and whose doing it was."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel import net, oracle, served, xsk
from tests.kernel.conftest import Objects, kinds, needs
from tests.kernel.test_holders import until
from tests.kernel.tool import ROOT, Tool
from xdpctl.bpffs.mount import Bpffs
from xdpctl.errors import VanishedError
from xdpctl.traffic.incidents import Incident, Scene
from xdpctl.traffic.monitor import Monitor

pytestmark = needs("bcc")  # for the first time on a kernel it takes a while to compile
FRAMES = net.udps(60)
ATTACH_DEVMAP = 33


@contextlib.contextmanager
def watching(interface: str | None, bpffs: Path | str = "/nowhere") -> Iterator[Scene]:
    """What goes wrong meanwhile."""
    with Monitor() as counts:
        yield Scene(counts, Bpffs(str(bpffs)), interface)


def only(scene: Scene, packets: int) -> Incident:
    """The one kind that there were so many more packets of, once they have been seen."""
    more, seen, end = list[Incident](), 0, time.monotonic() + 20
    while seen < packets:
        assert time.monotonic() < end, more
        more += (one for one in scene.look() if one.packets)
        assert len({one._replace(packets=0, total=0, rate=0) for one in more}) <= 1, more
        seen = sum(one.packets for one in more)
    assert scene.lost == 0
    return more[-1]._replace(packets=seen)


@pytest.mark.parametrize("mode", ["native", "skb"])
def test_programs_that_err(tool: Tool, veth: net.Veth, objects: Objects, mode: str) -> None:
    """Each in a chain: the kernel names the root, and of a redirect where it was to go."""
    tool("load", veth.dev, objects["count"], "-m", mode)
    tool("load", veth.dev, objects["ret"], "-n", "ret_0")
    count = tool.ids(veth.dev)[0]
    cases = (
        ("ret", "ret_0", "exception", "XDP_ABORTED", None),
        ("ret", "ret_200", "exception", "200", None),
        ("ret", "ret_minus_1", "exception", "other", None),
        ("astray", "nowhere", "redirect", "EINVAL", ("interface", 1 << 30)),
        ("astray", "unnamed", "redirect", "EBADRQC", None),
        ("astray", "device", "exception", "XDP_ABORTED", None),
    )
    with watching(veth.dev, tool.bpffs) as scene:
        assert scene.look() == []
        for number, (file, program, event, why, to) in enumerate(cases, 1):
            if program != "ret_0":
                tool("replace", veth.dev, "ret_0", objects[file], "-n", program)
            root, _mode = oracle.xdp_prog_id(veth.ifindex)
            assert net.exchange(veth, FRAMES[:-number], quiet=0) == []
            found = only(scene, len(FRAMES) - number)
            assert (found.event, found.interface, found.to) == (event, veth.dev, to), program
            if program == "unnamed":  # before v5.13 it was taken for the interface 0
                assert found.error in ("EBADRQC", "EINVAL")
            else:
                assert why in (found.verdict, found.error)
            assert (found.packets, found.total) == (len(FRAMES) - number,) * 2
            assert found.program
            assert (found.program.id, found.program.kind) == (root, tool.kind)
            assert found.program.name == oracle.prog(root).name
            assert [one.id for one in found.program.members] == tool.ids(veth.dev)
        net.send(veth, FRAMES)
        more = only(scene, 60)
        assert (more.packets, more.total) == (60, found.total + 60)
    assert oracle.packets(count) == 6 * 60 - 21 + 60


@pytest.mark.parametrize("mode", ["native", "skb"])
@kinds("fused")  # the root is nothing to what comes behind it
def test_targets_that_do_not_take(tool: Tool, veth: net.Veth, objects: Objects, mode: str) -> None:
    """A device that is down, a peer that is not ready, an AF_XDP socket without room."""

    def loaded(file: str, *words: str) -> int:
        if oracle.xdp_prog_id(veth.ifindex)[0]:
            tool("unload", veth.dev, "-a")
        tool("load", veth.dev, objects[file], *words, "-m", mode)
        (program,) = tool.ids(veth.dev)
        return program

    with net.Veth() as other, watching(veth.dev, tool.bpffs) as scene:
        # A veth takes redirected packets if its peer runs XDP.
        passing = oracle.xdp_load(oracle.returning(2))
        oracle.xdp_attach(passing, other.peer_ifindex)
        devices = oracle.prog_map(loaded("astray", "-n", "device"), "devices")
        fd = oracle.map_fd(devices)
        oracle.map_update(fd, bytes(4), struct.pack("=I", other.ifindex))
        net.ip("link", "set", other.dev, "down")
        net.send(veth, FRAMES)
        found = only(scene, 60)
        assert (found.event, found.error) in (("redirect", "ENETDOWN"), ("redirect", "EOPNOTSUPP"))
        assert (found.total, found.to) == (60, ("entry", 0))
        assert found.map
        assert (found.map.id, found.map.name) == (devices, "devices")

        if mode == "native":  # the peer runs no XDP, and so takes nothing by it
            loaded("ret", "-n", "ret_3")
            net.send(veth, FRAMES)
            found = only(scene, 60)
            assert (found.event, found.error, found.total) == ("tx", "ENXIO", 60)
            assert (found.interface, found.program) == (veth.dev, None)

        sockets = oracle.map_fd(oracle.prog_map(loaded("xsk"), "sockets"))
        with xsk.Receiver(veth.ifindex, sockets, room=False) as socket_:
            net.send(veth, FRAMES)
            found = only(scene, 60)
            assert (found.event, found.total) == ("xsk", 60)
            assert found.error in ("ENOMEM", "ENOSPC")  # the latter before v5.19
            assert socket_.dropped() >= 60  # some kernels count one twice


@kinds("fused")
@needs("live_frames")
def test_packets_that_are_dropped_after_a_redirect(
    tool: Tool, veth: net.Veth, objects: Objects
) -> None:
    """By a program of the device map, and by a CPU's queue that is full: many at once."""
    (frame,) = net.udps(1)

    def started(program: str, kind: str) -> tuple[int, oracle.Fd]:
        tool("load", veth.dev, objects["astray"], "-n", program)
        number = oracle.prog_map(tool.ids(veth.dev)[0], kind)
        return oracle.xdp_prog_id(veth.ifindex)[0], oracle.map_fd(number)

    with net.Veth() as other, watching(veth.dev, tool.bpffs) as scene:
        passing = oracle.xdp_load(oracle.returning(2))
        oracle.xdp_attach(passing, other.peer_ifindex)
        dropping = oracle.xdp_load(oracle.returning(1), expected_attach_type=ATTACH_DEVMAP)
        root, gates = started("gate", "gates")
        oracle.map_update(gates, bytes(4), struct.pack("=Ii", other.ifindex, int(dropping)))
        oracle.run_live(root, frame, veth.ifindex, 1000)
        found = only(scene, 1000)
        assert (found.event, found.interface, found.total) == ("devmap", veth.dev, 1000)
        assert (found.error, found.to, found.target) == (
            None,
            ("interface", other.ifindex),
            other.dev,
        )
        tool("unload", veth.dev, "-a")

        root, cpus = started("cpu", "cpus")
        oracle.map_update(cpus, bytes(4), struct.pack("=I", 1))
        with net.Sniffer(veth.dev) as sniffer:
            oracle.run_live(root, frame, veth.ifindex, 1000)
            found = only(scene, 1)
            assert 0 < found.total <= 1000
            assert len(sniffer.collect(1000 - found.total, 20)) == 1000 - found.total
        assert (found.event, found.interface, found.to) == ("cpumap_enqueue", None, ("cpu", 0))
        assert found.map
        assert found.map.name == "cpus"


def test_what_is_meant(veth: net.Veth) -> None:
    """One interface, a pattern, all of this namespace: not those of another with their number."""
    aborting = oracle.xdp_load(oracle.returning(0), name="aborting")
    with contextlib.ExitStack() as ending:
        second = ending.enter_context(net.Veth())
        ns = ending.enter_context(net.NetNs())
        with ns.entered():
            third = ending.enter_context(net.Veth(ifindex=veth.ifindex))
            assert third.ifindex == veth.ifindex
            ending.callback(os.close, oracle.xdp_attach(aborting, third.ifindex))
        for one in (veth, second):
            ending.callback(os.close, oracle.xdp_attach(aborting, one.ifindex))
        counts = ending.enter_context(Monitor())
        asked = (None, veth.dev, f"{second.dev[:-1]}[a]")
        scenes = [Scene(counts, Bpffs("/nowhere"), one) for one in asked]
        with ns.entered():
            scenes.append(Scene(counts, Bpffs("/nowhere"), None))
            net.send(third, FRAMES[:7])
        net.send(veth, FRAMES[:20])
        net.send(second, FRAMES[:30])
        found = [{one.interface: one.total for one in scene.look()} for scene in scenes[:3]]
        assert found == [{veth.dev: 20, second.dev: 30}, {veth.dev: 20}, {second.dev: 30}]
        with ns.entered():
            (there,) = scenes[3].look()
        assert (there.interface, there.total) == (third.dev, 7)
        assert there.program
        assert there.program[:3] == (oracle.prog(aborting).id, "aborting", None)


@pytest.mark.parametrize(
    "above",
    [
        pytest.param(("bond",), marks=needs("bond")),
        pytest.param(("team",), marks=needs("team")),
        pytest.param(("vlan",), marks=needs("vlan")),
        pytest.param(("macvlan",), marks=needs("macvlan")),
        pytest.param(("bond", "vlan"), marks=needs("bond", "vlan")),
    ],
    ids="-under-".join,
)
def test_what_stands_on_a_device(veth: net.Veth, above: tuple[str, ...]) -> None:
    """What goes wrong on a veth is counted for what is above it, and only for that."""
    aborting = oracle.xdp_load(oracle.returning(0), name="aborting")
    with net.Veth() as other, contextlib.ExitStack() as ending:
        names, lower = list[str](), veth.dev
        for number, kind in enumerate(above):
            names.append(f"xtabove{number}")
            if kind in ("bond", "team"):
                net.ip("link", "add", names[-1], "type", kind)
                net.ip("link", "set", lower, "down")
                net.ip("link", "set", lower, "master", names[-1])
                net.ip("link", "set", lower, "up")
            else:
                words = (kind, "id", "5") if kind == "vlan" else (kind,)
                net.ip("link", "add", "link", lower, "name", names[-1], "type", *words)
            ending.callback(net.ip, "link", "del", names[-1])
            net.ip("link", "set", names[-1], "up")
            lower = names[-1]
        # On a bond the kernel gives it to what the bond is made of.
        attached = socket.if_nametoindex(names[0]) if above[0] == "bond" else veth.ifindex
        for ifindex in (attached, other.ifindex):
            ending.callback(os.close, oracle.xdp_attach(aborting, ifindex))
        # Linux before 5.15 has a bond run its program itself, in generic mode.
        itself = above[0] == "bond" and oracle.xdp_prog_id(attached)[1] == "skb"
        where = names[0] if itself else veth.dev
        counts = ending.enter_context(Monitor())
        scenes = {one: Scene(counts, Bpffs("/nowhere"), one) for one in (*names, "xtabove*")}
        beside = Scene(counts, Bpffs("/nowhere"), other.dev)
        net.send(veth, FRAMES)
        net.send(other, FRAMES[:7])
        for name, scene in scenes.items():
            found = only(scene, 60)
            assert (found.interface, found.total, found.verdict) == (where, 60, "XDP_ABORTED"), name
        assert only(beside, 7).interface == other.dev


@kinds("fused")
def test_the_command_counts_all_and_leaves_nothing(
    tool: Tool, veth: net.Veth, objects: Objects
) -> None:
    """Under load, until a signal; what came since its last line is in one more."""
    tool("load", veth.dev, objects["ret"], "-n", "ret_0")
    with net.Flood(veth, rate=500):
        some = tool("monitor", "-c", 10, "--json", "--interval", 0.05)
        assert json.loads(some.out.splitlines()[-1])["total"] >= 10
        one = tool("monitor", veth.dev, "-qc", 1, "--interval", 0.1)
        assert f" {veth.dev} exception: XDP_ABORTED, " in one.out
        assert one.err == ""
    before = oracle.snapshot()
    words = [sys.executable, "-m", "xdpctl", "monitor", veth.dev, "--json", "--interval", "0.2"]
    child = served.Program(
        words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert child.stderr
    assert child.stderr.readline() == f"xdpctl: counting on {veth.dev}\n"
    flood = net.Flood(veth).start()
    assert child.stdout
    lines = [json.loads(child.stdout.readline()) for _look in range(2)]
    sent = flood.stop()
    child.send_signal(signal.SIGTERM)
    lines += map(json.loads, child.stdout)
    assert (child.stderr.read(), child.wait()) == ("", 0)
    assert sum(line["packets"] for line in lines) == lines[-1]["total"] == sent
    child = served.Program(words, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    assert child.stderr
    child.stderr.readline()
    child.kill()
    child.communicate()
    assert not oracle.settle(before).added(before)


@needs("own_machine")
def test_nothing_that_others_do_costs_a_count(veth: net.Veth, tmp_path: Path) -> None:
    """A program behind perf is passed over while a bpf(2) call is under way on its CPU."""
    seen = oracle.map_create(oracle.MAP_TYPE_ARRAY, 4, 8, 1)
    program = oracle.xdp_load(oracle.counting(seen, 0))
    link = oracle.xdp_attach(program, veth.ifindex, oracle.XDP_FLAGS_SKB_MODE)
    # Packets interrupt CPU 1, which is reading a large map all the time.
    # The sysfs that is there may have been mounted in another network namespace.
    subprocess.run(["mount", "-t", "sysfs", "sysfs", tmp_path], check=True)
    (tmp_path / f"class/net/{veth.dev}/queues/rx-0/rps_cpus").write_text("2")
    subprocess.run(["umount", tmp_path], check=True)
    large = oracle.map_create(oracle.MAP_TYPE_ARRAY, 4, 1 << 20, 1)
    reader = os.fork()
    if not reader:
        os.sched_setaffinity(0, {1})
        while True:
            oracle.map_lookup(large, bytes(4))
    here = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {0})
        with watching(veth.dev) as scene:
            flood = net.Flood(veth, rate=5000).start()
            time.sleep(2)
            sent = flood.stop()
            number = oracle.map(seen).id
            oracle.settle_counter(number, sent, 2)  # some may have had no room on the way
            assert oracle.array_counter(number) > 0
            # What the program has counted is read after what was heard of it.
            until(lambda: sum(one.total for one in scene.look()) == oracle.array_counter(number))
    finally:
        os.kill(reader, signal.SIGKILL)
        os.waitpid(reader, 0)
        os.sched_setaffinity(0, here)
        os.close(link)


def test_an_interface_that_goes(veth: net.Veth) -> None:
    with watching(veth.dev) as scene:
        veth.delete()
        with pytest.raises(VanishedError):
            scene.look()
