"""Processes that know nothing of each other, at work on one interface at the same time."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.kernel import crash, net, oracle
from tests.kernel.conftest import Objects, one_guest
from tests.kernel.tool import Tool

pytestmark = one_guest

SOAK = pytest.mark.soak
NAMES = {"count": "count", "pass": "pass", "ret_2": "ret"}
"""Programs that are loaded, and the object of each."""
FILE = """
[[program]]
file = "{count}"
prio = 3
[[program]]
file = "{pass}"
prio = 1
"""


class Kind(NamedTuple):
    """A kind of operation: how often it is chosen, and what becomes of the chain by it.

    `codes` are the exit codes other than 0 that are right if others came first; 2: several programs
    have that name. `gone` and `new` count programs (None: it depends).
    """

    often: int
    codes: set[int]
    gone: int | None = 0
    new: int | None = 0


# Fewer loads than unloads, or the chain grows and each of its sizes is compiled.
OPERATIONS = {
    "load": Kind(5, {10, 13}, new=1),
    "unload-id": Kind(4, {3, 13}, gone=1),
    "unload-name": Kind(1, {2, 3, 13}, gone=1),
    "swap-dispatcher": Kind(2, {3, 13}),
    "status": Kind(2, set()),
    "replace": Kind(1, {2, 3, 13}, gone=1, new=1),
    "set": Kind(1, {2, 3, 13}),
    "stats": Kind(1, {3, 13}),
    "rollback": Kind(1, {3, 13}, gone=None, new=None),
    "apply": Kind(1, {13}, gone=None, new=None),
}


def warmed(tool: Tool, veth: net.Veth, objects: Objects) -> oracle.Snapshot:
    """What is there without a chain; what commands import is imported, for forks to have it."""
    base = oracle.snapshot(tool.bpffs)
    tool("load", veth.dev, objects["count"], objects["pass"])
    tool("swap-dispatcher", veth.dev)
    for one in tool.ids(veth.dev):
        tool("unload", veth.dev, "-i", one)
    after = oracle.settle(base)
    assert not after.added(base), base.diff(after)
    return base


def load(objects: Objects, dev: str, name: str, priority: int) -> tuple[object, ...]:
    return ("load", "-P", priority, dev, objects[NAMES[name]], "-n", name)


def tidy(tool: Tool, veth: net.Veth, base: oracle.Snapshot) -> None:
    """Nothing is there but the chain: no residue, a link for each program, and none after it.

    On a fused root only the root has a link. Programs may be kept for a rollback.
    """
    chain = tool.chain(veth.ifindex)
    if any(pin.endswith("/counts") for pin in tool.pins()):
        tool("stats", veth.dev, "--off")
    kept = sum("/kept-" in pin for pin in tool.pins())
    linked = len(chain) if tool.kind == "ext" else 0
    wanted = [len(chain) + bool(chain) + kept, linked + bool(chain)]
    status = tool.status(veth.dev)
    assert status["residue"] == []
    assert [one["id"] for one in status["programs"]] == chain
    end = time.monotonic() + 30
    while True:
        now = oracle.snapshot(tool.bpffs)
        more = [len(now.progs - base.progs), len(now.links - base.links)]
        if more == wanted or time.monotonic() > end:
            break
        time.sleep(0.05)
    assert more == wanted, base.diff(now)
    if chain:
        tool("unload", veth.dev, "--all")
    after = oracle.settle(base)
    assert not after.added(base), base.diff(after)


# --- everybody at once --------------------------------------------------------------------------


@dataclass(frozen=True)
class Done:
    """What a worker did. Without an exit code it was killed meanwhile."""

    kind: str
    words: list[str]
    code: int | None
    document: dict[str, Any]

    def _ids(self, where: Any) -> list[int]:
        return [one["id"] for one in where if one["id"]]

    @property
    def changes(self) -> bool:
        """Whether it led to another root, or may have."""
        if self.code is None:
            return self.kind != "status"
        return "plan" in self.document and self.document["plan"]["flip"] != "none"

    @property
    def before(self) -> list[int]:
        return self._ids(self.document["plan"]["current"])

    @property
    def after(self) -> list[int]:
        return self._ids(self.document["programs"])

    @property
    def roots(self) -> tuple[int, int]:
        return self.document["old_root"] or 0, self.document["new_root"] or 0


def hammer(
    tool: Tool, dev: str, objects: Objects, log: Path, seed: int, count: int
) -> Callable[[], int]:
    """A worker that does `count` operations of its own choice and keeps a log of them."""
    file = log.with_suffix(".toml")
    file.write_text(FILE.format_map(objects))

    def words(kind: str, choice: random.Random) -> tuple[object, ...]:
        name, priority = choice.choice(list(NAMES)), choice.randint(1, 3)
        match kind:
            case "load":
                return load(objects, dev, name, priority)
            case "unload-id":
                return ("unload", dev, "-i", choice.choice([*tool.ids(dev), 999999]))
            case "unload-name":
                return ("unload", dev, "-n", name)
            case "replace":
                return (kind, dev, "count", objects[choice.choice(("count", "recount"))])
            case "set":
                return (kind, dev, name, "-P", priority)
            case "stats":
                return (kind, dev, choice.choice(("--on", "--on", "--off")))
            case "apply":
                return (kind, dev, file)
        return (kind, dev)

    def work() -> int:
        choice = random.Random(seed)
        often = [kind.often for kind in OPERATIONS.values()]
        with log.open("w", buffering=1) as out:
            for _ in range(count):
                kind = choice.choices(list(OPERATIONS), often)[0]
                chosen = [str(word) for word in words(kind, choice)]
                begun = {"kind": kind, "words": chosen}
                print(json.dumps(begun), file=out)
                result = tool.try_(*chosen, "--json")
                done = {**begun, "code": result.code, "document": result.json}
                print(json.dumps(done), file=out)
        return 0

    return work


def read_log(log: Path) -> list[Done]:
    """A worker's log; its last operation may lack an end."""
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    ended = [entry for entry in entries if "code" in entry]
    killed = [entries[-1]] if entries and "code" not in entries[-1] else []
    return [
        Done(one["kind"], one["words"], one.get("code"), one.get("document", {}))
        for one in (*ended, *killed)
    ]


