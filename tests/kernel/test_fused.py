"""What is peculiar to a fused root: what members may do, their identity, their code and holders."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from tests.kernel import net, oracle, served
from tests.kernel.conftest import Objects, kinds, needs
from tests.kernel.differential import packets, run_model
from tests.kernel.test_bad_input import unchanged
from tests.kernel.test_holders import gone, root_of, until
from tests.kernel.tool import Tool
from xdpctl.model.chain import ACTIONS

pytestmark = kinds("fused")
FRAMES = net.udps(20)
SWAPS = 5
ROOT = Path(__file__).parents[2]


def model_of(tool: Tool, veth: net.Veth) -> list[tuple[int, int]]:
    """The chain as (program, mask), for the model."""
    return [
        (one["id"], sum(1 << ACTIONS.index(action) for action in one["actions"]))
        for one in tool.status(veth.dev)["programs"]
    ]


def identities(tool: Tool, veth: net.Veth) -> list[tuple[object, ...]]:
    """What users know the members by, of status and of the kernel."""
    found: list[tuple[object, ...]] = []
    for one in tool.status(veth.dev)["programs"]:
        info = oracle.prog(one["id"])
        told = (one["slot"], one["id"], one["name"], one["tag"], one["priority"], one["actions"])
        found.append((*told, info.tag, info.load_time, info.map_ids))
    return found


# --- what members may do ------------------------------------------------------------------------


def able() -> list[str]:
    """The test programs that ask for more than a verdict, as far as the kernel has it."""
    names = ["adjust", "big", "core", "mark", "redirect", "shrink", "subprogs", "xsk"]
    if not oracle.lacks("bpf_loop"):
        names.append("loop")
    known = Path("/sys/kernel/btf/vmlinux").read_bytes()
    for name, told_by in (("kfunc", "bpf_dynptr_size"), ("timer", "bpf_timer")):
        if f"\0{told_by}\0".encode() in known:
            names.append(name)
    return sorted(names)


def test_what_members_may_do(tool: Tool, veth: net.Veth, objects: Objects, tmp_path: Path) -> None:
    """All in one chain, their object files gone, through swaps: each does what it does alone."""
    names, paths = able(), {}
    for name in (*names, "tailcall", "count"):
        paths[name] = Path(shutil.copy(objects[name], tmp_path / f"{name}.o"))
    tool("load", "-P", 10, "-A", ",".join(ACTIONS), veth.dev, *[paths[name] for name in names])
    tool("load", "-P", 20, veth.dev, paths["tailcall"], "-n", "tailcall")
    tool("load", "-P", 30, veth.dev, paths["count"])
    for path in paths.values():
        path.unlink()
    before, chain = identities(tool, veth), model_of(tool, veth)
    ids = dict(zip((*names, "tailcall", "count"), tool.ids(veth.dev), strict=True))
    for swap in range(SWAPS):
        old = root_of(veth)
        tool("swap-dispatcher", veth.dev)
        root = root_of(veth)
        assert root != old
        for frame in packets(swap, 20):
            assert oracle.run(root, frame) == run_model(chain, frame), frame.hex()
        gone(old)  # though its timer was running: the new root's callback has taken its place
    assert identities(tool, veth) == before

    counting = [name for name in names if name in ("subprogs", "kfunc", "loop")] + ["count"]
    counted = {name: oracle.packets(ids[name]) for name in counting}
    before_last = ticks(tool) if "timer" in names else 0
    for frame in (*net.udps(6, size=100), *net.udps(4, size=101)):
        verdict, changed = oracle.run(root, frame)
        assert verdict == (oracle.XDP_DROP if len(frame) % 2 else oracle.XDP_PASS)
        assert changed[14:18] == b"XDPC"
        assert changed[80] == 0x5A
    for name in counting:
        times = {"loop": 100, "count": 6}.get(name, 10)
        assert oracle.packets(ids[name]) == counted[name] + times, name
    assert oracle.packets(ids["core"]) == os.getpid()
    if "timer" in names:
        until(lambda: ticks(tool) > before_last)


def ticks(tool: Tool) -> int:
    """How often timer's callback ran."""
    timers = oracle.pinned_map(tool.bpffs / "timers").id
    count: int = struct.unpack_from("=Q", oracle.map_lookup(timers, bytes(4)))[0]
    return count


