"""The examples do what they say, as their users run them, and beside each other."""

from __future__ import annotations

import importlib.util
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from click.testing import CliRunner

from tests.kernel import net, oracle
from tests.kernel.conftest import Objects, needs, one_guest
from tests.kernel.test_debian import list_ports
from tests.kernel.tool import ROOT, Tool

pytestmark = one_guest

EXAMPLES = ROOT / "examples"
FRAMES = net.udps(20)

SLOW, FAST = (["-DRATE=2", "-DBURST=10"], ["-DRATE=1000000", "-DBURST=100000"])
SOURCES = [
    *((EXAMPLES / f"{name}.c", list[str]()) for name in ("blocklist", "counter")),
    *((EXAMPLES / "ratelimit.c", flags) for flags in (SLOW, FAST)),
]
"""What is compiled in these tests, and how."""


class Script(subprocess.Popen[str]):
    """A script of the examples' that runs until it is interrupted."""

    def __init__(self, name: str, *words: str) -> None:
        command = [sys.executable, str(EXAMPLES / name), *words]
        super().__init__(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def begun(self) -> None:
        """Wait until it counts."""
        assert self.stdout is not None
        assert self.stdout.readline() == "counting\n", self.communicate()

    def interrupted(self) -> str:
        """End it as its user would; what it said since it began."""
        self.send_signal(signal.SIGINT)
        out, err = self.communicate(timeout=60)
        assert (self.returncode, err) == (0, "")
        return out


@contextmanager
def running(name: str, *words: str) -> Iterator[Script]:
    script = Script(name, *words)
    try:
        script.begun()
        yield script
    finally:
        script.kill()
        script.communicate()


def blocklist(*words: str) -> tuple[int, str]:
    """Run the block list's command line in this process; its exit code and what it said."""
    spec = importlib.util.spec_from_file_location("blocklist", EXAMPLES / "blocklist.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    result = CliRunner().invoke(module.cli, words, catch_exceptions=False)
    return result.exit_code, result.output


def from_(*sources: str) -> list[bytes]:
    """A frame from each source."""
    return [
        (net.ipv6 if ":" in source else net.udp)(number, src=source)
        for number, source in enumerate(sources)
    ]


def tagged(frame: bytes, *types: int) -> bytes:
    """A frame with VLAN tags of these types."""
    return frame[:12] + b"".join(struct.pack("!HH", one, 5) for one in types) + frame[12:]


@needs("link_target")
def test_the_counter(tool: Tool, veth: net.Veth, objects: Objects) -> None:
    """Before what drops, through a swap, and gone when it ends."""
    tool("load", veth.dev, objects["count_drop"])
    (dropper,) = tool.ids(veth.dev)
    with running("counter.py", veth.dev) as script:
        assert tool.chain(veth.ifindex)[1:] == [dropper]
        assert net.exchange(veth, FRAMES) == []
        tool("swap-dispatcher", veth.dev)
        assert net.exchange(veth, FRAMES) == []
        packets = 2 * len(FRAMES)
        size = 2 * sum(map(len, FRAMES))
        assert f"{packets} packets, {size} bytes in the end" in script.interrupted()
    assert oracle.packets(dropper) == packets
    assert tool.chain(veth.ifindex) == [dropper]


def test_the_counter_without_an_interface() -> None:
    """It says what is wrong, as a command does."""
    for words, said in ((["nosuch0"], "nosuch0"), ([], "usage"), (["lo", "lo"], "usage")):
        script = Script("counter.py", *words)
        out, err = script.communicate(timeout=60)
        assert (script.returncode, out, len(err.splitlines())) == (1, "", 1), err
        assert said in err


@needs("link_target")
def test_the_counter_s_program_is_unloaded(tool: Tool, veth: net.Veth) -> None:
    with running("counter.py", veth.dev) as script:
        tool("unload", veth.dev, "-n", "counter")
        out, err = script.communicate(timeout=60)
        assert (script.returncode, err) == (0, "")
        assert out.endswith("somebody took the program out\n")
    assert tool.chain(veth.ifindex) == []


def test_the_block_list(tool: Tool, veth: net.Veth, objects: Objects) -> None:
    """Addresses and networks of both families, behind VLAN tags, through a swap."""
    assert blocklist("list") == (1, f"Error: no map is pinned at {tool.bpffs}/blocked\n")
    tool("load", veth.dev, EXAMPLES / "blocklist.c", "-P", 10)
    tool("load", veth.dev, objects["count"])
    counter = tool.ids(veth.dev)[1]
    sources = ("192.0.2.7", "192.0.2.200", "198.51.100.1", "2001:db8:1::1", "2001:db9::1")
    frames = [*from_(*sources), net.arp(8), tagged(net.udp(9, src="192.0.2.7"), 0x88A8, 0x8100)]
    every = set(net.seqs(frames))

    def passing() -> set[int | None]:
        return set(net.seqs(net.exchange(veth, frames)))

    assert passing() == every
    assert blocklist("add", "192.0.2.0/25", "198.51.100.1", "2001:db8::/32") == (0, "")
    assert passing() == {1, 4, 8}
    tool("swap-dispatcher", veth.dev)
    assert blocklist("add", "192.0.2.0/25", "192.0.2.0/24") == (0, "")
    assert blocklist("del", "198.51.100.1/32") == (0, "")
    assert passing() == {2, 4, 8}
    code, listed = blocklist("list")
    # The longest network that fits is the one that counts.
    assert (code, set(listed.splitlines())) == (
        0,
        {"192.0.2.0/24 1", "192.0.2.0/25 4", "2001:db8::/32 2"},
    )
    assert oracle.packets(counter) == len(frames) + 3 + 3
    assert blocklist("del", "192.0.2.0/25", "10.0.0.0/8") == (
        1,
        "Error: 10.0.0.0/8 is not on the list\n",
    )
    assert blocklist("add", "192.0.2.1/24")[0] == 2
    tool("unload", veth.dev, "-a")
    assert blocklist("list")[1].splitlines() != []  # it outlives the program
    (tool.bpffs / "blocked").unlink()


@needs("atomics")
def test_the_rate_limiter(tool: Tool, veth: net.Veth) -> None:
    """A burst, then so many a second, for each source by itself; another rate without a gap."""
    source, burst, rate = EXAMPLES / "ratelimit.c", 10, 2
    tool("load", veth.dev, source, *SLOW)
    begun = time.monotonic()
    many = from_(*["10.9.0.2"] * 40)
    passed = net.exchange(veth, many)
    assert burst <= len(passed) <= burst + rate * (time.monotonic() - begun) + 1
    assert passed[:burst] == many[:burst]
    others = from_(*["10.9.0.3"] * 5, *["fd09::3"] * 5)
    assert net.exchange(veth, [*others, net.arp(99)]) == [*others, net.arp(99)]
    pause = 1.0
    time.sleep(pause)
    passed = net.exchange(veth, many)
    earned = rate * (time.monotonic() - begun) + 1
    assert rate * pause - 1 <= len(passed) <= earned
    tool("replace", veth.dev, "ratelimit", source, *FAST)
    assert net.exchange(veth, many) == many
    tool("unload", veth.dev, "-a")


@needs("atomics", "bcc", "link_target")
def test_all_of_them_beside_each_other(
    tool: Tool, veth: net.Veth, objects: Objects, debian: Path
) -> None:
    """BCC's counter, the block list, the limiter and Debian's filter: each sees what it should."""
    maps = tool.bpffs / "maps"
    maps.mkdir()
    tool("load", veth.dev, EXAMPLES / "blocklist.c", "-P", 10)
    tool("load", veth.dev, EXAMPLES / "ratelimit.c", "-P", 20, *FAST)
    tool("load", "-p", maps, veth.dev, debian / "xdpfilt_alw_all.o", "-P", 30)
    tool("load", veth.dev, objects["count"])
    ids = tool.ids(veth.dev)
    list_ports(maps, 53)
    assert blocklist("add", "192.0.2.0/24") == (0, "")
    frames = [
        *[net.udp(1), net.udp(2, src="192.0.2.1"), net.udp(3, dport=53), net.tcp(4)],
        *[net.icmp(5), net.ipv6(6), net.arp(7)],
    ]
    with running("protocols.py", veth.dev) as script:
        assert tool.chain(veth.ifindex)[1:] == ids
        for _ in range(2):
            assert net.seqs(net.exchange(veth, frames)) == [1, 4, 5, 6, 7]
            tool("swap-dispatcher", veth.dev)
        assert script.interrupted().splitlines() == [
            "protocol 1: 2 packets",
            "protocol 6: 2 packets",
            "protocol 17: 8 packets",
        ]
    assert oracle.packets(ids[3]) == 2 * 5
    assert blocklist("list") == (0, "192.0.2.0/24 2\n")
    tool("swap-dispatcher", veth.dev)
    assert tool.chain(veth.ifindex) == ids
    tool("unload", veth.dev, "-a")
    (tool.bpffs / "blocked").unlink()


def test_the_readme_names_every_example() -> None:
    text = (EXAMPLES / "README.md").read_text()
    files = {path.name for path in EXAMPLES.iterdir() if path.is_file()} - {"README.md"}
    assert {name for name in files if f"`{name}`" not in text} == set()