def hammered(
    tool: Tool,
    veth: net.Veth,
    objects: Objects,
    path: Path,
    crew: int,
    count: int,
    kills: int = 0,
    beside: Callable[[int], int] | None = None,
) -> list[Done]:
    """Let workers loose, kill some of them; all that was done.

    One more process may work `beside` them until the pipe that it is given the end of is closed.
    """
    logs = [path / f"log{number}" for number in range(crew)]
    crowd = [
        hammer(tool, veth.dev, objects, log, seed, count) for seed, log in enumerate(logs, crew)
    ]
    choice = random.Random(crew)
    begin = time.monotonic()
    end, others = os.pipe()  # each worker has the other end for as long as it lives

    def work() -> int:
        os.close(others)
        return beside(end) if beside else 0

    with crash.workers(path, *crowd, work) as pids:
        os.close(others)
        for victim in choice.sample(pids[:crew], kills):
            time.sleep(choice.uniform(0.5, 3))
            os.kill(victim, signal.SIGKILL)
    os.close(end)
    done = [one for log in logs for one in read_log(log)]
    codes = Counter(f"{one.kind} {one.code}" for one in done)
    print(
        f"{len(done)} operations in {time.monotonic() - begin:.0f} s: {dict(sorted(codes.items()))}"
    )
    for one in done:
        if one.code is None or one.code == 0:
            continue
        assert one.code in OPERATIONS[one.kind].codes, one
        assert one.code != 2 or "programs of the chain are named" in one.document["error"]["what"]
    return [one for one in done if one.code in (0, None) and one.changes]


