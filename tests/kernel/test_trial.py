"""What a trial says would come of packets is what comes of them, and it leaves no trace.

A trial is the same for both kinds of root, but for how programs come to be XDP programs: what is
not about that is tested with one kind.
"""

from __future__ import annotations

import ctypes
import struct
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.kernel import net, oracle
from tests.kernel.conftest import Objects, kinds, needs, one_guest
from tests.kernel.differential import list_some, packets
from tests.kernel.test_adopt import bare
from tests.kernel.test_bad_input import unchanged
from tests.kernel.tool import Tool
from xdpctl.model.chain import DEFAULT_ACTIONS, parse_actions
from xdpctl.traffic.pcap import Packet, read, write

pytestmark = one_guest

SOAK = 10_000
Maps = dict[int, dict[bytes, bytes]]

ON = "XDP_PASS,XDP_ABORTED,XDP_REDIRECT"
"""Chain actions of programs that are not to have the last word always."""

_PASSING, _ON = DEFAULT_ACTIONS, parse_actions(ON)
SHAPES = [(_ON,), (_PASSING, _ON, _ON), (_PASSING, _ON, _ON, *[_PASSING] * 3)]
"""The dispatchers that are needed here and nowhere else."""

COUNTS = pytest.mark.parametrize("count", [300, pytest.param(SOAK, marks=pytest.mark.soak)])
_KEYLESS = {27}  # BPF_MAP_TYPE_RINGBUF
_OUTER = {12, 13}
_GET_NEXT_KEY = 4


def record(path: Path, frames: list[bytes]) -> Path:
    write(str(path), [Packet("", frame, number) for number, frame in enumerate(frames)])
    return path


def trace(count: int) -> list[bytes]:
    """Packets that can be sent, and known again when they arrive.

    The kernel takes a VLAN tag out of a packet before anybody sees it.
    """
    tags = (b"\x81\x00", b"\x88\xa8")
    made = (one for one in packets(7, 2 * count) if len(one) > 40 and one[12:14] not in tags)
    frames = [one for one in made if net.seq_of(one) is not None][:count]
    assert len(frames) == count
    return frames


def content(map_id: int) -> dict[bytes, bytes]:
    """All elements of a map, read one by one without xdpctl."""
    found = dict[bytes, bytes]()
    with oracle.map_fd(map_id) as fd:
        info = oracle.map(fd)
        size = (info.value_size + 7) // 8 * 8
        if info.type in oracle.PERCPU_MAPS:
            size *= oracle.possible_cpus()
        key, following = ctypes.create_string_buffer(256), ctypes.create_string_buffer(256)
        value = ctypes.create_string_buffer(max(size, 8))
        here, there, out = map(ctypes.addressof, (key, following, value))
        at = 0
        while info.type not in _KEYLESS:
            try:
                oracle.bpf(_GET_NEXT_KEY, struct.pack("=IIQQQ", fd, 0, at, there, 0))
            except FileNotFoundError:
                break
            key.raw, at = following.raw, here
            try:
                oracle.bpf(oracle.MAP_LOOKUP_ELEM, struct.pack("=IIQQQ", fd, 0, here, out, 0))
            except FileNotFoundError:
                continue  # an array of maps has places without one
            found[key.raw[: info.key_size]] = value.raw[:size]
    return found


def memory(programs: list[int]) -> Maps:
    """Every byte of all maps of some programs, those within maps as well."""
    ids, found = [one for program in programs for one in oracle.prog(program).map_ids], Maps()
    while ids:
        one = ids.pop()
        if one not in found:
            found[one] = content(one)
            if oracle.map(one).type in _OUTER:
                ids += [int.from_bytes(value[:4], "little") for value in found[one].values()]
    return found


def trial(tool: Tool, *words: object) -> dict[str, Any]:
    document = tool("test", *words, "--json").json
    assert document["dry_run"] is True
    found: dict[str, Any] = document["trial"]
    return found


