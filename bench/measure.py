"""Cost a packet, a change, a command: ours beside others, as ratios from the same run.

    bench/run [--rounds N] [--turns N] [--repeat N] [--sizes N,N...]
              [--only packets|changes|commands] [--unit UNIT]

Packets: test runs of each root (BPF_PROG_TEST_RUN, mean ns of `repeat` runs), for chains of so many
programs (`sizes`), the minimum of so many `turns`, interleaved, less the same of a bare program;
short ones, for a machine that is busy with something else seldom leaves a long one alone. Changes
and commands: wall time, the minimum of `rounds`. The programs of the chains pass every packet and
do hardly anything else. In a guest where a nanosecond is an instruction (tests/vm --exact) few
turns are enough: what is measured is always the same. What this kernel or this machine does not
have is named, and the rest is measured.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

from . import changes, commands, packets, tools

PARTS = ("packets", "changes", "commands")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--turns", type=int, default=300)
    parser.add_argument("--repeat", type=int, default=5000)
    parser.add_argument("--sizes", default=",".join(map(str, packets.SIZES)))
    parser.add_argument("--only", choices=PARTS)
    parser.add_argument("--unit", default="ns", help="what a nanosecond is here")
    arguments = parser.parse_args()
    os.environ["PATH"] = f"/usr/sbin:/sbin:{os.environ['PATH']}"
    parts = [arguments.only] if arguments.only else PARTS
    # A cache of this run's own, filled by the first load of each shape.
    with tempfile.TemporaryDirectory() as cache, tools.bpffs() as bpffs:
        os.environ["XDPCTL_CACHE"] = cache
        print(f"Linux {os.uname().release}, {os.cpu_count()} CPUs", flush=True)
        if "packets" in parts:
            sizes = [int(size) for size in arguments.sizes.split(",")]
            unit = arguments.unit
            packets.measure(Path(cache), arguments.turns, arguments.repeat, sizes, unit)
        if "changes" in parts:
            changes.measure(bpffs, arguments.rounds)
        if "commands" in parts:
            commands.measure(arguments.rounds)


if __name__ == "__main__":
    main()
