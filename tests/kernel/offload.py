"""A program on a card: netdevsim's, whose driver offloads as one of a real card does.

tests/offload runs this with the module's path in XDPCTL_NETDEVSIM; make test does not.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel import net, oracle
from tests.kernel.conftest import Objects, kinds
from tests.kernel.test_dropin import ours, theirs, without_ids
from tests.kernel.tool import Tool
from xdpctl.host.interfaces import Interface

pytestmark = kinds("fused")
BUS, DEBUG = Path("/sys/bus/netdevsim"), Path("/sys/kernel/debug")
DEVICE = "netdevsim8"


@pytest.fixture(scope="session")
def driver() -> None:
    module = os.environ["XDPCTL_NETDEVSIM"]
    needed = subprocess.check_output(["modinfo", "-F", "depends", module], text=True).strip()
    for name in filter(None, needed.split(",")):
        subprocess.run(["modprobe", name], check=True)
    subprocess.run(["insmod", module], check=True)
    if not (DEBUG / "netdevsim").exists():
        oracle.mount("debugfs", DEBUG, "")


@pytest.fixture
def card(driver: None, clean_kernel: None) -> Iterator[Interface]:
    (BUS / "new_device").write_text("8 1")
    directory = BUS / "devices" / DEVICE / "net"
    end = time.monotonic() + 20
    while not [*directory.glob("*")] and time.monotonic() < end:
        time.sleep(0.05)
    (path,) = directory.glob("*")
    yield Interface.named(path.name)
    remove()


def remove() -> None:
    if (BUS / "devices" / DEVICE).exists():
        (BUS / "del_device").write_text("8")


def on_card(count: int) -> bool:
    """Whether the driver comes to have so many programs: it lets go of one a little later."""
    end = time.monotonic() + 20
    programs = DEBUG / "netdevsim" / DEVICE / "bpf_bound_progs"
    while len([*programs.iterdir()]) != count and time.monotonic() < end:
        time.sleep(0.05)
    return len([*programs.iterdir()]) == count


@pytest.mark.parametrize("attach", ["link", "netlink"])
@pytest.mark.parametrize("name", ["pass", "count"])
def test_one_program_on_the_card(
    tool: Tool, card: Interface, objects: Objects, attach: str, name: str
) -> None:
    """Told as that, with its maps there, too; nothing comes beside it, and nothing is left."""
    dev = card.name
    told = tool("load", "-m", "hw", "--attach", attach, dev, objects[name]).out
    assert f"{name} is offloaded to the card, where it runs alone, without a dispatcher" in told
    root = tool.status(dev)["root"]
    assert (root["mode"], root["kind"], root["owner"], root["attach"]) == (
        *("hw", "bare", "xdpctl"),
        attach,
    )
    assert oracle.xdp_prog_id(card.ifindex) == (root["id"], "hw")
    assert on_card(1)
    assert "offloaded to the card" in tool("status", dev).err
    before = oracle.snapshot(tool.bpffs)
    for words, code in (
        (["load", "-m", "hw", dev, objects["drop"]], 7),
        (["load", dev, objects["drop"]], 7),
        (["load", "-m", "skb", dev, objects["drop"]], 7),
        (["load", "-m", "hw", dev, objects["drop"], objects["pass"]], 2),
        (["replace", dev, name, objects["drop"]], 7),
        (["set", dev, "--on-end", "drop"], 7),
        (["swap-dispatcher", dev], 7),
        (["adopt", dev, "--object", objects[name]], 7),
    ):
        result = tool.try_(*words)
        assert result.code == code, (words, result.err)
    assert not oracle.settle(before).added(before)
    assert tool("clean").out == ""
    tool("unload", dev, "-i", root["id"])
    assert oracle.xdp_prog_id(card.ifindex)[0] == 0
    assert (on_card(0), tool.pins()) == (True, [])


def test_it_goes_back(tool: Tool, card: Interface, objects: Objects) -> None:
    """A load that is not confirmed, and an unload that keeps it."""
    load = ["load", "-m", "hw", card.name, objects["pass"]]
    tool(*load, "--confirm-within", "1s")
    end = time.monotonic() + 20
    while oracle.xdp_prog_id(card.ifindex)[0] and time.monotonic() < end:
        time.sleep(0.1)
    assert oracle.xdp_prog_id(card.ifindex)[0] == 0
    tool(*load)
    running = oracle.xdp_prog_id(card.ifindex)
    tool("unload", card.name, "-a", "--keep")
    tool("rollback", card.name)
    assert oracle.xdp_prog_id(card.ifindex) == running
    tool("unload", card.name, "-a")
    assert tool.pins() == []


def test_what_the_card_refuses(
    tool: Tool, veth: net.Veth, card: Interface, objects: Objects
) -> None:
    """Of the card's verifier, of its driver, of one that does not offload; nothing is left."""
    (tool.bpffs / "xdp").mkdir(mode=0o700)
    before = oracle.snapshot(tool.bpffs)
    accepts = DEBUG / "netdevsim" / DEVICE / "ports/0/bpf_xdpoffload_accept"
    load = ["load", "-m", "hw"]
    for words, code, said in (
        ([card.name, objects["refuse"]], 5, "invalid access to packet"),
        ([card.name, objects["frags"]], 7, "cannot be offloaded"),
        ([card.name, objects["percpu"]], 7, "cannot be offloaded"),
        ([veth.dev, objects["pass"]], 7, "cannot be offloaded"),
    ):
        result = tool.try_(*load, *words)
        assert (result.code, said in result.err) == (code, True), (words, result)
    accepts.write_text("N")
    result = tool.try_(*load, card.name, objects["pass"])
    assert (result.code, "in hw mode" in result.err) == (7, True), result
    accepts.write_text("Y")
    assert not oracle.settle(before).added(before)
    assert (on_card(0), tool.pins()) == (True, [])


def test_an_offload_beside_a_chain(tool: Tool, card: Interface, objects: Objects) -> None:
    """The kernel would take both; what packets meet then is for a chain to say."""
    tool("load", card.name, objects["pass"])
    result = tool.try_("load", "-m", "hw", card.name, objects["drop"])
    assert (result.code, "runs a chain" in result.err) == (7, True)
    tool("unload", card.name, "-a")


def test_a_card_that_goes(tool: Tool, card: Interface, objects: Objects) -> None:
    """With its program; `clean` removes what was kept of it."""
    tool("load", "-m", "hw", card.name, objects["pass"])
    remove()
    tool("clean")
    assert tool.pins() == []


def test_the_same_codes_and_rows_as_xdp_loader(
    tool: Tool, card: Interface, objects: Objects
) -> None:
    found = []
    path = str(objects["pass"])
    for run in (theirs, ours):
        codes, rows = [], []
        for words in (
            ["load", "-m", "hw", card.name, path],
            ["status", card.name],
            ["load", "-m", "hw", card.name, path],
            ["load", "-m", "hw", card.name, path, path],
            ["unload", card.name, "-a"],
            ["status", card.name],
        ):
            result = run(*words)
            codes.append(result.code)
            rows += without_ids(result.out) if "status" in words else []
        found.append((codes, rows))
    print(found)
    assert found[0] == found[1]
