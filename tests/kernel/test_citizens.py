"""What libxdp's world runs on an interface goes on there: AF_XDP, xdp-filter, xdpdump."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from tests.kernel import net, oracle, xsk
from tests.kernel.conftest import Objects, every_kernel, kinds
from tests.kernel.test_holders import until
from tests.kernel.tool import ROOT, Tool
from tests.kernel.xsk import Receiver
from tests.unit.samples import compiled


def command(*words: object, check: bool = True) -> str:
    """Run a program of xdp-tools; what it prints."""
    return subprocess.run(
        [str(word) for word in words], check=check, capture_output=True, text=True
    ).stdout


@pytest.mark.parametrize("swaps", [8, pytest.param(100, marks=pytest.mark.soak)])
def test_af_xdp_lives_on(
    tool: Tool, veth: net.Veth, objects: Objects, debian: Path, swaps: int
) -> None:
    """libxdp's own program for AF_XDP, between two others: the socket gets every frame.

    Its rings hold what comes in 16 seconds, however slowly they are emptied meanwhile.
    """
    dev = veth.dev
    tool("load", "-P", 1, dev, objects["count"])
    tool("load", "-P", 20, dev, debian / "xsk_def_xdp_prog.o")
    counter, program = tool.ids(dev)
    with Receiver(veth.ifindex, oracle.prog_map(program, "xsks_map")) as receiver:
        with net.Flood(veth, rate=xsk.SIZE / 16) as flood:
            for number in range(swaps):
                if number % 4 == 0:
                    tool("load", "-P", 90, dev, objects["pass"])
                elif number % 4 == 3:
                    tool("unload", dev, "-i", tool.ids(dev)[-1])
                else:
                    tool("swap-dispatcher", dev)
            sent = flood.stop()
        end = time.monotonic() + 15
        while receiver.count < sent and time.monotonic() < end:
            time.sleep(0.01)
        counted, received, dropped = oracle.packets(counter), receiver.count, receiver.dropped()
    print(
        f"\n{swaps} swaps, {sent} frames sent, {counted} counted before the socket, {received} "
        f"received by it, {dropped} had no room there"
    )
    assert (counted, received, dropped) == (sent, sent, 0)


# What the man page says of such applications beside a root that libxdp cannot join.

_SOCKETS = """
struct {
    int (*type)[17], (*key_size)[4], (*value_size)[4], (*max_entries)[4], (*pinning)[1];
} sockets SEC(".maps");
static long (*redirect)(void *, unsigned long, unsigned long) = (void *)51;
SEC("xdp") int to_sockets(struct xdp_md *ctx)
{
    return redirect(&sockets, ((unsigned int *)ctx)[4], 2);  // its receive queue
}
"""


@kinds("fused")
def test_a_socket_in_a_map_by_its_pin(
    tool: Tool, veth: net.Veth, objects: Objects, tmp_path: Path
) -> None:
    """The application knows the pin alone; the chain is changed while the socket is there."""
    path = compiled(tmp_path, _SOCKETS)
    tool("load", "-P", 60, "-p", tool.bpffs / "app", veth.dev, path)
    tool("load", "-P", 10, veth.dev, objects["count"])
    counter = tool.ids(veth.dev)[0]
    with Receiver(veth.ifindex, oracle.pinned_map(tool.bpffs / "app/sockets").id) as receiver:
        net.send(veth, net.udps(20))
        tool("swap-dispatcher", veth.dev)
        net.send(veth, net.udps(20))
        until(lambda: receiver.count == 40)
    assert oracle.packets(counter) == 40
    assert net.exchange(veth, net.udps(20)) == net.udps(20)  # nobody is there: they pass


@kinds("fused")
def test_an_application_of_libxdp_s_is_adopted(
    tool: Tool, veth: net.Veth, objects: Objects, debian: Path
) -> None:
    """Its program's map has a size of libxdp's; what libxdp does at its end harms nobody."""
    if not oracle.lacks("ext"):
        pytest.skip("missing: a kernel that refuses EXT: libxdp makes a dispatcher here")
    app = subprocess.Popen(
        [sys.executable, "tests/kernel/libxdp_app.py", veth.dev],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with app:
        assert app.stdin
        assert app.stdout
        assert app.stdout.readline() == "open\n"
        hint = tool.try_("load", veth.dev, objects["pass"]).err
        assert "adopt" in hint
        names = [name for name in ("xsk_def_xdp_prog.o", "xsk_def_xdp_prog_5.3.o") if name in hint]
        assert len(names) == 2
        results = [tool.try_("adopt", veth.dev, "--object", debian / name) for name in names]
        assert sorted(result.code for result in results) == [0, 2], results
        assert oracle.map(oracle.prog_map(tool.ids(veth.dev)[0], "xsks_map")).max_entries < 64
        tool("load", "-P", 10, veth.dev, objects["count"])
        chain = tool.ids(veth.dev)
        net.send(veth, net.udps(20))
        app.stdin.close()
    assert app.returncode == 0
    assert tool.ids(veth.dev) == chain
    assert net.exchange(veth, net.udps(20)) == net.udps(20)
    assert oracle.packets(chain[0]) == 40


@kinds("ext")
@every_kernel
def test_xdp_filter(tool: Tool, veth: net.Veth, objects: Objects) -> None:
    """Debian's xdp-filter joins our chain, filters before and after a swap, and leaves it."""
    dev = veth.dev
    tool("load", "--attach", "netlink", "-P", 90, dev, objects["count"])
    counter = tool.ids(dev)[0]
    command("xdp-filter", "load", dev, "-f", "udp", "-p", "allow")
    command("xdp-filter", "port", "-m", "dst", "-p", "udp", "7777")

    def passed(frames: list[bytes]) -> int:
        before = oracle.packets(counter)
        net.exchange(veth, frames)
        return oracle.packets(counter) - before

    bad = [net.udp(number, dport=7777) for number in range(5)]
    good = [net.udp(number, dport=7778) for number in range(7)]
    for swap in range(3):
        assert passed([*bad, *good]) == 7
        # Its exit code is that of an error, on a chain of libxdp's as well.
        assert f"{dev} (native mode)" in command("xdp-filter", "status", check=False)
        if swap < 2:
            tool("swap-dispatcher", dev)
    tool("load", dev, objects["pass"])
    assert passed([*bad, *good]) == 7
    command("xdp-filter", "unload", dev)
    assert passed([*bad, *good]) == 12
    assert counter in tool.ids(dev)
    tool("unload", dev, "--all")


