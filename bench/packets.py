"""Cost a packet: what chains of each size add to a bare program, for each kind of root.

And what counting adds to that (xdpctl stats --on), beside the same chain where it is off.

The members' verdict is one that the verifier cannot foresee (check.c): where it can, a fused root
is rid of its comparisons.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from bench.tools import LOADER, XDPCTL, interface, ratio, refusal, run
from xdpctl.kernel import libbpf, xdp
from xdpctl.roots.dispatcher import compile_c

SIZES = (1, 2, 5, 10, 50, 200)
# The first to make a directory in the bpffs gives it its rights: ours, or we would not trust it.
LOADS = {
    "fused": [*XDPCTL, "load", "--root", "fused"],
    "ext": [*XDPCTL, "load", "--root", "ext"],
    "libxdp": [*LOADER, "load"],
}
COUNTED = {f"{kind} counted": kind for kind in ("fused", "ext")}
SOURCE = Path(__file__).with_name("check.c")
PACKET = bytes(64)
SCATTER = 5
"""Differences that mean nothing."""

Key = tuple[str, int]


def measure(
    directory: Path, rounds: int, repeat: int, sizes: Sequence[int] = SIZES, unit: str = "ns"
) -> None:
    """Print the tables: test runs of each root, taken in turns, the least of each."""
    program = directory / "check.o"
    program.write_bytes(compile_c(SOURCE.read_bytes()))
    with ExitStack() as stack:
        fds: dict[Key, int] = {}
        missing: list[str] = []
        for who, load in LOADS.items():
            for size in sizes:
                dev = stack.enter_context(interface(f"{who}{size}"))
                if why := refusal(*load, dev, *[program] * size):
                    missing.append(f"{who} has no chain of {size}: {why}")
                    break
                stack.callback(run, load[0], *load[1 : load.index("load")], "unload", dev, "--all")
                fds[who, size] = stack.enter_context(libbpf.owned(root_of(dev)))
        for who, kind in COUNTED.items():
            for size in sizes:
                if (kind, size) not in fds:
                    continue
                dev = stack.enter_context(interface(f"{kind}{size}on"))
                run(*LOADS[kind], dev, *[program] * size)
                stack.callback(run, *XDPCTL, "unload", dev, "--all")
                if why := refusal(*XDPCTL, "stats", dev, "--on"):
                    missing.append(f"{kind} does not count a chain of {size}: {why}")
                    break
                fds[who, size] = stack.enter_context(libbpf.owned(root_of(dev)))
        dev = stack.enter_context(interface("bare"))
        run("ip", "link", "set", "dev", dev, "xdp", "obj", program, "sec", "xdp")
        fds["bare", 0] = stack.enter_context(libbpf.owned(root_of(dev)))
        best = dict.fromkeys(fds, sys.maxsize)
        for _ in range(rounds):
            for key, fd in fds.items():
                best[key] = min(best[key], libbpf.prog_test_run(fd, PACKET, repeat)[2])
        report_counting(best, sizes, unit)
        report(best, sizes, unit, {key: libbpf.prog_info(fd).size // 8 for key, fd in fds.items()})
    print(*missing, sep="\n", flush=True)


def root_of(dev: str) -> int:
    """The program that an interface runs: its descriptor."""
    return libbpf.prog_fd(xdp.query(socket.if_nametoindex(dev))[0])


def report(
    best: dict[Key, int], sizes: Sequence[int], unit: str, instructions: dict[Key, int]
) -> None:
    bare = best["bare", 0]
    print(
        f"\ncost a packet, {unit} added to a bare program's {bare}, and the root's BPF instructions"
    )
    heads = [*LOADS, "fused/libxdp", "ext/libxdp", "fused/ext", "fused each", "ext each"]
    print(f"{'programs':>8} " + " ".join(f"{head:>12}" for head in heads))
    for size in sizes:
        added = {who: best[who, size] - bare for who in LOADS if (who, size) in best}
        cells = [
            f"{added[who]} ({instructions[who, size]})" if who in added else "-" for who in LOADS
        ]
        cells += [
            ratio(added.get(one), added.get(other), SCATTER)
            for one, other in (("fused", "libxdp"), ("ext", "libxdp"), ("fused", "ext"))
        ]
        cells += [f"{added[who] / size:.1f}" if who in added else "-" for who in ("fused", "ext")]
        print(f"{size:>8} " + " ".join(f"{cell:>12}" for cell in cells))


def report_counting(best: dict[Key, int], sizes: Sequence[int], unit: str) -> None:
    print(f"\nwhat counting adds, {unit} a packet, and a member")
    print(f"{'programs':>8} " + " ".join(f"{kind:>8} {'a member':>8}" for kind in COUNTED.values()))
    for size in sizes:
        cells = []
        for who, kind in COUNTED.items():
            if (who, size) in best:
                added = best[who, size] - best[kind, size]
                cells += [f"{added}", f"{added / size:.1f}"]
            else:
                cells += ["-", "-"]
        print(f"{size:>8} " + " ".join(f"{cell:>8}" for cell in cells))
