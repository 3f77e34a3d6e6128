"""Who reads an interface while another process changes it."""

from __future__ import annotations

import json
import os
import select
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.kernel import crash, net, oracle
from tests.kernel.conftest import Objects, needs, one_guest
from tests.kernel.test_races import hammered, load, tidy, warmed
from tests.kernel.tool import Tool
from xdpctl.bpffs.mount import Bpffs
from xdpctl.host.interfaces import Interface
from xdpctl.observe.reading import observe

pytestmark = one_guest


@dataclass(frozen=True)
class Reading:
    """A state as somebody sees it: the root's id and owner, the chain (0: vacant), the residue."""

    root: int
    owner: str
    chain: tuple[int, ...]
    residue: tuple[str, ...]


def observed(tool: Tool, dev: str) -> Reading:
    """A reading by the library."""
    interface = Interface.named(dev)
    state = observe(interface, Bpffs(str(tool.bpffs)))
    if state.root is None:
        return Reading(0, "", (), state.residue)
    chain = tuple(slot.member.id if slot.member else 0 for slot in state.root.slots)
    return Reading(state.root.id, state.root.owner, chain, state.residue)


def told(tool: Tool, dev: str) -> Reading:
    """A reading by the command."""
    status = tool.status(dev)
    root = status["root"] or {"id": 0, "owner": ""}
    chain = tuple(0 if one["vacant"] else one["id"] for one in status["programs"])
    return Reading(root["id"], root["owner"], chain, tuple(status["residue"]))


def reader(tool: Tool, dev: str, log: Path, end: int) -> Callable[[], int]:
    """A worker that reads until the pipe `end` is closed; logs how often, and what is new."""

    def work() -> int:
        count, last = 0, Reading(-1, "", (), ())
        with log.open("w") as out:
            while not select.select([end], [], [], 0)[0]:
                try:
                    now = (told if count % 5 == 4 else observed)(tool, dev)
                except Exception as error:  # one more thing that is not there
                    now = Reading(-1, f"{type(error).__name__}: {error}", (), ())
                if now != last:
                    print(json.dumps([now.root, now.owner, now.chain, now.residue]), file=out)
                count, last = count + 1, now
            print(json.dumps(count), file=out)
        return 0

    return work


@contextmanager
def reading(tool: Tool, dev: str, path: Path) -> Iterator[Path]:
    """Let somebody read an interface for the length of a with statement; where that is logged."""
    log, (end, stop) = path / "readings", os.pipe()

    def read() -> int:
        os.close(stop)
        return reader(tool, dev, log, end)()

    with crash.workers(path, read):
        try:
            yield log
        finally:
            os.close(stop)
            os.close(end)


def readings(log: Path) -> tuple[list[Reading], int]:
    """What a reader has logged: what it saw, one after the other, and how often it looked."""
    *lines, total = [json.loads(line) for line in log.read_text().splitlines()]
    return [
        Reading(root, owner, tuple(ids), tuple(left)) for root, owner, ids, left in lines
    ], total


def laps(tool: Tool, veth: net.Veth, objects: Objects, count: int) -> list[Reading]:
    """Lead the interface through chains, the same ones a few times; each as the oracle sees it."""
    dev, states = veth.dev, list[Reading]()

    def note() -> None:
        root, _mode = oracle.xdp_prog_id(veth.ifindex)
        chain = tuple(tool.chain(veth.ifindex))
        states.append(Reading(root, "xdpctl" if root else "", chain, ()))

    note()
    for _ in range(count):
        for words in (
            load(objects, dev, "count", 1),
            load(objects, dev, "pass", 2),
            load(objects, dev, "ret_2", 3),
            ("unload", dev, "-n", "count"),
            ("swap-dispatcher", dev),
            ("unload", dev, "-n", "pass"),
            ("swap-dispatcher", dev),
            ("unload", dev, "--all"),
        ):
            tool(*words)
            note()
    return states


@pytest.mark.parametrize("count", [1, pytest.param(60, marks=pytest.mark.soak)])
def test_a_reader_sees_what_was_there(
    tool: Tool,
    veth: net.Veth,
    objects: Objects,
    tmp_path: Path,
    count: int,
) -> None:
    """No chain but those that were there, in their order, whole, and never anything left over."""
    base = warmed(tool, veth, objects)
    with reading(tool, veth.dev, tmp_path) as log:
        states = laps(tool, veth, objects, count)
    seen, total = readings(log)
    print(f"{len(states)} states, {total} readings, {len(seen)} times something else")
    wrong, at = [], 0
    for one in seen:
        if one in states[at:]:
            at = states.index(one, at)
        else:
            wrong.append(one)
    shown = "\n".join(map(str, wrong[:20]))
    assert not wrong, f"{len(wrong)} of {len(seen)} states were never there, or earlier:\n{shown}"
    tidy(tool, veth, base)


@pytest.mark.parametrize(("crew", "count"), [(3, 5), pytest.param(8, 100, marks=pytest.mark.soak)])
def test_a_reader_beside_a_crowd(
    tool: Tool, veth: net.Veth, objects: Objects, tmp_path: Path, crew: int, count: int
) -> None:
    """No state but those that some operation of the others led to, and never back to one."""
    base, log = warmed(tool, veth, objects), tmp_path / "readings"
    done = hammered(
        *(tool, veth, objects, tmp_path, crew, count),
        beside=lambda end: reader(tool, veth.dev, log, end)(),
    )
    states = {Reading(0, "", (), ())}
    states |= {Reading(one.roots[1], "xdpctl", tuple(one.after), ()) for one in done if one.after}
    seen, total = readings(log)
    print(f"{len(states)} states, {total} readings, {len(seen)} times something else")
    wrong = "\n".join(str(one) for one in seen if one not in states)
    assert not wrong, f"states that were never there:\n{wrong}"
    roots = [one.root for one in seen if one.root]
    assert roots == sorted(roots)
    tidy(tool, veth, base)


@needs("ext")  # xdp-loader's own chain
@pytest.mark.parametrize("count", [10, pytest.param(300, marks=pytest.mark.soak)])
def test_xdp_loader_beside_us(
    tool: Tool, veth: net.Veth, objects: Objects, tmp_path: Path, count: int
) -> None:
    """Its status of our interface never fails, nor does its work on another one."""
    base = warmed(tool, veth, objects)
    end, stop = os.pipe()

    def write() -> int:
        os.close(stop)
        while not select.select([end], [], [], 0)[0]:
            laps(tool, veth, objects, 1)
        return 0

    with net.Veth() as other, crash.workers(tmp_path, write):
        try:
            for turn in range(count):
                assert veth.dev in tool.xdp_loader("status", veth.dev)
                if turn % 5 == 0:
                    tool.xdp_loader("load", other.dev, objects["count"], objects["pass"])
                    assert " => " in tool.xdp_loader("status", other.dev)
                    tool.xdp_loader("unload", other.dev, "--all")
        finally:
            os.close(stop)
            os.close(end)
    print(f"{count} readings by xdp-loader")
    tidy(tool, veth, base)
