"""Cost of metrics on many interfaces: a scrape of `xdpctl metrics --listen`, and a run for a file.

    bench/run metrics [--sizes 10,100,1000] [--scrapes 10]

For each size, in a network and mount namespace of its own: so many virtual interfaces with a chain
of one program each, whose packets are counted. Seconds of processor time: the first scrape of a
process that stays; a later one, the median; one after a chain was changed; and `xdpctl metrics
--textfile` as a process of its own. "samples" is how many values a scrape has.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace

from bench import many
from bench.tools import ROOT, bpffs
from xdpctl.bpffs.mount import Bpffs
from xdpctl.change.transact import transact
from xdpctl.host.interfaces import Interface
from xdpctl.metrics.scrape import Scrape
from xdpctl.model.chain import Chain
from xdpctl.model.request import Request
from xdpctl.model.state import State
from xdpctl.view import metrics

_APART = 0.3
"""Seconds between two scrapes: what has just been changed is read anew."""


def counted(state: State) -> Chain:
    return replace(state.chain, rules=state.chain.rules._replace(counted=1))


def processor(work: Callable[[], object]) -> float:
    begin = time.process_time()
    work()
    return time.process_time() - begin


def of_children(work: Callable[[], object]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    work()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def measure(size: int, scrapes: int) -> None:
    """Print one line for one size."""
    with bpffs() as path:
        os.environ["XDPCTL_RUN"] = f"{path}-run"
        names = many.make(size)
        many.load(path, names)
        for name in names:
            transact(Bpffs(path), Interface.named(name), counted, Request())
        scrape = Scrape(Bpffs(path), stay=True)
        text = ""

        def once() -> None:
            nonlocal text
            text = metrics.text(scrape.families().told())

        first = processor(once)
        time.sleep(_APART)
        once()  # what was new a moment ago is known from now on
        later = []
        for _ in range(scrapes):
            time.sleep(_APART)
            later.append(processor(once))
        many.here(("swap-dispatcher", names[0], "-q"))
        changed = processor(once)
        file = of_children(lambda: many.xdpctl("metrics", "-q", "--textfile", f"{path}.prom"))
        lines = sum(not line.startswith("#") for line in text.splitlines())
        print(lines, first, statistics.median(later), changed, file, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default="10,100,1000")
    parser.add_argument("--scrapes", type=int, default=10)
    parser.add_argument("--inside", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    os.environ["PATH"] = f"/usr/sbin:/sbin:{os.environ['PATH']}"
    if arguments.inside:
        measure(arguments.inside, arguments.scrapes)
        return
    print("\nmetrics of many interfaces, one counted program each: s of processor time")
    columns = ("samples", "first", "later", "changed", "textfile")
    print(f"{'interfaces':>10} " + " ".join(f"{what:>9}" for what in columns))
    for size in arguments.sizes.split(","):
        words = ["-m", "bench.metrics", "--inside", size, "--scrapes", str(arguments.scrapes)]
        done = subprocess.run(
            ["unshare", "--net", "--mount", sys.executable, *words],
            stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT,
        )  # fmt: skip
        samples, *took = done.stdout.split()
        print(f"{size:>10} {samples:>9} " + " ".join(f"{float(one):>9.2f}" for one in took))


if __name__ == "__main__":
    main()