def replay(done: list[Done], final: tuple[int, list[int]]) -> list[list[int]]:
    """The chains one after the other: each operation names the root before it and the one after.

    From one empty interface to the next the operations make one sequence.
    """
    starts = [one for one in done if not one.roots[0]]
    follows = {one.roots[0]: one for one in done if one.roots[0]}
    assert len(starts) + len(follows) == len(done)
    chains, ends = [], []
    for start in starts:
        at: Done | None = start
        root, chain = 0, list[int]()
        while at is not None:
            assert (at.roots[0], at.before) == (root, chain)
            lost, new = set(chain) - set(at.after), set(at.after) - set(chain)
            kind = OPERATIONS[at.kind]
            assert len(lost) == kind.gone or kind.gone is None, at
            assert len(new) == kind.new or kind.new is None, at
            assert at.kind != "apply" or len(at.after) == 2, at
            if at.kind == "unload-id":
                assert lost == {int(at.words[-1])}
            root, chain = at.roots[1], at.after
            chains.append(chain)
            at = follows.pop(root, None) if root else None
        ends.append((root, chain))
    assert follows == {}
    ends = [end for end in ends if end != (0, [])]
    assert ends == ([final] if final[0] else [])
    return chains


@pytest.mark.parametrize(("crew", "count"), [(4, 6), pytest.param(8, 100, marks=SOAK)])
def test_mixed_operations(
    tool: Tool,
    veth: net.Veth,
    objects: Objects,
    tmp_path: Path,
    crew: int,
    count: int,
) -> None:
    """What several processes did is what they would have done in some order, one by one."""
    base = warmed(tool, veth, objects)
    done = hammered(tool, veth, objects, tmp_path, crew, count)
    root, _mode = oracle.xdp_prog_id(veth.ifindex)
    chain = tool.chain(veth.ifindex)
    chains = replay(done, (root, chain))
    print(f"{len(chains)} changes, {max(map(len, chains), default=0)} programs at most")
    programs = tool.status(veth.dev)["programs"]
    order = [one["priority"] for one in programs]
    assert order == sorted(order)
    tidy(tool, veth, base)


@pytest.mark.parametrize(
    ("crew", "count", "kills"), [(3, 4, 1), pytest.param(8, 60, 6, marks=SOAK)]
)
def test_some_are_killed(
    tool: Tool,
    veth: net.Veth,
    objects: Objects,
    tmp_path: Path,
    crew: int,
    count: int,
    kills: int,
) -> None:
    """SIGKILL to some of them: the others go on, and what they did holds."""
    base = warmed(tool, veth, objects)
    done = hammered(tool, veth, objects, tmp_path, crew, count, kills)
    loaded, unloaded = Counter[int](), Counter[int]()
    for one in done:
        if one.code == 0:
            loaded.update(set(one.after) - set(one.before))
            unloaded.update(set(one.before) - set(one.after))
    open_ended = [one.kind for one in done if one.code is None]
    chain = set(tool.chain(veth.ifindex))
    known = set(loaded - unloaded)
    # An operation that was killed may have happened, and what it loaded be unloaded by others.
    most = len(loaded) + len(unloaded)
    ended = [OPERATIONS[kind] for kind in open_ended]
    left = sum(most if kind.gone is None else kind.gone for kind in ended)
    came = sum(most if kind.new is None else kind.new for kind in ended)
    unknown = chain ^ known | set(unloaded - loaded)
    print(f"killed during {open_ended}; loaded {len(loaded)}, unloaded {len(unloaded)}, {unknown}")
    assert len(unknown) <= left + came
    assert len(known - chain) <= left
    residue = tool.status(veth.dev)["residue"]
    said = tool.try_(
        "swap-dispatcher" if chain else "load", veth.dev, *([] if chain else [objects["count"]])
    )
    assert said.code == 0, said.err
    assert ("removed what was left over" in said.err) == bool(residue)
    tidy(tool, veth, base)


@pytest.mark.parametrize("rounds", [2, pytest.param(30, marks=SOAK)])
def test_first_loads_at_once(
    tool: Tool,
    veth: net.Veth,
    objects: Objects,
    tmp_path: Path,
    rounds: int,
) -> None:
    """Six processes find an empty interface; all six programs run in the end."""
    base = warmed(tool, veth, objects)
    for _ in range(rounds):
        names = ["count", "count", "pass", "pass", "ret_2", "ret_2"]

        def loading(name: str) -> Callable[[], int]:
            def work() -> int:
                result = tool.try_(*load(objects, veth.dev, name, 50))
                print(result.err)
                return result.code

            return work

        with crash.workers(tmp_path, *map(loading, names)):
            pass
        assert [oracle.prog(one).name for one in tool.chain(veth.ifindex)] == names
        tidy(tool, veth, base)
    print(f"{rounds} rounds of six first loads at once")