def test_redirected_packets(tool: Tool, veth: net.Veth, objects: Objects) -> None:
    """Out of the interface in the member's map, which stays the same map over swaps."""
    tool("load", veth.dev, objects["count"], objects["redirect"])
    counter, redirect = tool.ids(veth.dev)
    targets = oracle.prog_map(redirect, "targets")
    with (
        net.Veth() as other,
        oracle.xdp_load(oracle.returning(oracle.XDP_PASS)) as program,
        oracle.xdp_attach(program, other.peer_ifindex),  # else veth takes no redirected frames
        net.Sniffer(other.peer) as sniffer,
    ):
        oracle.map_update(targets, bytes(4), struct.pack("=I", other.ifindex))
        for _ in range(SWAPS):
            tool("swap-dispatcher", veth.dev)
            net.send(veth, FRAMES)
            assert net.seqs(sniffer.collect(len(FRAMES), 20)) == net.seqs(FRAMES)
    assert oracle.packets(counter) == SWAPS * len(FRAMES)


@needs("frags")
def test_packets_of_several_fragments(tool: Tool, objects: Objects) -> None:
    """Taken on jumbo frames if every member does, tail calls and all; one that does not is out."""
    with net.Veth(mtu=9000) as veth:
        tool("load", veth.dev, objects["frags"])
        with unchanged(tool, veth):
            result = tool.try_("load", veth.dev, objects["count"])
            assert (result.code, "count lacks it" in result.err) == (7, True), result.err
        tool("load", "-P", 60, veth.dev, objects["tailfrags"], "-n", "tailfrags")
        counter = tool.ids(veth.dev)[0]
        large = [net.udp(number, size=8000) for number in range(4)]
        assert net.exchange(veth, large) == large
        tool("swap-dispatcher", veth.dev)
        assert net.exchange(veth, large) == large
        assert oracle.packets(counter) == 8


# --- identity -----------------------------------------------------------------------------------


def test_what_is_to_be_seen(tool: Tool, veth: net.Veth, objects: Objects) -> None:
    """Members as programs of their own, by id, name, tag, maps and pin; the root as their sum."""
    tool("load", veth.dev, objects["count"], objects["longname"])
    tool("load", "-P", 60, "-A", "XDP_DROP,XDP_PASS", veth.dev, objects["subprogs"])
    status = tool.status(veth.dev)
    root = status["root"]
    assert (root["kind"], root["ext_refused"], root["protocol"]) == ("fused", None, None)
    assert (root["name"], root["owner"], root["frags"]) == ("xdpctl_fused", "xdpctl", False)
    assert tool("status", veth.dev).err == ""
    names = ["a_program_with_a_rather_long_name", "count", "subprogs"]
    assert [one["name"] for one in status["programs"]] == names
    assert status["programs"][2]["actions"] == ["XDP_DROP", "XDP_PASS"]
    for slot, one in enumerate(status["programs"]):
        info = oracle.prog(one["id"])
        assert (info.type, info.name) == (oracle.PROG_TYPE_XDP, names[slot][:15])
        assert (one["tag"], one["slot"], one["vacant"]) == (info.tag, slot, False)
        assert oracle.pinned_prog(one["pin"]).id == one["id"]
        assert (one["link_id"], one["borrowed"]) == (None, None)
    functions = oracle.btf_funcs(oracle.prog(root["id"]).btf_id)
    assert set(functions) == {  # what has no functions of its own stands in line
        "xdpctl_fused",
        "prog2_subprogs",
        *(f"prog2_subprogs_{number}" for number in (1, 2, 3)),
    }
    before, roots = identities(tool, veth), {root["id"]}
    for _ in range(SWAPS):
        tool("swap-dispatcher", veth.dev)
        roots.add(root_of(veth))
        assert identities(tool, veth) == before
    assert len(roots) == SWAPS + 1
    frames = packets(1, 20)
    for frame in frames:
        assert oracle.run(root_of(veth), frame) == run_model(model_of(tool, veth), frame)
    alone = tool.status(veth.dev)["programs"][2]
    tool("unload", veth.dev, "-n", "count")
    tool("unload", veth.dev, "-i", status["programs"][0]["id"])
    (left,) = tool.status(veth.dev)["programs"]
    assert (left["id"], left["tag"], left["slot"]) == (alone["id"], alone["tag"], 0)


# --- code that is not there, or not what it was -------------------------------------------------


