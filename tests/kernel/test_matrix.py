"""Who may do what on whose root: xdpctl and both xdp-loaders, the distribution's and a newer one.

The newer one writes protocol 3 and is fetched by tests/peers. What libxdp's tools refuse there, and
how, is theirs; that nothing of the chain is lost by it is ours.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.kernel import net, oracle
from tests.kernel.conftest import Objects, kinds, one_guest
from tests.kernel.tool import Tool

pytestmark = one_guest

PEERS = Path(
    os.environ.get("XDPCTL_VM_CACHE") or "/var/cache/xdpctl-vm", "xdp-tools/bin/xdp-loader"
)
LOADERS = {"1.3": Path("/usr/sbin/xdp-loader"), "1.6": PEERS}
WRITES = {"1.3": 2, "1.6": 3}
BUSY, NOT_SUPPORTED = 240, 161  # as exit codes: -EBUSY and -EOPNOTSUPP in eight bits


class Theirs:
    """An xdp-loader."""

    def __init__(self, version: str, dev: str) -> None:
        if not LOADERS[version].exists():
            pytest.skip(f"missing: xdp-loader {version}")
        self.path, self.dev = LOADERS[version], dev

    def __call__(self, *words: object) -> tuple[int, str]:
        done = subprocess.run(
            [self.path, *map(str, words)], capture_output=True, text=True, check=False
        )
        return done.returncode, done.stdout

    def ids(self) -> list[int] | int:
        """The programs that it lists, or its exit code where it fails."""
        code, out = self("status", self.dev)
        lines = [line.split() for line in out.splitlines() if line.startswith(" =>")]
        return code or [int(words[3]) for words in lines]


@pytest.fixture(params=LOADERS)
def version(request: pytest.FixtureRequest) -> str:
    chosen: str = request.param
    return chosen


@kinds("ext")
def test_we_go_on_where_they_began(
    tool: Tool, veth: net.Veth, objects: Objects, version: str
) -> None:
    """Each reads, adds to and takes from what the other has made, whatever protocol it speaks."""
    dev, theirs = veth.dev, Theirs(version, veth.dev)
    assert theirs("load", dev, objects["count"], objects["config"])[0] == 0
    root = tool.status(dev)["root"]
    assert (root["owner"], root["protocol"]) == ("libxdp", WRITES[version])
    assert tool.ids(dev) == theirs.ids() == tool.chain(veth.ifindex)
    tool("clean")
    tool("clean", dev)
    assert tool.ids(dev) == theirs.ids() == tool.chain(veth.ifindex)
    tool("load", dev, objects["pass"])
    root = tool.status(dev)["root"]
    assert (root["owner"], root["protocol"]) == ("xdpctl", WRITES[version])
    ids = tool.ids(dev)
    assert len(ids) == 3
    assert theirs.ids() == ids
    assert theirs("load", dev, objects["percpu"])[0] == 0
    assert len(tool.ids(dev)) == 4
    assert theirs("unload", dev, "-i", ids[0])[0] == 0
    tool("unload", dev, "-i", ids[1])
    assert len(tool.ids(dev)) == 2
    assert tool.ids(dev) == theirs.ids() == tool.chain(veth.ifindex)
    assert theirs("clean", dev)[0] == 0
    assert len(tool.chain(veth.ifindex)) == 2
    assert theirs("unload", dev, "--all")[0] == 0
    tool("clean")
    assert tool.pins() == []


# By version and protocol: what it lists (a number: its exit code), and its exit codes of load and
# of unload -i.
ON_OURS = {
    ("1.3", 2): (True, 0, 0),
    ("1.3", 3): (NOT_SUPPORTED, BUSY, 1),
    ("1.6", 2): (True, BUSY, 1),
    ("1.6", 3): (True, 0, 0),
}


@kinds("ext")
@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("attach", ["netlink", "link"])
def test_they_go_on_where_we_began(
    tool: Tool, veth: net.Veth, objects: Objects, version: str, attach: str, protocol: int
) -> None:
    """What they can do to a root of ours; what they cannot leaves the chain as it was."""
    dev, theirs = veth.dev, Theirs(version, veth.dev)
    tool("load", "--attach", attach, "--protocol", protocol, dev, objects["count"], objects["pass"])
    ids = tool.ids(dev)
    lists, loads, unloads = ON_OURS[version, protocol]
    seen = theirs.ids()
    assert seen == (ids if lists is True else lists)
    cleaned = theirs("clean", dev)[0], theirs("clean")[0]
    assert tool.ids(dev) == tool.chain(veth.ifindex) == ids
    code = theirs("load", dev, objects["percpu"])[0]
    print(f"\n{version} on {attach}, protocol {protocol}: lists {seen}, cleans {cleaned}", end="")
    print(f", load {code}", end="")
    # A link is nobody else's to replace, and the kernel says so.
    assert code == (loads if attach == "netlink" else BUSY)
    now = tool.ids(dev)
    assert now == tool.chain(veth.ifindex)
    assert [one for one in now if one in ids] == ids
    code = theirs("unload", dev, "-i", ids[0])[0]
    print(f", unload {code}, chain {ids} {tool.chain(veth.ifindex)}")
    assert tool.ids(dev) == tool.chain(veth.ifindex)
    if attach == "netlink":
        assert code == unloads
        assert (ids[0] in tool.ids(dev)) == bool(unloads)
    assert ids[1] in tool.ids(dev)
    tool("unload", dev, "--all")
    tool("clean")
    assert tool.pins() == []


@pytest.mark.parametrize("attach", ["netlink", "link"])
def test_what_is_not_in_their_protocol_is_a_plain_program_to_them(
    tool: Tool, veth: net.Veth, objects: Objects, version: str, attach: str
) -> None:
    """A fused root, and a dispatcher of eleven: they list no members, and cannot add any."""
    dev, theirs = veth.dev, Theirs(version, veth.dev)
    more = [objects["pass"]] * (10 if tool.kind == "ext" else 1)
    tool("load", "--attach", attach, dev, objects["count"], *more)
    ids, name = tool.ids(dev), tool.status(dev)["root"]["name"]
    assert name == ("xdpctl_wide" if tool.kind == "ext" else "xdpctl_fused")
    assert theirs.ids() == []
    assert name in theirs("status", dev)[1]
    assert theirs("load", dev, objects["percpu"])[0] != 0
    assert theirs("unload", dev, "-i", ids[0])[0] != 0
    theirs("clean", dev)  # fails where its walk over all links meets one that others just make
    assert tool.ids(dev) == ids == tool.chain(veth.ifindex)
    assert oracle.xdp_prog_id(veth.ifindex)[0] == tool.status(dev)["root"]["id"]
