"""Cost of a change in the process that makes it: the transaction alone, fused beside EXT."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial

from bench.tools import OBJECT, cell, interface, ratio, seconds
from xdpctl.bpffs.mount import Bpffs
from xdpctl.change.transact import transact
from xdpctl.errors import XdpctlError
from xdpctl.host.interfaces import Interface
from xdpctl.model.chain import Chain, Kind
from xdpctl.model.request import Request
from xdpctl.model.state import State
from xdpctl.programs import objects

KINDS: tuple[Kind, ...] = ("fused", "ext")
SIZES = (1, 10)


def load(state: State, count: int = 1) -> Chain:
    return state.chain.with_added([objects.member(str(OBJECT))] * count)


def swap(state: State) -> Chain:
    return state.chain


def unload(state: State) -> Chain:
    return state.chain.without([max(member.id for member in state.chain.members)])


STEPS = [(change, size) for size in SIZES for change in (unload, load, swap)]
"""Each on an interface that has so many members before the first and after the second."""


def measure(path: str, rounds: int) -> None:
    """Print the table: every change once a round, the kinds in turns, the least of each."""
    best: dict[tuple[str, int, Kind], float] = {}
    bpffs, kinds, missing = Bpffs(path), list(KINDS), []
    with ExitStack() as stack:
        devs = {
            (kind, size): Interface.named(stack.enter_context(interface(f"{kind}{size}")))
            for kind in KINDS
            for size in SIZES
        }
        for kind in KINDS:
            try:
                for size in SIZES:
                    transact(bpffs, devs[kind, size], partial(load, count=size), Request(kind=kind))
            except XdpctlError as error:
                missing.append(f"{kind} is left out: {error}")
                kinds.remove(kind)
        for _ in range(rounds):
            for change, size in STEPS:
                for kind in kinds:
                    took = seconds(
                        partial(transact, bpffs, devs[kind, size], change, Request(kind=kind))
                    )
                    key = change.__name__, size, kind
                    best[key] = min(took * 1e3, best.get(key, took * 1e3))
        for kind in kinds:
            for size in SIZES:
                transact(bpffs, devs[kind, size], lambda _state: Chain())
    print(f"\ncost of a change, ms in the process (least of {rounds}, taken in turns)")
    print(f"{'change':>8} {'members':>8} {'fused':>8} {'ext':>8} {'fused/ext':>10}")
    for change, size in STEPS:
        fused, ext = (best.get((change.__name__, size, kind)) for kind in KINDS)
        print(
            f"{change.__name__:>8} {size:>8} {cell(fused):>8} {cell(ext):>8}"
            f" {ratio(fused, ext):>10}"
        )
    print(*missing, sep="\n", flush=True)
