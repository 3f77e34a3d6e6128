"""Cost of commands on many interfaces: does it grow with their number, or with its square?

    bench/run many [--sizes 10,100,1000] [--profile]

For each size, in a network and mount namespace of its own that ends with the measurement: so many
dummy interfaces (the cheapest to make; they know generic mode alone), or ifb ones where the kernel
has no others, with a chain of one program each, loaded in one process from an object that is read
once. Then `status`, `status --json` and `swap-dispatcher --all`, each as a process of its own,
once. "growth" is the exponent between two rows, the start of a process left out: 1 is linear, 2
quadratic.
"""

from __future__ import annotations

import argparse
import contextlib
import cProfile
import io
import math
import os
import pstats
import subprocess
import sys

from bench import tools
from bench.tools import OBJECT, ROOT, XDPCTL, bpffs, refusal, seconds
from xdpctl.bpffs.mount import Bpffs
from xdpctl.change.transact import transact
from xdpctl.cli.run import run
from xdpctl.host.interfaces import Interface
from xdpctl.model.request import Request
from xdpctl.programs import objects

TYPES = ("dummy", "ifb")
OURS, TOP = r"xdpctl/(?!cli)", 12
COLUMNS = ("load", "status", "status --json", "swap")


def xdpctl(*words: str) -> None:
    """Run xdpctl as a process of its own, silently."""
    if why := refusal(*XDPCTL, *words):
        raise SystemExit(f"bench: xdpctl {' '.join(words)} failed: {why}")


def here(*commands: tuple[str, ...]) -> None:
    """Run xdpctl commands in this process, silently."""
    for words in commands:
        with contextlib.redirect_stdout(io.StringIO()):
            if run(list(words)):
                raise SystemExit(f"bench: xdpctl {' '.join(words)} failed")


def available() -> str:
    """The type of interfaces that this kernel has."""
    for name in TYPES:
        if not refusal("ip", "link", "add", "many", "type", name):
            tools.run("ip", "link", "del", "many")
            return name
    raise SystemExit(f"bench: this kernel has no interfaces of type {' or '.join(TYPES)}")


def make(size: int) -> list[str]:
    """Make so many interfaces; their names."""
    names, kind = [f"many{number}" for number in range(size)], available()
    batch = "".join(f"link add {name} up type {kind}\n" for name in names)
    subprocess.run(["ip", "-batch", "-"], input=batch, text=True, check=True)
    return names


def load(path: str, names: list[str]) -> None:
    """Give each interface a chain of one program."""
    home, member = Bpffs(path), objects.member(str(OBJECT))
    for name in names:
        transact(
            home,
            Interface.named(name),
            lambda state: state.chain.with_added([member]),
            Request(mode="skb"),
        )


def measure(size: int, profile: bool) -> None:
    """Print one line for one size: the seconds of each command, tab separated."""
    with bpffs() as path:
        names = make(size)
        loaded = seconds(lambda: load(path, names))
        start = min(seconds(lambda: xdpctl("--version")) for _ in range(3))
        status = seconds(lambda: xdpctl("status")) - start
        as_json = seconds(lambda: xdpctl("status", "--json")) - start
        swapped = seconds(lambda: xdpctl("swap-dispatcher", "--all")) - start
        print(start, loaded, status, as_json, swapped, flush=True)
        if profile:
            print_profile(f"status, {size} interfaces", ("status",))
            print_profile(f"swap-dispatcher, {size} interfaces", ("swap-dispatcher", "--all"))


def print_profile(title: str, *commands: tuple[str, ...]) -> None:
    """Where the time of commands goes, on standard error: functions below the command line's."""
    profiler, text = cProfile.Profile(), io.StringIO()
    profiler.runcall(here, *commands)
    pstats.Stats(profiler, stream=text).sort_stats("cumulative").print_stats(OURS, TOP)
    rows = text.getvalue().replace(f"{ROOT}/", "").splitlines()
    print(f"\n{title}", *(row for row in rows if row.strip()), sep="\n", file=sys.stderr)


def in_namespaces(size: int, profile: bool) -> list[float]:
    """Measure one size in namespaces of its own."""
    words = [sys.executable, "-m", "bench.many", "--inside", str(size)]
    done = subprocess.run(
        ["unshare", "--net", "--mount", *words, *(["--profile"] if profile else [])],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        cwd=ROOT,
    )
    return [float(word) for word in done.stdout.split()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default="10,100,1000")
    parser.add_argument("--profile", action="store_true", help="print what takes most time")
    parser.add_argument("--inside", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    os.environ["PATH"] = f"/usr/sbin:/sbin:{os.environ['PATH']}"
    if arguments.inside:
        measure(arguments.inside, arguments.profile)
        return
    print("\ncommands on many interfaces, less a process's start: s, ms an interface, growth")
    print("(virtual interfaces in generic mode, one program each; swap is swap-dispatcher --all)")
    print(f"{'interfaces':>10} {'start':>6} " + " ".join(f"{what:^22}" for what in COLUMNS))
    before: tuple[int, list[float]] | None = None
    for size in [int(word) for word in arguments.sizes.split(",")]:
        start, *took = in_namespaces(size, arguments.profile)
        cells = []
        for number, one in enumerate(took):
            growth = "-"
            if before and min(one, before[1][number]) > 0:  # else the start of a process hides it
                growth = f"{math.log(one / before[1][number], size / before[0]):.1f}"
            cells.append(f"{one:>8.2f} {one / size * 1e3:>8.1f} {growth:>4}")
        print(f"{size:>10} {start:>6.2f} " + " ".join(cells), flush=True)
        before = size, took


if __name__ == "__main__":
    main()
