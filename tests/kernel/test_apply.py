"""A chain that is written in a file: brought about, brought up to date, and brought back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.kernel import crash, net, oracle
from tests.kernel.conftest import Objects, kinds, needs, one_guest
from tests.kernel.test_bad_input import unchanged
from tests.kernel.test_crash import ERRORS
from tests.kernel.test_packets import Traffic, often
from tests.kernel.test_trial import record
from tests.kernel.tool import Tool
from xdpctl.cli.run import run

pytestmark = one_guest

FRAMES = net.udps(20)

CHAIN = """
on-vacant = "drop"

[[program]]
file = "{pinned}"
prio = 30

[[program]]
file = "{count}"
name = "last"
prio = 1
after = "pinned"

[[program]]
file = "{pass}"
name = "guard"
prio = 7
actions = ["pass", "tx"]
"""
WITHOUT_GUARD = """
on-vacant = "drop"
program = [{{ file = "{recount}", name = "last" }}, {{ file = "{pinned}", before = ["last"] }}]
"""


class Files:
    """Chain files that name the test programs."""

    def __init__(self, directory: Path, objects: Objects) -> None:
        self.directory, self.objects = directory, objects

    def __call__(self, text: str) -> Path:
        path = self.directory / "chain.toml"
        path.write_text(text.format_map(self.objects))
        return path


@pytest.fixture
def file(tmp_path: Path, objects: Objects) -> Files:
    return Files(tmp_path, objects)


def shape(tool: Tool, dev: str) -> Any:
    """What a file can say of a chain, as status shows it."""
    status = tool.status(dev)
    root = [status["root"][one] for one in ("mode", "attach", "kind", "on_end", "on_vacant")]
    keys = ("name", "label", "priority", "actions", "before", "after")
    return root, [[one[key] for key in keys] for one in status["programs"]]


def written(tool: Tool) -> Any:
    """The same of CHAIN."""
    return ["native", "link", tool.kind, "pass", "drop"], [
        ["pass", "guard", 7, ["XDP_PASS", "XDP_TX"], [], []],
        ["pinned", None, 30, ["XDP_PASS"], [], []],
        ["count", "last", 1, ["XDP_PASS"], [], ["pinned"]],
    ]


def test_whatever_ran_there(tool: Tool, veth: net.Veth, file: Files, objects: Objects) -> None:
    """On an empty interface and on a busy one; what ran can come back; an empty list ends it."""
    said = tool("apply", veth.dev, file(CHAIN)).out
    assert shape(tool, veth.dev) == written(tool)
    ids = tool.ids(veth.dev)
    loaded = (
        ("guard", "first of three, before pinned"),
        ("pinned", "second of three, before last"),
        ("last", "third of three, after pinned"),
    )
    assert said.splitlines() == [
        *(
            f"{veth.dev}: loaded {name} (id {number}): {place}"
            for (name, place), number in zip(loaded, ids, strict=True)
        ),
        f"{veth.dev}: on end pass, on vacant drop",
    ]
    assert ids == tool.chain(veth.ifindex)
    assert net.exchange(veth, FRAMES) == FRAMES
    assert [oracle.packets(one) for one in ids[1:]] == [len(FRAMES)] * 2
    tool("unload", veth.dev, "-a")

    tool("load", veth.dev, objects["drop"], objects["count"])
    tool("set", veth.dev, "drop", "-P", 2, "--on-end", "drop")
    before, busy = tool.ids(veth.dev), shape(tool, veth.dev)
    assert net.exchange(veth, FRAMES) == []
    assert "goes back in" in tool("apply", veth.dev, file(CHAIN), "--confirm-within", "10m").out
    assert shape(tool, veth.dev) == written(tool)
    assert net.exchange(veth, FRAMES) == FRAMES
    tool("rollback", veth.dev)
    assert (tool.ids(veth.dev), shape(tool, veth.dev)) == (before, busy)
    assert net.exchange(veth, FRAMES) == []

    told = tool("apply", veth.dev, file("program = []"), "--json").json
    assert (told["command"], told["plan"]["flip"], told["programs"]) == ("apply", "update", [])
    assert net.exchange(veth, FRAMES) == FRAMES


@often(4, 100)
def test_again_under_traffic(tool: Tool, veth: net.Veth, file: Files, swaps: int) -> None:
    """What stays in the file misses no packet and counts on, whatever comes and goes beside it."""
    tool("apply", veth.dev, file(CHAIN))
    guard, pinned, last = tool.ids(veth.dev)
    counting = [pinned, last]
    maps = [oracle.prog_map(one) for one in counting]
    with Traffic(veth, counting) as traffic:
        for number in range(swaps):
            tool("apply", veth.dev, file(CHAIN if number % 2 else WITHOUT_GUARD), "-q")
            now = tool.chain(veth.ifindex)
            assert len(now) == (3 if number % 2 else 2)
            assert ({guard, last} & set(now), pinned in now) == (set(), True)
            assert [oracle.prog_map(one) for one in now[-2:]] == maps
        assert traffic.missed(swaps, "applied") == [0, 0]
    assert traffic.sent > 10 * swaps
    assert shape(tool, veth.dev) == written(tool)
    # Kept for a rollback were those of the last change alone.
    assert not {guard, last} & set(oracle.prog_ids())


def test_of_several_that_are_called_the_same(tool: Tool, veth: net.Veth, file: Files) -> None:
    """Each goes on with the counter that stood in its place, in whatever order they are written."""
    two = [f'[[program]]\nfile = "{{count}}"\nprio = {number}\n' for number in (20, 60)]
    tool("apply", veth.dev, file(two[0] + two[1]))
    maps = [oracle.prog_map(one) for one in tool.chain(veth.ifindex)]
    tool("apply", veth.dev, file(two[1] + two[0]))
    assert [oracle.prog_map(one) for one in tool.chain(veth.ifindex)] == maps
    assert maps[0] != maps[1]
    assert net.exchange(veth, FRAMES) == FRAMES
    assert [oracle.packets(one) for one in tool.ids(veth.dev)] == [len(FRAMES)] * 2


REFUSED = "[[program]]\nfile = '{refuse}'"
WRONG = [
    ("[[program]", 4, "is not TOML"),
    (CHAIN + "[[program]]\nfile = 'nowhere.o'", 3, "program 4: no such file"),
    (CHAIN + REFUSED, 5, "verifier"),
    ("mode = 'skb'\n" + WITHOUT_GUARD, 7, "use -m native"),
    ("[[program]]\nfile = '{percpu}'\nname = 'last'", 7, 'maps = "new"'),
]


def test_what_fails_changes_nothing(
    tool: Tool, veth: net.Veth, file: Files, tmp_path: Path
) -> None:
    """A file that says what cannot be, programs that cannot be loaded, and what is tried only."""
    tool("apply", veth.dev, file(CHAIN))
    packets = record(tmp_path / "trace.pcap", FRAMES[:3])
    dropping = CHAIN + "[[program]]\nfile = '{drop}'"
    with unchanged(tool, veth):
        for text, code, said in WRONG:
            result = tool.try_("apply", veth.dev, file(text))
            assert (result.code, said in result.err) == (code, True), result.err
        result = tool.try_("apply", veth.dev, file(dropping), "--must-pass", packets)
        assert (result.code, "3 of 3 packets" in result.err) == (14, True)
        planned = tool("apply", veth.dev, file(dropping), "--dry-run").out
        assert "slot 1: keep id" in planned
        assert "load drop" in planned
        tried = tool("test", veth.dev, "apply", file(dropping), "--pcap", packets, "--json").json
        assert tried["trial"]["verdicts"] == [{"verdict": "XDP_DROP", "packets": 3}]
        assert tool.try_("apply", veth.dev, tmp_path).code == 4
    tool("unload", veth.dev, "-a")
    with unchanged(tool, veth):
        assert tool.try_("apply", veth.dev, file(REFUSED)).code == 5
    assert tool.pins() == []


def test_after_all_is_lost(tool: Tool, file: Files) -> None:
    """No interface, and nothing in the BPF file system, as after a reboot: the file is enough."""
    command = ("apply", "boot0", file(CHAIN))
    for _boot in range(2):
        with net.Veth(name="boot0") as veth:
            assert tool.status("boot0")["root"] is None
            assert tool.pins() == []
            tool(*command)
            assert shape(tool, "boot0") == written(tool)
            assert net.exchange(veth, FRAMES) == FRAMES
            counted = [oracle.packets(one) for one in tool.chain(veth.ifindex)[1:]]
            assert counted == [len(FRAMES)] * 2
            assert oracle.pinned_map(tool.bpffs / "packets").name == "packets"
        assert tool.try_(*command).code == 3
        oracle.unmount(tool.bpffs)
        oracle.mount("bpf", tool.bpffs, "mode=0700")


THREE = """
[[program]]
file = "{count}"

