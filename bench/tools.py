"""What measurements share: where they take place, what they load, and how a command is run."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[1]
OBJECT = ROOT / "build/tests/bpf/pass.o"
XDPCTL = [sys.executable, "-m", "xdpctl"]
LOADER = ["xdp-loader"]


@contextmanager
def bpffs() -> Iterator[str]:
    """A BPF file system that every tool uses, there as long as the block."""
    with tempfile.TemporaryDirectory() as path:
        run("mount", "-t", "bpf", "bpf", path)
        os.environ["LIBXDP_BPFFS"] = path
        try:
            yield path
        finally:
            run("umount", "-l", path)


@contextmanager
def interface(name: str) -> Iterator[str]:
    """A veth pair, there as long as the block."""
    run("ip", "link", "add", name, "up", "type", "veth", "peer", "name", f"{name}p")
    try:
        yield name
    finally:
        run("ip", "link", "del", name)


def run(*command: object) -> None:
    subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL)


def refusal(*command: object) -> str:
    """Run a command that may not be possible here: why it failed, or nothing if it did not."""
    words = [str(word) for word in command]
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return f"{words[0]} is not installed"
    said = f"{done.stderr}\n{done.stdout}".split("\n")
    return next(filter(None, map(str.strip, said)), "no reason given") if done.returncode else ""


def seconds(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def ratio(ours: float | None, theirs: float | None, least: float = 0) -> str:
    """A cell for a ratio; "-" where one is missing, or is no more than what scatters anyway."""
    if ours is None or theirs is None or theirs <= least:
        return "-"
    return f"{ours / theirs:.2f}"


def cell(ms: float | None) -> str:
    return "-" if ms is None else f"{ms:.1f}"
