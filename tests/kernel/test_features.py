"""xdpctl features: what the kernel's netdev family tells, against the oracle of ip and ethtool."""

from __future__ import annotations

import subprocess

import pytest

from tests.kernel import net
from tests.kernel.conftest import every_kernel, kinds
from tests.kernel.test_matrix import PEERS
from tests.kernel.tool import Tool
from xdpctl.cli import xdp_loader

pytestmark = [kinds("fused"), every_kernel]  # no root is involved: one run of each


def has_family() -> bool:
    """Whether /proc knows a kernel that has the family: told by its own list, not by ours."""
    done = subprocess.run(["genl", "ctrl", "list"], capture_output=True, text=True, check=False)
    return "Name: netdev\n" in done.stdout


@pytest.fixture
def family(tool: Tool) -> None:
    if not has_family():
        pytest.skip("missing: the netdev family of generic netlink")


@pytest.fixture
def no_family(tool: Tool) -> None:
    if has_family():
        pytest.skip("missing: a kernel without the netdev family")


def test_a_veth_has_native_xdp(tool: Tool, veth: net.Veth, family: None) -> None:
    lines = tool("features", veth.dev).out.splitlines()
    assert [line.split(":")[0].removeprefix("NETDEV_XDP_ACT_") for line in lines[:7]] == [
        "BASIC",
        "REDIRECT",
        "NDO_XMIT",
        "XSK_ZEROCOPY",
        "HW_OFFLOAD",
        "RX_SG",
        "NDO_XMIT_SG",
    ]
    answers = dict(line.split(":\t", 1) for line in lines)
    assert answers["NETDEV_XDP_ACT_BASIC"].strip() == "yes"
    assert answers["NETDEV_XDP_ACT_HW_OFFLOAD"].strip() == "no"


def test_the_real_xdp_loader_says_the_same(
    tool: Tool, veth: net.Veth, family: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """Under its name nothing but its lines is said, each to the letter."""
    if not PEERS.exists():
        pytest.skip("missing: xdp-loader 1.6")
    for dev in (veth.dev, "lo"):
        said = subprocess.run([PEERS, "features", dev], capture_output=True, text=True, check=True)
        assert xdp_loader.run(["features", dev]) == 0
        assert capsys.readouterr().out == said.stdout
        lines = said.stdout.splitlines()
        assert len(lines) == 7
        assert tool("features", dev).out.splitlines()[:7] == lines


def test_every_interface_and_json(tool: Tool, veth: net.Veth, family: None) -> None:
    document = tool("features", "--json").json
    by_name = {one["interface"]: one for one in document["interfaces"]}
    assert by_name.keys() >= {"lo", veth.dev, veth.peer}
    assert by_name["lo"]["xdp_features"] == []
    assert "NETDEV_XDP_ACT_BASIC" in by_name[veth.dev]["xdp_features"]
    assert by_name[veth.dev]["ifindex"] == veth.ifindex
    names = {line.split()[0] for line in tool("features").out.splitlines()}
    assert names == set(by_name)


def test_another_namespace(tool: Tool, family: None) -> None:
    with net.NetNs() as there:
        # The process stays in the namespace that it entered.
        result = tool.process("--netns", there.name, "features", "--json")
        assert [one["interface"] for one in result.json["interfaces"]] == ["lo"]


def test_no_rights_are_needed(tool: Tool, family: None) -> None:
    drop = ("setpriv", "--bounding-set=-all", "--inh-caps=-all", "--reuid=65534", "--clear-groups")
    result = tool.process("features", "lo", prefix=drop)
    assert (result.code, result.err) == (0, "")


def test_a_kernel_that_does_not_tell(tool: Tool, no_family: None) -> None:
    for words in (["lo"], []):
        result = tool.try_("features", *words)
        assert (result.code, result.out) == (7, "")
        assert "6.3" in result.err
        assert result.err.splitlines()[-1].startswith("  do: ")
    assert tool.try_("features", "--json").json["error"]["exit_code"] == 7


def test_no_such_interface(tool: Tool) -> None:
    assert tool.try_("features", "nosuch0").code == 3
