#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Count what comes in on an interface, before other programs do anything with it.

    python3 counter.py INTERFACE

The program is in the chain as long as this runs, however it ends.
"""

import struct
import sys
from pathlib import Path

import xdpctl
from xdpctl.errors import XdpctlError


def totals(traffic: xdpctl.Map) -> list[int]:
    """Packets and bytes, of all CPUs together."""
    each = (struct.unpack("=QQ", value) for value in traffic.per_cpu(bytes(4)))
    return [sum(column) for column in zip(*each, strict=True)]


def main(interface: str) -> None:
    with xdpctl.attach(Path(__file__).with_suffix(".c"), interface, priority=1) as attachment:
        traffic = attachment.maps["traffic"]
        try:
            print("counting", flush=True)
            while not attachment.wait(1):
                print("{} packets, {} bytes".format(*totals(traffic)), flush=True)
            print("somebody took the program out")
        except KeyboardInterrupt:
            print("{} packets, {} bytes in the end".format(*totals(traffic)))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: counter.py INTERFACE")
    try:
        main(sys.argv[1])
    except XdpctlError as error:
        sys.exit(f"counter.py: {error}\n{error.why}".rstrip())