def spoil(program: int, image: bytes) -> None:
    """Have a program keep another image: the one that is bound to it last counts."""
    with oracle.prog_fd(program) as fd:
        made = oracle.map_create(
            oracle.MAP_TYPE_ARRAY, 4, len(image), 1, "xdpctl_image", RDONLY_PROG
        )
        with made as kept:
            oracle.map_update(kept, bytes(4), image)
            oracle.bpf(PROG_BIND_MAP, struct.pack("=III", fd, kept, 0), "PROG_BIND_MAP")


PROG_BIND_MAP, RDONLY_PROG = 35, 1 << 7
HEAD = struct.Struct("=4sHHI")
CALLS_A_MAP = oracle.insn(0x18, 1, 1, imm=0x7FFFFFFF) + oracle.insn(0)
IMAGES = {
    "of a later xdpctl": HEAD.pack(b"xdpi", 99, 2, 16) + oracle.returning(2),
    "cut": HEAD.pack(b"xdpi", 1, 2, 800) + oracle.returning(2),
    "of something else": b"noise",
    "no code": HEAD.pack(b"xdpi", 1, 2, 0),
    "not code": HEAD.pack(b"xdpi", 1, 2, 16) + b"\xff" * 16,
    "a map gone": HEAD.pack(b"xdpi", 1, 2, 32) + CALLS_A_MAP + oracle.returning(2),
}


@pytest.mark.parametrize("which", IMAGES)
def test_a_spoilt_image(tool: Tool, veth: net.Veth, objects: Objects, which: str) -> None:
    """The program itself is there, and the next root calls it through an array."""
    tool("load", veth.dev, objects["pass"], objects["count"])
    count, _pass = tool.ids(veth.dev)
    spoil(count, IMAGES[which])
    tool("swap-dispatcher", veth.dev)
    assert list(tool.bpffs.glob(f"xdp/xdpctl-*/map-{count}-xdpctl_called"))
    before = oracle.packets(count)
    assert net.exchange(veth, FRAMES) == FRAMES
    assert oracle.packets(count) == before + len(FRAMES)
    tool("unload", veth.dev, "-n", "count")
    tool("load", veth.dev, objects["count"])
    assert net.exchange(veth, FRAMES) == FRAMES


def test_a_pin_that_somebody_removed(tool: Tool, veth: net.Veth, objects: Objects) -> None:
    """The code in the root runs on; the program is lost with its pin, and the next change tells."""
    tool("load", veth.dev, objects["pass"], objects["count_drop"])
    lost, other = tool.status(veth.dev)["programs"]
    Path(lost["pin"]).unlink()
    gone(lost["id"])
    told = tool("status", veth.dev)
    assert f"slot 0 runs program {lost['id']}, whose pin is gone" in told.err
    first, second = tool.status(veth.dev)["programs"]
    assert (first["lost"], second["id"]) == (lost["id"], other["id"])
    assert net.exchange(veth, FRAMES) == []
    changed = tool("swap-dispatcher", veth.dev)
    assert f"slot 0 ran program {lost['id']}" in changed.err
    assert tool.ids(veth.dev) == [other["id"]]
    assert net.exchange(veth, FRAMES) == FRAMES


def test_a_pin_of_another_program(tool: Tool, veth: net.Veth, objects: Objects) -> None:
    """It is not taken for the member: the root's record says who that was."""
    tool("load", veth.dev, objects["pass"], objects["count"])
    lost, other = tool.status(veth.dev)["programs"]
    path = Path(lost["pin"])
    path.unlink()
    with oracle.xdp_load(oracle.returning(oracle.XDP_DROP), name="stranger") as stranger:
        oracle.pin(stranger, path)
    gone(lost["id"])
    assert tool.status(veth.dev)["programs"][0]["lost"] == lost["id"]
    tool("swap-dispatcher", veth.dev)
    assert tool.ids(veth.dev) == [other["id"]]
    assert net.exchange(veth, FRAMES) == FRAMES
    assert tool.status(veth.dev)["residue"] == []


# --- members that a process holds ---------------------------------------------------------------


