"""The seven steps between processes that know nothing of each other."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.kernel import net, oracle
from tests.kernel.conftest import Objects, kinds, needs, one_guest
from tests.kernel.foreign_holder import Foreign
from tests.kernel.test_holders import until
from tests.kernel.tool import ROOT, Tool
from xdpctl.bpffs.mount import Bpffs
from xdpctl.change.transact import transact
from xdpctl.errors import HookBusyError
from xdpctl.host.interfaces import Interface
from xdpctl.model.chain import Chain
from xdpctl.model.state import State

pytestmark = one_guest

FRAMES = net.udps(40)


def gone(program_id: int, timeout: float = 30.0) -> bool:
    """Whether a program leaves the kernel in time."""
    end = time.monotonic() + timeout
    while program_id in oracle.prog_ids():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def test_one_process_loads_another_swaps(tool: Tool, veth: net.Veth, objects: Objects) -> None:
    """Each of four processes leaves before the next comes; the program goes X → Y → Z → …."""
    loaded = tool.process("load", veth.dev, objects["count"], objects["pass"])
    assert loaded.code == 0, loaded.err
    ids = tool.chain(veth.ifindex)
    roots = [oracle.xdp_prog_id(veth.ifindex)[0]]
    for swap in range(1, 4):
        swapped = tool.process("swap-dispatcher", veth.dev)
        assert swapped.code == 0, swapped.err
        # It waits a second for that; a busy machine may take longer, and it says so.
        told = re.search(r"X is gone from the kernel|X stays until it is let go", swapped.out)
        assert told
        assert f"{told[0]}  [X={roots[-1]}]" in swapped.out
        roots.append(oracle.xdp_prog_id(veth.ifindex)[0])
        assert tool.chain(veth.ifindex) == ids
        assert net.exchange(veth, FRAMES) == FRAMES
        assert oracle.packets(ids[0]) == swap * len(FRAMES)
    assert len(set(roots)) == 4
    for old in roots[:-1]:
        assert gone(old)
        assert oracle.links_onto(old) == []


@kinds("ext")  # nothing can be hooked onto a fused root
@needs("link_target")
def test_a_foreign_process_holds_an_unpinned_link(
    tool: Tool, veth: net.Veth, objects: Objects
) -> None:
    """A process of raw system calls, which pinned nothing, has its program carried over.

    Its link keeps X; as soon as it lets go X leaves the kernel, and the program runs on Y.
    """
    tool("load", veth.dev, objects["count"], objects["pass"])
    old, _mode = oracle.xdp_prog_id(veth.ifindex)
    # A slot becomes vacant as its pin goes; status says so, and somebody else takes it.
    (tool.bpffs / f"xdp/dispatch-{veth.ifindex}-{old}/prog1-link").unlink()
    (tool.bpffs / f"xdp/dispatch-{veth.ifindex}-{old}/prog1-prog").unlink()
    until(lambda: tool.status(veth.dev)["programs"][1]["vacant"])
    assert "slot 1 is vacant" in tool("status", veth.dev).err
    assert net.exchange(veth, FRAMES) == FRAMES
    with Foreign(old, "prog1") as foreign:
        told = tool.status(veth.dev)["programs"][1]
        assert (told["id"], told["link_id"], told["pin"]) == (
            foreign.prog_id,
            foreign.link_id,
            None,
        )
        swapped = tool("swap-dispatcher", veth.dev)
        assert f"held by process {foreign.pid} (python" in swapped.out
        assert "X stays until it is let go" in swapped.out
        new, _mode = oracle.xdp_prog_id(veth.ifindex)
        assert tool.chain(veth.ifindex)[1] == foreign.prog_id
        assert net.exchange(veth, FRAMES) == FRAMES
        assert foreign.packets() == len(FRAMES)
        assert old in oracle.prog_ids()
        foreign.release()
        assert gone(old)
    assert net.exchange(veth, FRAMES) == FRAMES
    assert oracle.packets(tool.chain(veth.ifindex)[0]) == 3 * len(FRAMES)
    assert oracle.packets(told["id"]) == 2 * len(FRAMES)
    assert oracle.xdp_prog_id(veth.ifindex)[0] == new


@needs("link_target")
def test_swap_as_data(tool: Tool, veth: net.Veth, objects: Objects) -> None:
    """--json has the ids of every step; the oracle knows them too."""
    tool("load", veth.dev, objects["count"], objects["pass"])
    old, _mode = oracle.xdp_prog_id(veth.ifindex)
    told = tool("swap-dispatcher", veth.dev, "--json").json
    new, _mode = oracle.xdp_prog_id(veth.ifindex)
    assert (told["schema"], told["old_root"], told["new_root"]) == (1, old, new)
    assert told["old_root_gone"] or gone(old)
    steps = {"ext": "4 4' 5 4' 5 6 7 7", "fused": "4' 4' 4 6 7 7"}[tool.kind]
    assert [step["step"] for step in told["steps"]] == steps.split()
    if tool.kind == "ext":
        hooked = {one["function"]: one["program"] for one in told["steps"] if one["step"] == "5"}
        assert hooked == oracle.ext_chain(new)
    else:
        found = [one["program"] for one in told["steps"] if one["step"] == "4'"]
        assert found == oracle.fused_chain(oracle.prog(new))
    (flip,) = (step for step in told["steps"] if step["step"] == "6")
    (link,) = oracle.xdp_links(veth.ifindex)
    assert (flip["root_link"], flip["X"], flip["Y"]) == (link.id, old, new)


@pytest.mark.parametrize(
    ("words", "bad"),
    [
        ("load {dev} {drop}", ">&-"),
        ("--json load {dev} {drop}", ">/dev/full"),
        ("load {dev} {drop}", ">&- 2>&- <&-"),
        ("load {dev} {drop}", "2>&1 | true"),
        ("unload {dev} -n pass", ">/dev/full"),
        ("-q swap-dispatcher {dev}", ">&-"),
        ("set {dev} count -P 70", ">/dev/full"),
        ("stats {dev} --on", ">/dev/full"),
    ],
)
def test_a_change_is_told_apart_from_the_telling(
    tool: Tool, veth: net.Veth, objects: Objects, words: str, bad: str
) -> None:
    """It is made, whole; the exit code is one of its own, and there is one line if there can be."""
    tool("load", veth.dev, objects["count"], objects["pass"])
    before = oracle.xdp_prog_id(veth.ifindex)
    words = words.format(dev=veth.dev, drop=objects["drop"])
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {sys.executable} -m xdpctl {words} {bad}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert oracle.xdp_prog_id(veth.ifindex) != before
    assert tool.status(veth.dev)["residue"] == []
    quiet = "-q" in words
    assert done.returncode == (0 if quiet else 16), done.stderr
    if not quiet and "2>" not in bad:
        assert done.stderr.startswith("xdpctl: what was asked is done, but standard output cannot")
        assert done.stderr.count("\n") == 1


def test_nobody_listens(tool: Tool, veth: net.Veth, objects: Objects) -> None:
    """Output that cannot be written, before the flip or after it, leaves one chain or the other."""
    tool("load", veth.dev, objects["count"], objects["pass"])
    ids = tool.chain(veth.ifindex)
    program = f"{sys.executable} -m xdpctl"
    for command in (
        f"{program} swap-dispatcher {veth.dev} > /dev/full",
        f"{program} swap-dispatcher {veth.dev} | head -n 4",
        # What this loads is taken back as its first step cannot be told.
        f"{program} -v load {veth.dev} {objects['drop']} > /dev/full",
        f"{program} status {veth.dev} > /dev/full",
    ):
        done = subprocess.run(command, shell=True, cwd=ROOT, capture_output=True, text=True)
        assert done.stderr.count("\n") <= 1, done.stderr
        assert tool.chain(veth.ifindex) == ids
        status = tool.status(veth.dev)
        assert status["residue"] == []
        assert [one["pin"] is not None for one in status["programs"]] == [True, True]
    assert net.exchange(veth, FRAMES) == FRAMES


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals(tool: Tool, veth: net.Veth, objects: Objects, number: signal.Signals) -> None:
    """Before the flip a signal undoes what was begun; at the flip it comes too late."""
    tool("load", veth.dev, objects["count"])
    for call, nth, code, added in (
        ("symlink", 1, 128 + number, []),
        ("membarrier", 1, 0, ["pass"]),
    ):
        inject = f"inject={call}:signal={number.name}:when={nth}"
        prefix = ("strace", "-f", "-o", "/dev/null", "-e", f"trace={call}", "-e", inject)
        result = tool.process("load", veth.dev, objects["pass"], prefix=prefix)
        status = tool.status(veth.dev)
        assert [one["name"] for one in status["programs"]] == ["count", *added]
        assert (result.code, status["residue"]) == (code, []), result.err


def test_dry_run_changes_nothing(tool: Tool, veth: net.Veth, objects: Objects) -> None:
    tool("load", veth.dev, objects["count"])
    before, running = oracle.snapshot(tool.bpffs), oracle.xdp_prog_id(veth.ifindex)
    for words in (
        ("load", veth.dev, objects["pass"]),
        ("unload", veth.dev, "--all"),
        ("swap-dispatcher", veth.dev),
    ):
        told = tool("--dry-run", *words)
        assert veth.dev in told.out
        assert tool(*words, "--dry-run", "--json").json["dry_run"]
    after = oracle.settle(before)
    assert after.pins == before.pins
    assert not after.added(before)
    assert oracle.xdp_prog_id(veth.ifindex) == running


def test_one_dispatcher_a_change(
    tool: Tool, veth: net.Veth, objects: Objects, tmp_path: Path
) -> None:
    """Each operation loads one root into the kernel."""
    name = {"ext": "xdp_dispatcher", "fused": "xdpctl_fused"}[tool.kind]
    for words in (
        ("load", veth.dev, objects["count"]),
        ("load", veth.dev, objects["count"], objects["pass"]),
        ("swap-dispatcher", veth.dev),
        ("unload", veth.dev, "-n", "pass"),
    ):
        log = tmp_path / "strace"
        prefix = ("strace", "-f", "-s", "64", "-e", "trace=bpf", "-o", str(log))
        assert tool.process(*words, prefix=prefix).code == 0
        loads = re.findall(
            rf'BPF_PROG_LOAD, \{{prog_type=BPF_PROG_TYPE_XDP[^\n]*prog_name="{name}"',
            log.read_text(),
        )
        assert len(loads) == 1, words


def test_the_flip_names_whom_it_expects(tool: Tool, veth: net.Veth, objects: Objects) -> None:
    """A root that somebody else put there between plan and commit is not replaced."""
    tool("load", veth.dev, objects["count"])
    (held,) = oracle.xdp_links(veth.ifindex)
    calls: list[State] = []
    with oracle.xdp_load(oracle.returning(oracle.XDP_DROP), name="intruder") as intruder:
        number = oracle.prog(intruder).id

        def target(state: State) -> Chain:
            if not calls:
                with oracle.link_fd(held.id) as link:
                    oracle.link_update(link, intruder)
            calls.append(state)
            return state.chain

        bpffs, interface = Bpffs(str(tool.bpffs)), Interface.named(veth.dev)
        with pytest.raises(HookBusyError, match="another tool"):
            transact(bpffs, interface, target)
    assert len(calls) == 2
    assert oracle.xdp_prog_id(veth.ifindex)[0] == number
