"""The main job, shown: a chain of other people's programs, swapped under traffic, and removed.

    python -m tests.kernel.demo [--probe] ext|fused

Runs in the network and mount namespaces that it is started in (see tests/demo), on a root of one
kind. With --probe it only tells whether a chain can be loaded here: exit 0, or 1 with the reason.
"""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.kernel import net, oracle
from tests.kernel.tool import ROOT, Tool
from xdpctl.change.planning import KIND_VARIABLE
from xdpctl.model.chain import Kind

DEBIAN = next(Path("/usr/lib").glob("*/bpf/xdpfilt_alw_udp.o")).parent


def say(text: str) -> None:
    print(f"\n\033[1m# {text}\033[0m" if sys.stdout.isatty() else f"\n# {text}", flush=True)


def xdpctl(tool: Tool, *words: object) -> str:
    """Run a command as a user would, and show it."""
    print(f"$ xdpctl {' '.join(map(str, words))}", flush=True)
    result = tool.process(*words)
    print(result.out + result.err, end="", flush=True)
    if result.code:
        sys.exit(f"demo: xdpctl ended with {result.code}")
    return result.out


def passed(stats: Path) -> int:
    """Packets that xdp-filter's program let pass, by its own map (a count and a sum of bytes)."""
    with oracle.pin_get(stats) as fd:
        value = oracle.map_lookup(fd, struct.pack("=I", oracle.XDP_PASS))
    return sum(count for count, _bytes in struct.iter_unpack("=QQ", value))


def show(tool: Tool, veth: net.Veth, maps: Path) -> None:
    say("Two programs that other people wrote, from Debian's xdp-tools, as one change")
    first, second = DEBIAN / "xdpfilt_alw_udp.o", DEBIAN / "xsk_def_xdp_prog.o"
    xdpctl(tool, "load", "-p", maps, veth.dev, first, second)
    xdpctl(tool, "status", veth.dev)

    say("Port 53 goes on the filter's list; packets to ports 53 and 54 are sent")
    with oracle.pin_get(maps / "filter_ports") as ports:
        value = struct.pack("=Q", 2 | 8) * oracle.possible_cpus()
        oracle.map_update(ports, struct.pack("!H", 53) + bytes(2), value)
    for port in (53, 54):
        frames = [net.udp(number, dport=port) for number in range(100)]
        arrived = net.exchange(veth, frames)
        print(f"UDP to port {port}: {len(frames)} sent, {len(arrived)} arrived")
        if len(arrived) != (0 if port == 53 else len(frames)):
            sys.exit("demo: the filter does not do what it should")

    say("A third program joins; the two that are there do not stop")
    xdpctl(tool, "load", veth.dev, ROOT / "build/tests/bpf/count.o")

    say("The root is swapped three times under traffic: the steps from X to Y")
    before = passed(maps / "xdp_stats_map")
    with net.Flood(veth) as flood:
        for _ in range(3):
            xdpctl(tool, "swap-dispatcher", veth.dev)
        sent = flood.stop()
    counted = passed(maps / "xdp_stats_map") - before
    print(f"{sent} packets sent meanwhile, {counted} went through the filter")
    if counted != sent:
        sys.exit(f"demo: {sent - counted} packets missed it")

    if tool.kind == "ext":
        say("What xdp-loader makes of it")
        print(tool.xdp_loader("status", veth.dev), end="")

    say("Everything is removed again")
    xdpctl(tool, "unload", veth.dev, "--all")
    xdpctl(tool, "status", veth.dev)
    left = [path for path in tool.pins() if path != "xdp"]
    program, _mode = oracle.xdp_prog_id(veth.ifindex)
    print(f"pins left: {len(left)}; XDP program on {veth.dev}: {program or 'none'}")
    if left or program:
        sys.exit("demo: something was left behind")


def main() -> None:
    kind: Kind = "fused" if "fused" in sys.argv else "ext"
    os.environ[KIND_VARIABLE] = kind
    with tempfile.TemporaryDirectory() as directory:
        bpffs = Path(directory) / "bpffs"
        bpffs.mkdir()
        subprocess.run(["mount", "-t", "bpf", "bpf", bpffs], check=True)
        try:
            tool = Tool(bpffs, kind)
            maps = bpffs / "maps"
            maps.mkdir()
            with net.Veth() as veth:
                if "--probe" in sys.argv:
                    tried = tool.process("load", veth.dev, ROOT / "build/tests/bpf/pass.o")
                    print(tried.err, end="")
                    sys.exit(1 if tried.code else 0)
                show(tool, veth, maps)
        finally:
            subprocess.run(["umount", "-l", bpffs], check=True)
    print("\ndemo: done")


if __name__ == "__main__":
    main()
