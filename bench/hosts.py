"""A host with many interfaces: one chain on each, by programs of its own or shared.

    bench/run hosts [--sizes 100,1000] [--before CHECKOUT] [--root fused|ext]

In a network and mount namespace of its own: so many veth pairs, and on each the same two programs,
by one command for all: loaded, swapped, one of them replaced, shown, unloaded. There is a row for
`--before`, another checkout of xdpctl; for this one with programs of each interface's own; for this
one with a shared root; and for xdp-loader in a loop where EXT programs are allowed, which replaces
nothing. All may have FILES open, for xdp-loader's status of 1,000 needs more than the usual 1,024.
For each: seconds of wall time and of processor time, with that of children; how many programs and
maps there are for it, and the kernel memory of these in KiB, as the kernel accounts for it (memlock
in /proc/PID/fdinfo/FD). The last lines are ratios to the first row.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from subprocess import DEVNULL
from typing import NamedTuple

from xdpctl.errors import KernelError
from xdpctl.kernel import libbpf

from . import tools
from .tools import OBJECT, ROOT

OTHER = OBJECT.with_name("count.o")
STEPS = ("load", "swap", "replace", "status", "unload")
PATTERN = "host*"
FILES = 1 << 16


class Cost(NamedTuple):
    """What a step took, in seconds."""

    wall: float
    processor: float


class Row(NamedTuple):
    """A way to do it: what each step took, and what was in the kernel once all was loaded."""

    name: str
    steps: dict[str, Cost]
    programs: int
    maps: int
    memory: int


def cost(action: Callable[[], None]) -> Cost:
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    action()
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return Cost(wall, used)


def memory(ids: set[int], opened: Callable[[int], int]) -> int:
    """The bytes that the kernel accounts for some programs or maps."""
    total = 0
    for number in ids:
        with suppress(KernelError), libbpf.owned(opened(number)) as fd:
            lines = Path(f"/proc/self/fdinfo/{fd}").read_text().splitlines()
            total += sum(int(line.split()[1]) for line in lines if line.startswith("memlock:"))
    return total


@contextmanager
def veths(size: int) -> Iterator[list[str]]:
    names = [f"host{number}" for number in range(size)]
    lines = [f"link add {name} up type veth peer name p{name}\n" for name in names]
    subprocess.run(["ip", "-batch", "-"], input="".join(lines), text=True, check=True)
    try:
        yield names
    finally:
        lines = [f"link del {name}\n" for name in names]
        subprocess.run(["ip", "-batch", "-"], input="".join(lines), text=True, check=True)


def with_xdpctl(checkout: Path, root: str, *shared: str) -> dict[str, list[list[str]]]:
    """The commands of each step."""
    words = [str(checkout / ".venv/bin/python"), "-m", "xdpctl", "-q"]
    return {
        "load": [[*words, "load", PATTERN, str(OTHER), str(OBJECT), "--root", root, *shared]],
        "swap": [[*words, "swap-dispatcher", PATTERN]],
        "replace": [[*words, "replace", PATTERN, "count", str(OTHER)]],
        "status": [[*words, "status", PATTERN]],
        "unload": [[*words, "unload", PATTERN, "--all"]],
    }


def with_loader(names: list[str]) -> dict[str, list[list[str]]]:
    loads = [["xdp-loader", "load", name, str(OTHER), str(OBJECT)] for name in names]
    return {
        "load": loads,
        "status": [["xdp-loader", "status"]],
        "unload": [["xdp-loader", "unload", name, "--all"] for name in names],
    }


def measured(name: str, commands: dict[str, list[list[str]]], checkout: Path) -> Row:
    environment = os.environ | {"PYTHONPATH": str(checkout)}

    def run(lines: list[list[str]]) -> None:
        for words in lines:
            subprocess.run(words, check=True, stdout=DEVNULL, env=environment, cwd=checkout)

    programs, maps = set(libbpf.prog_ids()), set(libbpf.map_ids())
    found = dict[str, Cost]()
    there = (0, 0, 0)
    for step, lines in commands.items():
        try:
            found[step] = cost(lambda lines=lines: run(lines))  # type: ignore[misc]
        except subprocess.CalledProcessError as error:
            print(f"{name}: {step} failed: {error}", file=sys.stderr, flush=True)
        if step == "load":
            new = set(libbpf.prog_ids()) - programs, set(libbpf.map_ids()) - maps
            used = memory(new[0], libbpf.prog_fd) + memory(new[1], libbpf.map_fd)
            there = len(new[0]), len(new[1]), used
    return Row(name, found, *there)


def rows(size: int, before: Path | None, root: str) -> Iterator[Row]:
    with tools.bpffs(), veths(size) as names:
        if before:
            yield measured("before", with_xdpctl(before, root), before)
        yield measured("separate", with_xdpctl(ROOT, root), ROOT)
        yield measured("shared", with_xdpctl(ROOT, root, "--shared"), ROOT)
        if root == "ext":
            if shutil.which("xdp-loader"):
                yield measured("xdp-loader", with_loader(names), ROOT)
            else:
                print("xdp-loader: it is not installed", file=sys.stderr)


def show(rows: Iterator[Row], size: int) -> None:
    """Print each row when it is there, for what takes an hour may be cut."""
    heads = " ".join(f"{step:^15}" for step in STEPS)
    print(f"\n{size} interfaces, two programs each: seconds of wall and processor time")
    print(f"{'':10} {heads} {'programs':>8} {'maps':>6} {'KiB':>8}", flush=True)
    found = list[Row]()
    for row in rows:
        found.append(row)
        cells = (row.steps.get(step) for step in STEPS)
        told = " ".join(
            f"{one.wall:7.2f} {one.processor:7.2f}" if one else " " * 15 for one in cells
        )
        print(
            f"{row.name:10} {told} {row.programs:8} {row.maps:6} {row.memory >> 10:8}", flush=True
        )
    first, *others = found
    for row in others:
        ratios = [
            f"{step} {row.steps[step].processor / first.steps[step].processor:.3f}"
            for step in STEPS
            if step in row.steps and step in first.steps
        ]
        print(f"{row.name} to {first.name}, processor time: {', '.join(ratios)}; ", end="")
        print(f"memory {row.memory / max(first.memory, 1):.3f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default="100,1000")
    parser.add_argument("--before", type=Path, help="another checkout, to be compared with")
    parser.add_argument("--root", choices=("fused", "ext"), default="fused")
    parser.add_argument("--inside", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    os.environ["PATH"] = f"/usr/sbin:/sbin:{os.environ['PATH']}"
    if arguments.inside:
        resource.setrlimit(resource.RLIMIT_NOFILE, (FILES, FILES))
        show(rows(arguments.inside, arguments.before, arguments.root), arguments.inside)
        return
    before = ["--before", str(arguments.before.resolve())] if arguments.before else []
    for size in arguments.sizes.split(","):
        words = [sys.executable, "-m", "bench.hosts", "--inside", size, "--root", arguments.root]
        subprocess.run(["unshare", "--net", "--mount", *words, *before], check=True, cwd=ROOT)


if __name__ == "__main__":
    main()