class Held:
    """A process that holds a program by the Python API and says how it is when asked."""

    SCRIPT = """if True:
        import json, sys, xdpctl
        held = xdpctl.attach(sys.argv[1], sys.argv[2], priority=int(sys.argv[3]))
        print(json.dumps({"program": held.program_id, "fd": held.fd}), flush=True)
        for _line in sys.stdin:
            print(json.dumps({"attached": held.attached, "slot": held.slot}), flush=True)
    """

    def __init__(self, path: Path, dev: str, priority: int) -> None:
        self._process = served.Program(
            [sys.executable, "-c", self.SCRIPT, str(path), dev, str(priority)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.program: int = self._read()["program"]

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        told: dict[str, Any] = json.loads(self._process.stdout.readline() or '{"program": 0}')
        assert told, "the holder has ended"
        return told

    def ask(self) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self._read()

    def kill(self) -> None:
        """SIGKILL; returns when it is gone."""
        self._process.kill()
        self._process.communicate()

    def __enter__(self) -> Self:
        assert self.program
        return self

    def __exit__(
        self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self.kill()


def vacant(tool: Tool, veth: net.Veth) -> list[bool]:
    return [one["vacant"] for one in tool.status(veth.dev)["programs"]]


@pytest.mark.parametrize(("attach", "swaps"), [("link", 0), ("netlink", 10)])
def test_the_end_of_a_holder(
    tool: Tool, veth: net.Veth, objects: Objects, attach: str, swaps: int
) -> None:
    """Killed, it leaves an empty slot at once, whatever root calls it by then."""
    tool("load", "--attach", attach, "-P", 60, veth.dev, objects["count"])
    (counter,) = tool.ids(veth.dev)
    with Held(objects["count_drop"], veth.dev, 10) as held:
        for _ in range(swaps):
            tool("swap-dispatcher", veth.dev)
            assert tool.chain(veth.ifindex) == [held.program, counter]
        assert net.exchange(veth, FRAMES) == []
        assert oracle.packets(held.program) == len(FRAMES)
        assert held.ask() == {"attached": True, "slot": 0}
        status = tool("status", veth.dev)
        assert f"count_drop (id {held.program}) belongs to a process" in status.err
        held.kill()
    until(lambda: vacant(tool, veth) == [True, False])
    root = root_of(veth)
    assert net.exchange(veth, FRAMES) == FRAMES
    assert oracle.packets(counter) == len(FRAMES)
    assert "the process that held it is gone" in tool("status", veth.dev).err
    tool("swap-dispatcher", veth.dev)
    gone(held.program)
    gone(root)
    assert tool.chain(veth.ifindex) == [counter]


def test_two_holders_and_a_loaded_member(tool: Tool, veth: net.Veth, objects: Objects) -> None:
    """Each goes with its own process; a swap in between takes out who is gone, and nobody else."""
    with Held(objects["count"], veth.dev, 10) as one, Held(objects["count"], veth.dev, 30) as two:
        tool("load", "-P", 20, veth.dev, objects["count"])
        (loaded,) = set(tool.ids(veth.dev)) - {one.program, two.program}
        assert tool.chain(veth.ifindex) == [one.program, loaded, two.program]
        assert net.exchange(veth, FRAMES) == FRAMES
        one.kill()
        until(lambda: vacant(tool, veth) == [True, False, False])
        assert net.exchange(veth, FRAMES) == FRAMES
        tool("swap-dispatcher", veth.dev)
        gone(one.program)
        assert two.ask() == {"attached": True, "slot": 1}
        assert net.exchange(veth, FRAMES) == FRAMES
        assert oracle.packets(loaded) == oracle.packets(two.program) == 3 * len(FRAMES)
        tool("unload", veth.dev, "-i", two.program)
        until(lambda: two.ask() == {"attached": False, "slot": None})
        assert tool.chain(veth.ifindex) == [loaded]
        gone(two.program)


@needs("frags")
def test_a_holder_whose_program_takes_fragments(
    tool: Tool, veth: net.Veth, objects: Objects
) -> None:
    """It is called through a program array, so that it goes with its like alone."""
    with Held(objects["frags"], veth.dev, 10) as held:
        assert net.exchange(veth, FRAMES) == FRAMES
        with unchanged(tool, veth):
            result = tool.try_("load", veth.dev, objects["count"])
            assert (result.code, "program arrays of frags" in result.err) == (7, True), result.err
        tool("load", veth.dev, objects["frags"])
        assert net.exchange(veth, FRAMES) == FRAMES
        assert oracle.packets(held.program) == 2 * len(FRAMES)
