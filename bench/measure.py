"""Cost a packet, cost a command: ours beside xdp-loader's, as ratios from the same run.

    bench/run [--rounds N] [--repeat N]

Packets: test runs of each root (BPF_PROG_TEST_RUN, mean ns of `repeat` runs), the minimum of
`rounds` interleaved rounds, less the same of a bare program. Commands: wall time, the minimum of
`rounds`. The programs of the chains pass every packet and do nothing else.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from xdpctl.kernel import libbpf

ROOT = Path(__file__).parents[1]
OBJECT = ROOT / "build/tests/bpf/pass.o"
SIZES = (1, 2, 5, 10)
PACKET = bytes(64)
XDPCTL = [sys.executable, "-m", "xdpctl"]
LOADER = ["xdp-loader"]


@contextmanager
def interface(name: str) -> Iterator[str]:
    """A veth pair, there as long as the block."""
    subprocess.run(
        ["ip", "link", "add", name, "up", "type", "veth", "peer", "name", f"{name}p"], check=True
    )
    try:
        yield name
    finally:
        subprocess.run(["ip", "link", "del", name], check=True)


def run(*command: object) -> None:
    subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL)


def root_of(dev: str) -> int:
    """The id of the program that an interface runs."""
    return libbpf.xdp_query(socket.if_nametoindex(dev))[0]


def xlated_insns(program: int) -> int:
    """Instructions of a program as the kernel runs it, its slots' stubs included."""
    with libbpf.owned(libbpf.prog_fd(program)) as fd:
        return libbpf.prog_info(fd).size // 8


def packets(rounds: int, repeat: int) -> None:
    """Cost a packet for chains of each size."""
    with ExitStack() as stack:
        roots: dict[tuple[str, int], int] = {}
        for who, loader in (("xdpctl", XDPCTL), ("libxdp", LOADER)):
            for size in SIZES:
                dev = stack.enter_context(interface(f"b{who[0]}{size}"))
                run(*loader, "load", dev, *[OBJECT] * size)
                stack.callback(run, *loader, "unload", dev, "--all")
                roots[who, size] = libbpf.xdp_query(
                    int(Path(f"/sys/class/net/{dev}/ifindex").read_text())
                )[0]
        dev = stack.enter_context(interface("bare"))
        run("ip", "link", "set", "dev", dev, "xdp", "obj", OBJECT, "sec", "xdp")
        roots["bare", 0] = libbpf.xdp_query(int(Path(f"/sys/class/net/{dev}/ifindex").read_text()))[
            0
        ]
        fds = {
            key: stack.enter_context(libbpf.owned(libbpf.prog_fd(root)))
            for key, root in roots.items()
        }
        best = dict.fromkeys(fds, sys.maxsize)
        for _ in range(rounds):
            for key, fd in fds.items():
                best[key] = min(best[key], libbpf.prog_test_run(fd, PACKET, repeat)[2])
        bare = best["bare", 0]
        print(f"\ncost a packet, ns added to a bare program's {bare} ({rounds} x {repeat} runs)")
        print(f"{'programs':>8} {'xdpctl':>8} {'libxdp':>8} {'ratio':>8} {'instructions':>16}")
        for size in SIZES:
            ours, theirs = best["xdpctl", size] - bare, best["libxdp", size] - bare
            ratio = f"{ours / theirs:.2f}" if theirs > 5 else "-"
            sizes = f"{xlated_insns(roots['xdpctl', size])}/{xlated_insns(roots['libxdp', size])}"
            print(f"{size:>8} {ours:>8} {theirs:>8} {ratio:>8} {sizes:>16}")


def fastest(rounds: int, *actions: Callable[[], list[object]]) -> list[float]:
    """The least wall time in s of each command line, taken in turns; making one is not timed."""
    best = [float("inf")] * len(actions)
    for _ in range(rounds):
        for number, action in enumerate(actions):
            words = action()
            began = time.perf_counter()
            run(*words)
            best[number] = min(best[number], time.perf_counter() - began)
    return best


def unload_newest(loader: Sequence[str], dev: str) -> list[object]:
    """The command line that takes out the program that was loaded last: the highest id."""
    rows = subprocess.run(
        [*LOADER, "status", dev], check=True, capture_output=True, text=True
    ).stdout.splitlines()
    newest = max(int(row.split()[3]) for row in rows if row.startswith(" =>"))
    return [*loader, "unload", dev, "-i", newest]


def commands(rounds: int) -> None:
    """Wall time of load, status and unload, with one program already there."""
    with interface("bx") as ours, interface("bl") as theirs:
        run(*XDPCTL, "load", ours, OBJECT)
        run(*LOADER, "load", theirs, OBJECT)
        start, click, load, status, unload, load2, status2, unload2 = fastest(
            rounds,
            lambda: [sys.executable, "-c", "pass"],
            lambda: [sys.executable, "-c", "import click"],
            lambda: [*XDPCTL, "load", ours, OBJECT],
            lambda: [*XDPCTL, "status", ours],
            lambda: unload_newest(XDPCTL, ours),
            lambda: [*LOADER, "load", theirs, OBJECT],
            lambda: [*LOADER, "status", theirs],
            lambda: unload_newest(LOADER, theirs),
        )
        run(*XDPCTL, "unload", ours, "--all")
        run(*LOADER, "unload", theirs, "--all")
    print(f"\ncost a command, ms wall time (least of {rounds}, taken in turns)")
    print(f"python starts in {start * 1e3:.0f}, with click imported in {click * 1e3:.0f}")
    print(
        f"{'command':>8} {'xdpctl':>8} {'of start+click':>15} {'start+click is':>15}"
        f" {'xdp-loader':>11} {'ratio':>7}"
    )
    for name, own, their in (
        ("load", load, load2),
        ("status", status, status2),
        ("unload", unload, unload2),
    ):
        print(
            f"{name:>8} {own * 1e3:>8.0f} {own / click:>15.2f} {click / own:>14.0%}"
            f" {their * 1e3:>11.1f} {own / their:>7.1f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--repeat", type=int, default=50000)
    parser.add_argument("--only", choices=("packets", "commands"))
    arguments = parser.parse_args()
    os.environ["PATH"] = f"/usr/sbin:/sbin:{os.environ['PATH']}"
    with tempfile.TemporaryDirectory() as cache:
        # A cache of this run's own, filled by the first load of each shape.
        os.environ["XDPCTL_CACHE"] = cache
        print(f"Linux {os.uname().release}, {os.cpu_count()} CPUs")
        if arguments.only != "commands":
            packets(arguments.rounds, arguments.repeat)
        if arguments.only != "packets":
            commands(arguments.rounds)


if __name__ == "__main__":
    main()
