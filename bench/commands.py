"""Cost a command: wall time of load, status and unload, beside xdp-loader and python's start."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial

from .tools import LOADER, OBJECT, XDPCTL, cell, interface, ratio, refusal, run, seconds

COMMANDS = ("load", "status", "unload")


def measure(rounds: int) -> None:
    """Print the table: with two programs there, the third loaded and unloaded."""
    with interface("bx") as ours, interface("bl") as theirs:
        run(*XDPCTL, "load", ours, OBJECT, OBJECT)
        missing = refusal(*LOADER, "load", theirs, OBJECT, OBJECT)
        start, click, *took = fastest(
            rounds,
            lambda: [sys.executable, "-c", "pass"],
            lambda: [sys.executable, "-c", "import click"],
            *cycle(XDPCTL, ours),
            *([] if missing else cycle(LOADER, theirs)),
        )
        run(*XDPCTL, "unload", ours, "--all")
        if not missing:
            run(*LOADER, "unload", theirs, "--all")
    print(f"\ncost a command, ms wall time (least of {rounds}, taken in turns)")
    print(f"python starts in {start:.0f}, with click imported in {click:.0f}")
    heads = ["xdpctl", "of start+click", "start+click is", "xdp-loader", "ratio"]
    print(f"{'command':>8} " + " ".join(f"{head:>14}" for head in heads))
    own = took[: len(COMMANDS)]
    their: Sequence[float | None] = took[len(COMMANDS) :] or [None] * len(COMMANDS)
    for name, one, other in zip(COMMANDS, own, their, strict=True):
        cells = [cell(one), f"{one / click:.2f}", f"{click / one:.0%}", cell(other)]
        print(f"{name:>8} " + " ".join(f"{text:>14}" for text in (*cells, ratio(one, other))))
    if missing:
        print(f"xdp-loader is left out: {missing}")


def cycle(loader: Sequence[str], dev: str) -> list[Callable[[], list[object]]]:
    """What makes each command line; at the end the interface is as before."""
    return [
        lambda: [*loader, "load", dev, OBJECT],
        lambda: [*loader, "status", dev],
        lambda: unload_newest(loader, dev),
    ]


def fastest(rounds: int, *actions: Callable[[], list[object]]) -> list[float]:
    """The least wall time in ms of each command line, taken in turns; making one is not timed."""
    best = [float("inf")] * len(actions)
    for _ in range(rounds):
        for number, action in enumerate(actions):
            words = action()
            best[number] = min(best[number], seconds(partial(run, *words)) * 1e3)
    return best


def unload_newest(loader: Sequence[str], dev: str) -> list[object]:
    """The command line that takes out the program that was loaded last: the highest id."""
    rows = subprocess.run(
        [*loader, "status", dev], check=True, capture_output=True, text=True
    ).stdout.splitlines()
    newest = max(int(row.split()[3]) for row in rows if row.startswith(" =>"))
    return [*loader, "unload", dev, "-i", newest]