[[program]]
file = "{recount}"
name = "second"
constants = {{ step = %d }}

[[program]]
file = "%s"
name = "third"
prio = %d
"""


def test_only_what_has_changed_is_loaded(
    tool: Tool, veth: net.Veth, file: Files, objects: Objects, tmp_path: Path
) -> None:
    """Programs keep their ids unless their bytes or what is set in them have changed."""
    third = tmp_path / "third.o"

    def applied(step: int = 1, priority: int = 60) -> tuple[str, list[int]]:
        path = file(THREE % (step, third, priority))
        said = tool("apply", veth.dev, path, "--json").json
        return said["plan"]["flip"], [one["id"] for one in said["programs"]]

    third.write_bytes(Path(objects["pass"]).read_bytes())
    flip, first = applied()
    assert flip == "attach"
    root = oracle.xdp_links(veth.ifindex)[0].prog_id
    net.exchange(veth, FRAMES)
    before = oracle.snapshot(tool.bpffs)
    for _again in range(2):
        assert applied() == ("none", first)
        assert "nothing changed" in tool("apply", veth.dev, tmp_path / "chain.toml").out
    assert oracle.xdp_links(veth.ifindex)[0].prog_id == root
    after = oracle.snapshot(tool.bpffs)
    assert (after.progs, after.maps, after.pins) == (before.progs, before.maps, before.pins)

    assert applied(priority=70) == ("update", first)
    third.write_bytes(Path(objects["mark"]).read_bytes())
    _flip, second = applied(priority=70)
    assert (second[:2], second[2] != first[2]) == (first[:2], True)
    flip, last = applied(step=2, priority=70)
    assert ([last[0], last[2]], last[1] != first[1]) == ([first[0], second[2]], True)
    net.exchange(veth, FRAMES)
    assert oracle.settle_counter(oracle.prog_map(first[0]), 2 * len(FRAMES)) == 2 * len(FRAMES)


def test_a_chain_as_the_file_says_is_not_touched(
    tool: Tool, veth: net.Veth, file: Files, tmp_path: Path
) -> None:
    """No bpf(2) call that loads, makes or links anything."""
    path = file(CHAIN)
    tool("apply", veth.dev, path)
    log = tmp_path / "calls"
    prefix = ("strace", "-f", "-e", "trace=bpf", "-o", str(log))
    assert tool.process("apply", veth.dev, path, prefix=prefix).code == 0
    calls = log.read_text()
    assert "BPF_OBJ_GET_INFO_BY_FD" in calls
    for word in ("LOAD", "CREATE", "UPDATE", "PIN,", "ATTACH"):
        assert f"_{word}" not in calls


def test_a_vacant_slot_is_closed(tool: Tool, veth: net.Veth, file: Files) -> None:
    """A chain whose programs are those of the file is whole, or is made whole."""
    path = file(WITHOUT_GUARD)
    tool("apply", veth.dev, path)
    assert tool("apply", veth.dev, path, "--json").json["plan"]["flip"] == "none"
    other = "fused" if tool.kind == "ext" else "ext"
    said = tool("apply", veth.dev, path, "--root", tool.kind, "--json").json
    assert said["plan"]["flip"] == "none"
    if not oracle.lacks("ext"):
        said = tool("apply", veth.dev, path, "--root", other, "--json").json
        assert (said["plan"]["flip"], said["plan"]["kind"]) == ("update", other)


@needs("no_guest")
@kinds("fused")  # what is there is asked for in the same way
@pytest.mark.skipif(not crash.CAN_FAIL, reason="missing: how this machine's registers are set")
def test_want_of_memory_is_no_difference(tool: Tool, veth: net.Veth, file: Files) -> None:
    """Each call of an apply that has nothing to do is refused once: it does nothing still."""
    words = ["apply", veth.dev, str(file(CHAIN))]
    tool(*words)
    before = oracle.xdp_prog_id(veth.ifindex), tool.chain(veth.ifindex)
    codes: list[int] = []
    while True:
        with crash.Stepped(lambda: run(words)) as child:
            if not child.run_to_call(ERRORS, len(codes) + 1):
                break
            where = f"{child.where} {len(codes)}"
            child.fail(ERRORS[child.call])
            codes.append(child.finish())
        assert (oracle.xdp_prog_id(veth.ifindex), tool.chain(veth.ifindex)) == before, where
    print(f"{len(codes)} calls refused: exit codes {codes}")
    assert {0, 1} <= {*codes}