def outputs(found: dict[str, Any], frames: list[bytes], verdict: str) -> list[bytes]:
    """The packets, as they are afterwards, that are to meet a verdict."""
    fates = zip(found["fates"], frames, strict=True)
    sides = [(one["then"], frame) for one, frame in fates]
    return [
        bytes.fromhex(then["packet"]) if then["packet"] else frame
        for then, frame in sides
        if then["verdict"] == verdict
    ]


@COUNTS
def test_what_is_foretold_comes_true(
    tool: Tool, veth: net.Veth, objects: Objects, debian: Path, tmp_path: Path, count: int
) -> None:
    """Packet by packet, with programs that remember, and maps that others have filled."""
    maps = tool.bpffs / "maps"
    maps.mkdir(mode=0o700)
    # Native XDP on the other end as well, or what is sent back is dropped there.
    tool("load", veth.peer, objects["pass"])
    tool("load", "-p", maps, "-P5", veth.dev, debian / "xdpfilt_alw_ip.o")
    tool("load", "-P10", "-A", ON, veth.dev, objects["count"], objects["nth"])
    list_some(maps)
    frames = trace(count)
    net.exchange(veth, frames[:17])  # the copies have something to copy
    capture = record(tmp_path / "trace.pcap", frames)
    words = ("load", "-P20", objects["mark"], objects["adjust"], objects["shrink"])
    running = tool.ids(veth.dev)
    before = memory(running)
    with unchanged(tool, veth):
        found = trial(tool, veth.dev, *words, "--pcap", capture, "--out", tmp_path / "out")
    assert memory(running) == before
    assert found["not_run"] == 0

    tool(words[0], veth.dev, *words[1:])
    counting = {oracle.prog(one).name: one for one in running[1:]}
    seen = {name: oracle.packets(one) for name, one in counting.items()}
    foretold = {name: outputs(found, frames, f"XDP_{name}") for name in ("PASS", "TX")}
    ours = {
        name: [one for one in all_ if net.seq_of(one) is not None]
        for name, all_ in foretold.items()
    }
    with net.Sniffer(veth.peer) as back:
        assert net.exchange(veth, frames) == ours["PASS"]
        assert back.collect(len(ours["TX"]), 20) == ours["TX"]
        assert back.collect(1, 0) == []
    met = {one["name"]: sum(said["packets"] for said in one["verdicts"]) for one in found["slots"]}
    for name, one in counting.items():
        assert oracle.packets(one) - seen[name] == met[name]
    counts = Counter({one["verdict"]: one["packets"] for one in found["verdicts"]})
    print(dict(counts))
    assert counts["XDP_PASS"] >= count // 5
    assert min(counts["XDP_DROP"], counts["XDP_TX"]) >= count // 9
    assert counts.total() == count
    # The same in files.
    for name, wanted in foretold.items():
        file = tmp_path / f"out/{veth.dev}-{name.lower()}.pcap"
        assert [one.data for one in read(str(file))] == wanted
    assert read(str(tmp_path / f"out/{veth.dev}-redirect.pcap")) == []


def test_copies_are_the_maps_as_they_are(tool: Tool, veth: net.Veth, objects: Objects) -> None:
    """Each kind of map, after some packets; a trial that runs on past the limit changes none."""
    tool("load", veth.dev, objects["mapkinds"])
    frames = net.udps(60)
    assert len(net.exchange(veth, frames)) == len(frames)
    (program,) = tool.ids(veth.dev)
    # One element more than a batch of anybody's would be cut at; another limit than the file's.
    for number in range(1, 299):
        oracle.map_update(oracle.prog_map(program, "in_hash"), struct.pack("=I", number), bytes(8))
    data = next(
        one for one in oracle.prog(program).map_ids if oracle.map(one).name.endswith(".data")
    )
    oracle.map_update(data, bytes(4), struct.pack("=Q", 64))
    before = memory([program])
    assert len(before) >= 15
    words = [word for frame in net.udps(6) for word in ("--packet", frame.hex())]
    with unchanged(tool, veth):
        found = trial(tool, veth.dev, "load", objects["pass"], "-P60", *words)
    assert memory([program]) == before
    # 60 have been seen, so that the fifth is one too many: now and then alike.
    verdicts = ["XDP_PASS"] * 4 + ["XDP_DROP"] * 2
    assert [one["then"]["verdict"] for one in found["fates"]] == verdicts
    assert [one["now"]["verdict"] for one in found["fates"]] == verdicts
    assert found["slots"][0]["decided"] == 2

    # The maps in use count on if that is asked for.
    trial(tool, veth.dev, "load", objects["pass"], "-P60", "--live-maps", *words[:4])
    assert oracle.array_counter(oracle.prog_map(program, "in_array")) == 62
    assert net.exchange(veth, net.udps(4)) == net.udps(2)


