"""Chains on a real interface: what runs, in which order, and what becomes of packets."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.kernel import net, oracle
from tests.kernel.conftest import Objects, every_kernel, kinds, needs
from tests.kernel.tool import Tool
from xdpctl.bpffs.mount import Bpffs
from xdpctl.change.transact import transact
from xdpctl.host.interfaces import Interface
from xdpctl.model import chain
from xdpctl.programs import objects as objects_of_xdpctl

CODES = {"ret_0": 0, "ret_1": 1, "ret_2": 2, "ret_3": 3, "ret_4": 4, "ret_31": 31}
CODES |= {"ret_32": 32, "ret_34": 34, "ret_200": 200, "ret_minus_1": 2**32 - 1}
FRAMES = net.udps(50)


@needs("link_target")
def test_one_program_takes_the_entry(tool: Tool, veth: net.Veth, objects: Objects) -> None:
    """No dispatch for a lone program: it replaces the root's entry function, or is the root."""
    tool("load", veth.dev, objects["count"])
    (program,) = tool.status(veth.dev)["programs"]
    root, mode = oracle.xdp_prog_id(veth.ifindex)
    assert mode == "native"
    if tool.kind == "ext":
        entry = oracle.btf_func_id(root, "xdp_dispatcher")
        assert oracle.ext_chain(root) == {entry: program["id"]}
    else:
        assert oracle.prog(root).xlated_len == oracle.prog(program["id"]).xlated_len
    assert net.exchange(veth, FRAMES) == FRAMES
    assert oracle.packets(program["id"]) == len(FRAMES)


def test_unload_leaves_nothing(tool: Tool, veth: net.Veth, objects: Objects) -> None:
    before = oracle.snapshot(tool.bpffs)
    tool("load", veth.dev, objects["count"], objects["pass"])
    assert tool.pins()
    tool("unload", veth.dev, "--all")
    assert oracle.xdp_prog_id(veth.ifindex) == (0, "")
    assert tool.pins() == []
    assert not oracle.settle(before).added(before)
    assert net.exchange(veth, FRAMES) == FRAMES


@pytest.mark.parametrize("mode", ["native", "skb", "unspecified"])
def test_modes(tool: Tool, veth: net.Veth, objects: Objects, mode: str) -> None:
    tool("load", "-m", mode, veth.dev, objects["count"], objects["count"])
    assert oracle.xdp_prog_id(veth.ifindex)[1] == ("skb" if mode == "skb" else "native")
    assert net.exchange(veth, FRAMES) == FRAMES
    tool("swap-dispatcher", veth.dev)
    assert net.exchange(veth, FRAMES) == FRAMES
    assert [oracle.packets(one) for one in tool.ids(veth.dev)] == [2 * len(FRAMES)] * 2
    other = "native" if mode == "skb" else "skb"
    refused = tool.try_("load", "-m", other, veth.dev, objects["pass"])
    assert refused.code == 7
    assert "mode" in refused.err


def test_a_drop_ends_the_chain(tool: Tool, veth: net.Veth, objects: Objects) -> None:
    """What the second program drops the third never sees; both sides are counted."""
    tool("load", "-P", 10, veth.dev, objects["count"])
    tool("load", "-P", 20, veth.dev, objects["count_drop"])
    tool("load", "-P", 30, veth.dev, objects["count"])
    first, second, third = tool.ids(veth.dev)
    assert tool.chain(veth.ifindex) == [first, second, third]
    assert net.exchange(veth, FRAMES) == []
    assert [oracle.packets(one) for one in (first, second, third)] == [50, 50, 0]
    tool("unload", veth.dev, "-i", second)
    assert net.exchange(veth, FRAMES) == FRAMES
    assert [oracle.packets(one) for one in (first, third)] == [100, 50]


@every_kernel
def test_order(tool: Tool, veth: net.Veth, objects: Objects) -> None:
    """Priority first, then name; a run configuration gives both priority and actions."""
    tool("load", veth.dev, objects["pass"], objects["longname"], objects["config"])
    tool("load", "-P", 0, veth.dev, objects["count"])
    tool("load", veth.dev, objects["drop"], "-A", "none", "-P", 60)
    programs = tool.status(veth.dev)["programs"]
    assert [(one["name"], one["priority"]) for one in programs] == [
        ("count", 0),
        ("config", 10),
        ("a_program_with_a_rather_long_name", 50),
        ("pass", 50),
        ("drop", 60),
    ]
    assert programs[1]["actions"] == ["XDP_DROP", "XDP_PASS"]
    assert programs[4]["actions"] == []
    assert net.exchange(veth, FRAMES) == []
    # config's own verdict is XDP_DROP, on which it hands on.
    assert [oracle.packets(one["id"]) for one in programs[:2]] == [50, 50]


