"""A fused root means what its members mean one by one, and what a dispatcher makes of them."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest

from tests.kernel import net, oracle
from tests.kernel.conftest import Objects, kinds, needs
from tests.kernel.differential import (
    Change,
    Program,
    change,
    less,
    list_some,
    memory,
    packets,
    programs,
    run_model,
)
from tests.kernel.tool import Tool
from xdpctl.model.chain import Kind, Member

pytestmark = kinds("fused")
FEW = (
    *("adjust", "blocklist", "counter", "loop", "nth", "subprogs", "tailcall"),
    *("xdpfilt_alw_tcp", "xdpfilt_dny_all"),
)
SOAK = 10_000
Loads = Sequence[Sequence[Program]]


def often(few: int, many: int) -> pytest.MarkDecorator:
    """So many packets a chain; in the soak test `many`, through every program there is."""
    soak = pytest.param(many, marks=pytest.mark.soak)
    return pytest.mark.parametrize("count", [few, soak])


def loads(there: Sequence[Program], count: int) -> Loads:
    """What to load together: a few; in the soak test all at once, by tens, and each alone, too."""
    some = random.Random(1).sample(there, len(there))
    if count < SOAK:
        return [[one for one in some if one.path.stem in FEW]]
    tens = [some[start : start + 10] for start in range(0, len(some), 10)]
    return [some, *tens, *([one] for one in some)]


def chains(first: Sequence[Program], maps: Path) -> Iterator[Change]:
    """All of some programs, new, then fewer and fewer, and one alone that is the root itself."""
    yield lambda _members: [program.member(maps) for program in first]
    left, seed = len(first), 0

    def counted(members: Sequence[Member]) -> Sequence[Member]:
        nonlocal left
        chosen = less(seed)(members)
        left = len(chosen)
        return chosen

    while left > 1:
        if len(first) > 10 and seed == 4:
            return  # of many at once a few orders have to do
        seed += 1
        yield counted
    yield lambda members: [replace(one, actions=1 << oracle.XDP_PASS) for one in members]


def maps_for(tool: Tool, name: str) -> Path:
    """A directory for the maps that programs want pinned."""
    path = tool.bpffs / name
    path.mkdir()
    return path


def report(verdicts: Counter[int], roots: int) -> None:
    print(f"{verdicts.total()} packets, {roots} chains, verdicts {dict(sorted(verdicts.items()))}")
    assert verdicts.keys() >= {oracle.XDP_DROP, oracle.XDP_PASS}


@often(30, SOAK)
def test_a_fused_root_is_the_sum_of_its_members(
    tool: Tool, veth: net.Veth, objects: Objects, debian: Path, count: int
) -> None:
    """Each member's own program, run by itself, makes of a packet what the root makes of it."""
    frames, verdicts, roots = packets(2, count), Counter[int](), 0
    maps = maps_for(tool, "maps")
    for first in loads(programs(objects, debian), count):
        for make in chains(first, maps):
            root, members = change(tool, veth, make, "fused")
            list_some(maps)
            chain = [(member.id, member.actions) for member in members]
            roots += 1
            before = memory([member.id for member in members])
            made = [oracle.run(root, frame) for frame in frames]
            between = memory([member.id for member in members])
            for one, frame in zip(made, frames, strict=True):
                assert one == run_model(chain, frame), (members, frame.hex())
                verdicts[one[0]] += 1
            # Each member has seen what it sees in the model, also where no verdict tells.
            after = memory([member.id for member in members])
            for (name, old), (_name, new), (_same, newer) in zip(
                before, between, after, strict=True
            ):
                assert new - old == newer - new, (name, members)
        print(f"up to {len(first)} programs: {verdicts.total()} packets, {roots} chains so far")
    report(verdicts, roots)


@needs("ext")
@often(30, SOAK)
def test_both_kinds_of_root_mean_the_same(
    tool: Tool, objects: Objects, debian: Path, count: int
) -> None:
    """The same members, loaded afresh for each kind, so that those with a memory agree, too."""
    frames, verdicts, roots = packets(3, count), Counter[int](), 0
    there = [*programs(objects, debian), Program(objects["nth"]), Program(objects["loop"])]
    if oracle.lacks("bpf_loop"):
        there.pop()
    if oracle.lacks("shared_arrays"):
        there = [one for one in there if one.path.stem != "tailcall"]
    both: tuple[Kind, Kind] = ("ext", "fused")
    maps = {kind: maps_for(tool, kind) for kind in both}
    with net.Veth() as one, net.Veth() as other:
        veths = {"ext": one, "fused": other}
        for first in loads(there, count):
            same = zip(*(chains(first, maps[kind]) for kind in both), strict=True)
            # Each dispatcher of another shape has to be compiled.
            for makes in islice(same, 4) if count < SOAK else same:
                made: dict[Kind, tuple[int, Sequence[Member]]] = {}
                for kind, make in zip(both, makes, strict=True):
                    made[kind] = change(tool, veths[kind], make, kind)
                    list_some(maps[kind])
                roots += 1
                for frame in frames:
                    ext, fused = (oracle.run(made[kind][0], frame) for kind in both)
                    assert ext == fused, (made, frame.hex())
                    verdicts[ext[0]] += 1
                ids = {kind: [member.id for member in made[kind][1]] for kind in both}
                assert memory(ids["ext"]) == memory(ids["fused"]), made
            print(f"up to {len(first)} programs: {verdicts.total()} packets, {roots} chains so far")
    report(verdicts, roots)