@kinds("fused")
@needs("context")
def test_metadata_and_the_interface_s_number(
    tool: Tool, veth: net.Veth, objects: Objects, tmp_path: Path
) -> None:
    """What a program puts before a packet reaches the next one; so does where it came in."""
    tool("load", veth.dev, objects["meta"], "-n", "meta_set")
    frames = net.udps(3)
    words = ("load", "-P60", objects["meta"], "-n", "meta_get")
    capture = record(tmp_path / "meta.pcap", frames)
    found = trial(tool, veth.dev, *words, "--pcap", capture)
    foretold = outputs(found, frames, "XDP_PASS")
    tool(words[0], veth.dev, *words[1:])
    assert net.exchange(veth, frames) == foretold
    assert [one[80:84] for one in foretold] == [struct.pack("=I", veth.ifindex)] * 3
    assert found["fates"][0]["then"]["changed_by"] == [1]


@kinds("fused")
def test_new_programs_share_copies_of_pinned_maps(
    tool: Tool, veth: net.Veth, objects: Objects
) -> None:
    """A map that several ask for by a path is one map in the trial, too, and a copy."""
    turns = objects["turns"]
    # Where nobody has pinned it yet, none is pinned. The second in the chain has every second turn.
    with unchanged(tool, veth):
        found = trial(tool, veth.dev, "load", turns, turns)
        assert found["slots"][1]["verdicts"] == [{"verdict": "XDP_DROP", "packets": 8}]
    tool("load", veth.dev, turns)
    net.exchange(veth, net.udps(3))
    before = memory(tool.ids(veth.dev))
    with unchanged(tool, veth):
        found = trial(tool, veth.dev, "load", turns)
    # Three are taken: the first drops one packet, then passes all and leaves them to the second.
    assert [one["verdicts"] for one in found["slots"]] == [
        [{"verdict": "XDP_DROP", "packets": 1}, {"verdict": "XDP_PASS", "packets": 7}],
        [{"verdict": "XDP_DROP", "packets": 7}],
    ]
    assert memory(tool.ids(veth.dev)) == before


@kinds("fused")
def test_packets_that_cannot_be_run(tool: Tool, veth: net.Veth, objects: Objects) -> None:
    """Less than an Ethernet header never; a jumbo frame where all programs take fragments."""
    with unchanged(tool, veth):
        found = trial(tool, veth.dev, "load", objects["pass"], "--builtin", "--packet", "02" * 13)
    fates = {one["name"]: one for one in found["fates"]}
    assert len(fates) == 10
    assert found["not_run"] == 2
    assert "Ethernet header" in fates.popitem()[1]["why"]  # the last one
    assert "several fragments" in fates["jumbo"]["why"]
    assert fates["arp"]["then"]["verdict"] == "XDP_PASS"
    if oracle.lacks("frags"):
        return
    found = trial(tool, veth.dev, "load", objects["frags"])
    fates = {one["name"]: one for one in found["fates"]}
    assert fates["jumbo"]["then"]["verdict"] == "XDP_PASS", fates["jumbo"]


@kinds("fused")
def test_runts_tell_where_a_program_looks(tool: Tool, veth: net.Veth, debian: Path) -> None:
    """A filter that lets all pass, xdp-filter's, aborts what ends before what it looks at."""
    for name, aborted in (("eth", 0), ("ip", 2), ("tcp", 3)):
        found = trial(tool, veth.dev, "load", debian / f"xdpfilt_alw_{name}.o")
        then = {one["name"]: one["then"] for one in found["fates"] if one["name"] != "jumbo"}
        odd = [one for one, fate in then.items() if fate["verdict"] != "XDP_PASS"]
        assert odd == ["runt-ethernet", "runt-ipv4", "runt-tcp"][:aborted], name
        assert {then[one]["verdict"] for one in odd} <= {"XDP_ABORTED"}