def put(tool: Tool, veth: net.Veth, members: list[chain.Member]) -> int:
    """Make these the interface's chain, in one transaction; returns the root's id."""
    report = transact(
        Bpffs(str(tool.bpffs)),
        Interface.named(veth.dev),
        lambda _: chain.Chain(tuple(members)),
    )
    assert report.root_id is not None
    return report.root_id


def model(members: list[tuple[int, int]]) -> int:
    """The verdict that members of (return code, mask of codes to go on after) give together."""
    for code, mask in members:
        if code != 31 and not (code < 31 and mask >> code & 1):
            return code
    return 2


SEEDS = range(6)


def masks_of(seed: int) -> tuple[int, ...]:
    """The action masks of a random chain of two to five members; most hand on after XDP_PASS."""
    choice = random.Random(seed)
    return tuple(
        sum(1 << bit for bit in range(5) if choice.random() < (0.8 if bit == 2 else 0.3))
        for _ in range(choice.randint(2, 5))
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_verdicts_are_those_of_the_model(
    tool: Tool, veth: net.Veth, objects: Objects, seed: int
) -> None:
    """Random chains with random masks, as the kernel runs them."""
    masks, choice = masks_of(seed), random.Random(seed)
    for _ in range(4):
        names = [choice.choice(sorted(CODES)) for _ in masks]
        members = [
            objects_of_xdpctl.member(str(objects["ret"]), program=name, actions=mask)
            for name, mask in zip(names, masks, strict=True)
        ]
        root = put(tool, veth, members)
        expected = list(zip(map(CODES.__getitem__, names), masks, strict=True))
        assert oracle.run(root, bytes(64))[0] == model(expected), expected


@pytest.mark.parametrize("code", sorted(CODES))
def test_each_return_code(tool: Tool, veth: net.Veth, objects: Objects, code: str) -> None:
    """No code is taken for another: 32 and above end the chain as what they are, 31 goes on."""
    tool("load", veth.dev, objects["ret"], "-n", code, "-P", 1)
    root, _mode = oracle.xdp_prog_id(veth.ifindex)
    assert oracle.run(root, bytes(64))[0] == CODES[code]
    tool("load", veth.dev, objects["ret"], "-n", "ret_1", "-P", 2)
    root, _mode = oracle.xdp_prog_id(veth.ifindex)
    assert oracle.run(root, bytes(64))[0] == model([(CODES[code], 4), (1, 4)])


def test_a_lone_program_with_other_actions_is_dispatched(
    tool: Tool, veth: net.Veth, objects: Objects
) -> None:
    """XDP_DROP goes on, and past the last slot the verdict is XDP_PASS."""
    tool("load", veth.dev, objects["count_drop"], "-A", "XDP_DROP")
    assert net.exchange(veth, FRAMES) == FRAMES
    tool("unload", veth.dev, "-a")
    tool("load", veth.dev, objects["count_drop"], "-A", "none")
    assert net.exchange(veth, FRAMES) == []


def test_packets_may_be_changed(tool: Tool, veth: net.Veth, objects: Objects) -> None:
    """A program that moves the packet's head, twice in a chain, and one that moves its tail."""
    tool("load", veth.dev, objects["adjust"], objects["adjust"])
    tool("load", veth.dev, objects["shrink"], objects["shrink"])
    frame = net.udp(7, size=120)
    root, _mode = oracle.xdp_prog_id(veth.ifindex)
    verdict, changed = oracle.run(root, frame)
    assert verdict == 2
    assert changed == frame[:14] + b"XDPCXDPC" + frame[14:-8]
    arrived = net.exchange(veth, [frame] * 10)
    assert [len(one) for one in arrived] == [len(frame)] * 10


@needs("shared_arrays")
def test_tail_calls(tool: Tool, veth: net.Veth, objects: Objects) -> None:
    """A member may call on through a program array of its own; its callees answer for it."""
    tool("load", "-P", 1, veth.dev, objects["tailcall"], "-n", "tailcall")
    tool("load", "-P", 2, veth.dev, objects["count"])
    even, odd = net.udps(20, size=100), net.udps(20, start=100, size=101)
    assert net.exchange(veth, even + odd) == even
    tool("swap-dispatcher", veth.dev)
    assert net.exchange(veth, even + odd) == even
    assert oracle.packets(tool.ids(veth.dev)[1]) == 40
    tool("unload", veth.dev, "-n", "tailcall")
    assert net.exchange(veth, even + odd) == even + odd


@pytest.mark.parametrize(
    ("name", "program"),
    [
        ("big", None),
        ("subprogs", None),
        ("longname", None),
        ("percpu", None),
        ("several", "second"),
        ("mark", None),
        ("deepstack", None),
        ("xsk", None),
    ],
)
def test_kinds_of_programs(
    tool: Tool, veth: net.Veth, objects: Objects, name: str, program: str | None
) -> None:
    """Loaded before a counter, each passes every packet on."""
    words = ("load", "-P", 1, veth.dev, objects[name], *(["-n", program] if program else []))
    loaded = tool.try_(*words)
    if name == "subprogs" and "Caller passes invalid args" in loaded.err:
        pytest.skip("missing: global functions in EXT programs (refused by Linux 5.10)")
    assert loaded.code == 0, loaded.err
    tool("load", "-P", 2, veth.dev, objects["count"])
    arrived = net.exchange(veth, FRAMES)
    assert net.seqs(arrived) == net.seqs(FRAMES)
    assert oracle.packets(tool.ids(veth.dev)[1]) == len(FRAMES)


@needs("bpf_loop")
def test_callbacks(tool: Tool, veth: net.Veth, objects: Objects) -> None:
    tool("load", veth.dev, objects["loop"], objects["count"])
    assert net.exchange(veth, FRAMES) == FRAMES


@needs("frags")
def test_frags_of_all_or_none(tool: Tool, veth: net.Veth, objects: Objects) -> None:
    """The root takes large packets only if every member does, and a rebuild remembers who does."""
    tool("load", veth.dev, objects["frags"])
    assert tool.status(veth.dev)["root"]["frags"]
    tool("load", veth.dev, objects["count"])
    assert not tool.status(veth.dev)["root"]["frags"]
    tool("unload", veth.dev, "-n", "count")
    status = tool.status(veth.dev)
    assert status["root"]["frags"]
    assert [one["frags"] for one in status["programs"]] == [True]


def test_maps_are_pinned_where_asked(tool: Tool, veth: net.Veth, objects: Objects) -> None:
    directory = tool.bpffs / "maps"
    directory.mkdir()
    tool("load", "-p", directory, veth.dev, objects["pinned"])
    tool("load", "-p", directory, veth.dev, objects["pinned"])
    assert net.exchange(veth, FRAMES) == FRAMES
    pinned = oracle.pinned_map(directory / "packets")
    assert oracle.array_counter(pinned.id) == 2 * len(FRAMES)
    tool("unload", veth.dev, "-a")
    (directory / "packets").unlink()


def test_ten_programs(tool: Tool, veth: net.Veth, objects: Objects) -> None:
    """Ten in one load; the eleventh leaves libxdp's protocol; each sees every packet."""
    tool("load", veth.dev, *[objects["count"]] * 10)
    if tool.kind == "ext":
        ids, before = tool.ids(veth.dev), oracle.snapshot(tool.bpffs)
        assert tool.try_("load", "--protocol", 2, veth.dev, objects["count"]).code == 10
        after = oracle.settle(before)
        assert after.pins == before.pins
        assert not after.added(before)
        assert tool.ids(veth.dev) == ids
    tool("load", veth.dev, objects["count"])
    ids = tool.ids(veth.dev)
    assert net.exchange(veth, FRAMES) == FRAMES
    assert [oracle.packets(one) for one in ids] == [len(FRAMES)] * 11


def test_completion(tool: Tool, veth: net.Veth, objects: Objects) -> None:
    """What the shell offers: interfaces, and the programs that the named one runs."""
    tool("load", veth.dev, objects["count"], objects["pass"])
    ids = [str(one) for one in tool.ids(veth.dev)]
    for words, offered in (
        (f"xdpctl status {veth.dev[:-1]}", {veth.dev}),
        (f"xdpctl unload {veth.dev} -i ", set(ids)),
        (f"xdpctl unload {veth.dev} -n p", {"pass"}),
    ):
        environment = {
            "COMP_WORDS": words.replace(" ", "\n"),
            "_XDPCTL_COMPLETE": "lines_complete",
        }
        prefix = ("env", *(f"{name}={value}" for name, value in environment.items()))
        answer = tool.process(prefix=prefix).out.splitlines()
        assert offered <= {line.split("\t")[1] for line in answer}, answer


@kinds("ext")  # a fused root is not compiled
def test_the_general_dispatcher_means_the_same(
    tool: Tool, veth: net.Veth, objects: Objects, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without clang the dispatcher that was made with the package serves."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDPCTL_CACHE", str(tmp_path / "none"))
    tool("load", "-P", 1, veth.dev, objects["count"])
    for code, actions in (("ret_1", "XDP_DROP"), ("ret_200", "XDP_PASS")):
        tool("load", veth.dev, objects["ret"], "-n", code, "-A", actions)
    monkeypatch.undo()
    root, _mode = oracle.xdp_prog_id(veth.ifindex)
    assert oracle.prog(root).map_ids
    assert oracle.run(root, bytes(64))[0] == 200
    tool("unload", veth.dev, "-n", "ret_200")
    assert net.exchange(veth, FRAMES) == FRAMES