def waits_for_events(process: int) -> bool:
    """Whether a process has done all that it was woken for: it sleeps in epoll_wait(2)."""
    where = Path(f"/proc/{process}/wchan").read_text()
    return "ep_poll" in where or "epoll" in where


@kinds("ext")
@pytest.mark.parametrize("attach", ["link", "netlink"])
def test_xdpdump(tool: Tool, veth: net.Veth, objects: Objects, tmp_path: Path, attach: str) -> None:
    """xdpdump sees the packets of a chain of ours, before and after a swap."""
    dev = veth.dev
    tool("load", "--attach", attach, dev, objects["count"], objects["pass"])
    for swap in range(2):
        capture = tmp_path / f"{swap}.pcap"
        words = ["xdpdump", "-i", dev, "-p", "all", "-w", str(capture), "--perf-wakeup", "1"]
        with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as dump:
            assert dump.stderr
            said = ""
            try:
                while "listening on" not in said:
                    line = dump.stderr.readline()
                    assert line, said
                    said += line
                until(partial(waits_for_events, dump.pid))
                net.exchange(veth, net.udps(9))
                until(partial(waits_for_events, dump.pid))
                dump.send_signal(signal.SIGINT)
                said += dump.communicate(timeout=60)[1]
            finally:
                dump.kill()
        ids = tool.ids(dev)
        assert all(f"ID {one} " in said for one in ids), said
        # Each frame once at the entry of the root and of each program.
        assert "27 packets captured" in said, said
        tool("swap-dispatcher", dev)