def test_replace_and_set(tool: Tool, veth: net.Veth, objects: Objects) -> None:
    """The heir goes on with copies of its predecessor's maps, and the rules count."""
    tool("load", veth.dev, objects["nth"])
    net.exchange(veth, net.udps(4))
    before = memory(tool.ids(veth.dev))
    words = [word for frame in net.udps(2) for word in ("--packet", frame.hex())]
    with unchanged(tool, veth):
        for maps, verdicts in (("keep", ["REDIRECT", "ABORTED"]), ("new", ["ABORTED", "DROP"])):
            line = ("replace", "nth", objects["nth"], "--maps", maps, "-A", "none")
            found = trial(tool, veth.dev, *line, *words)
            said = [one["then"]["verdict"] for one in found["fates"]]
            assert said == [f"XDP_{one}" for one in verdicts]
        found = trial(tool, veth.dev, "set", "nth", "-A", ON, *words)
        assert found["verdicts"] == [{"verdict": "XDP_PASS", "packets": 2}]
        assert found["other_fate"] == 2
    assert memory(tool.ids(veth.dev)) == before
    tool("set", veth.dev, "nth", "-A", ON)
    with unchanged(tool, veth):
        found = trial(tool, veth.dev, "set", "--on-end", "drop", *words)
        assert found["verdicts"] == [{"verdict": "XDP_DROP", "packets": 2}]
        assert found["verdicts_now"] == [{"verdict": "XDP_PASS", "packets": 2}]


@kinds("fused")
def test_a_change_of_fate_is_told(tool: Tool, veth: net.Veth, objects: Objects) -> None:
    tool("load", veth.dev, objects["count"], objects["count_drop"], "-A", "XDP_PASS")
    with unchanged(tool, veth):
        found = trial(tool, veth.dev, "unload", "-n", "count_drop")
        said = tool("test", veth.dev, "unload", "-n", "count_drop").out
    assert found["other_fate"] == 8
    assert found["verdicts_now"] == [{"verdict": "XDP_DROP", "packets": 8}]
    assert "8 packets would fare differently than now" in said


def test_the_gate(tool: Tool, veth: net.Veth, objects: Objects, tmp_path: Path) -> None:
    """One packet that would not pass, and nothing changes; if all pass, the change is made."""
    tool("load", veth.dev, objects["count"])
    capture = record(tmp_path / "must.pcap", [*net.udps(3), bytes(10)])
    with unchanged(tool, veth):
        result = tool.try_("load", veth.dev, objects["pass"], "--must-pass", capture)
        assert (result.code, result.out) == (14, "")
        assert f"1 of 4 packets of {capture} would not pass {veth.dev}" in result.err
        assert "Ethernet header" in result.err
        assert tool.try_("unload", veth.dev, "--all", "--must-pass", objects["pass"]).code == 4
        assert tool.try_("unload", veth.dev, "--all", "--must-pass", tmp_path / "no").code == 3
        record(capture, [])
        assert tool.try_("unload", veth.dev, "--all", "--must-pass", capture).code == 2
        assert trial(tool, veth.dev, "unload", "--all", "--pcap", capture)["fates"] == []
    record(capture, net.udps(3))
    before = memory(tool.ids(veth.dev))
    with unchanged(tool, veth):
        words = ("load", "-P90", veth.dev, objects["pass"], objects["count_drop"])
        result = tool.try_(*words, "--must-pass", capture, "--json")
        assert result.code == 14
        assert result.json["error"]["error"] == "GateError"
        assert "XDP_DROP by count_drop (slot 1)" in result.json["error"]["why"]
        assert tool.try_(*words, "--must-pass", capture, "--dry-run").code == 14
    assert memory(tool.ids(veth.dev)) == before
    tool("load", veth.dev, objects["pass"], "-P90", "--must-pass", capture)
    tool("unload", veth.dev, "-n", "pass", "--must-pass", capture)
    tool("unload", veth.dev, "--all", "--must-pass", capture)


