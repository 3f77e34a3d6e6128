"""What drivers refuse, in their own words and with a remedy that fits; and generic mode instead."""

from __future__ import annotations

import socket
import subprocess

import pytest

from tests.kernel import net, oracle
from tests.kernel.conftest import Objects
from tests.kernel.tool import Tool


def attached(ifindex: int) -> int:
    return oracle.xdp_prog_id(ifindex)[0]


@pytest.mark.parametrize("attach", ["link", "netlink"])
def test_the_mtu_that_counts_on_a_veth_is_the_peer_s(
    tool: Tool, objects: Objects, attach: str
) -> None:
    with net.Veth() as veth:
        net.ip("link", "set", veth.peer, "mtu", "9000")
        running = oracle.snapshot()
        refused = tool.try_("load", veth.dev, objects["pass"], "--attach", attach)
        assert refused.code == 7
        assert f"the MTU of {veth.peer}, the peer of {veth.dev}," in refused.err
        assert "the driver says: veth: " in refused.err
        assert f"ip link set dev {veth.peer} mtu 1500" in refused.err
        assert "-m skb" in refused.err
        assert attached(veth.ifindex) == 0
        assert not oracle.settle(running).added(running)
        # Each remedy works, and is what -m unspecified takes by itself.
        tool("load", "-m", "unspecified", veth.dev, objects["pass"], "--attach", attach)
        assert oracle.xdp_prog_id(veth.ifindex)[1] == "skb"
        tool("unload", "--all", veth.dev)
        net.ip("link", "set", veth.peer, "mtu", "1500")
        tool("load", "-m", "unspecified", veth.dev, objects["pass"], "--attach", attach)
        assert oracle.xdp_prog_id(veth.ifindex)[1] == "native"


def test_queues(tool: Tool, objects: Objects) -> None:
    """A peer with more transmit queues than there are receive queues here."""
    one, four = (f"numrxqueues {n} numtxqueues {n}" for n in (1, 4))
    words = f"link add queues0 {one} type veth peer name queues1 {four}"
    net.ip(*words.split())
    try:
        refused = tool.try_("load", "queues0", objects["pass"])
        assert refused.code == 7
        assert "XDP expects number of rx queues not less than peer tx queues" in refused.err
        assert "ethtool -L queues0" in refused.err
        assert attached(socket.if_nametoindex("queues0")) == 0
    finally:
        net.ip("link", "delete", "queues0")


def test_a_device_above_has_the_hook(tool: Tool, objects: Objects) -> None:
    """It is named, and nobody is said to keep changing the interface."""
    with net.Veth() as veth:
        for kind in ("macvlan", "vlan id 7"):
            made = subprocess.run(
                ["ip", "link", "add", "link", veth.dev, "name", "above0", "type", *kind.split()],
                check=False,
            )
            if made.returncode:
                continue
            tool("load", "-m", "skb", "above0", objects["pass"])
            refused = tool.try_("load", veth.dev, objects["pass"])
            assert refused.code == 8
            assert f"above0, above {veth.dev}, has an XDP program" in refused.err
            tool("unload", "--all", "above0")
            tool("load", veth.dev, objects["pass"])
            tool("unload", "--all", veth.dev)
            net.ip("link", "delete", "above0")