@needs("shared_arrays")
def test_what_cannot_be_tried(tool: Tool, veth: net.Veth, objects: Objects) -> None:
    """A program array is filled for good: not copied. A new one's callees are its own."""
    with unchanged(tool, veth):
        found = trial(tool, veth.dev, "load", objects["tailcall"], "-n", "tailcall", "--builtin")
        assert {one["verdict"] for one in found["verdicts"]} == {"XDP_PASS", "XDP_DROP"}
        assert tool.try_("test", veth.dev, "load", objects["refuse"]).code == 5
        assert tool.try_("test", veth.dev, "status").code == 2
    tool("load", veth.dev, objects["tailcall"], "-n", "tailcall")
    with unchanged(tool, veth):
        result = tool.try_("test", veth.dev, "load", objects["pass"])
        assert result.code == 7
        assert "program array" in result.err
        assert "--live-maps" in result.err
        found = trial(tool, veth.dev, "load", objects["pass"], "--live-maps")
        assert {one["verdict"] for one in found["verdicts"]} == {"XDP_PASS", "XDP_DROP"}
        assert "program array" in found["unknown"]


@kinds("ext")
def test_programs_of_xdp_loader(tool: Tool, veth: net.Veth, objects: Objects) -> None:
    """Without their code they run as they are: on no maps, or on those in use if that is asked."""
    tool.xdp_loader("load", veth.dev, objects["pass"])
    with unchanged(tool, veth):
        assert trial(tool, veth.dev, "load", objects["mark"])["slots"][1]["name"] == "pass"
    tool.xdp_loader("load", veth.dev, objects["count"])
    count = next(one for one in tool.ids(veth.dev) if oracle.prog(one).name == "count")
    with unchanged(tool, veth):
        result = tool.try_("test", veth.dev, "load", objects["mark"])
        assert result.code == 7
        assert "its code is not kept with it" in result.err
        found = trial(tool, veth.dev, "unload", "-n", "count")
        assert "count" in found["unknown"]
    assert oracle.packets(count) == 0
    trial(tool, veth.dev, "load", objects["mark"], "--live-maps")
    assert oracle.packets(count) == 8
    tool("unload", veth.dev, "--all")


@kinds("fused")
def test_a_bare_program_and_its_adoption(tool: Tool, veth: net.Veth, objects: Objects) -> None:
    """It would go on with its maps: the trial has copies of them, and they stay as they are."""
    with bare(tool, veth, objects["count"]) as running:
        before = memory([running])
        with unchanged(tool, veth):
            found = trial(tool, veth.dev, "adopt", "--object", objects["count"])
            assert tool.try_("test", veth.dev, "adopt", "--object", objects["pass"]).code == 2
            assert tool.try_("test", veth.dev, "load", objects["pass"]).code == 8
        assert memory([running]) == before
        assert [one["name"] for one in found["slots"]] == ["count"]
        assert found["verdicts"] == [{"verdict": "XDP_PASS", "packets": 8}]
        assert found["other_fate"] == 0
    # Loading this one would fill the program array of the one that runs.
    with bare(tool, veth, objects["tailcall"]), unchanged(tool, veth):
        words = ("adopt", "--object", objects["tailcall"], "-n", "tailcall", "--root", "fused")
        result = tool.try_("test", veth.dev, *words)
        assert result.code == 7
        assert "fills the arrays" in result.err


@kinds("fused")
def test_nothing_is_left_of_a_trial_that_is_killed(
    tool: Tool, veth: net.Veth, objects: Objects, tmp_path: Path
) -> None:
    tool("load", veth.dev, objects["count"], objects["mapkinds"])
    capture = record(tmp_path / "long.pcap", net.udps(100) * 1000)
    for seconds in ("0.6", "1.5"):
        with unchanged(tool, veth):
            words = ("test", veth.dev, "load", objects["pass"], objects["turns"])
            killed = ("timeout", "-s", "KILL", seconds)
            result = tool.process(*words, "--pcap", capture, prefix=killed)
            assert result.code in (-9, 137), result
