"""xdpctl doctor on a real kernel: its verdicts are those of the oracle, and it leaves nothing."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.kernel import net, oracle
from tests.kernel.conftest import kinds
from tests.kernel.tool import Tool

pytestmark = kinds("fused")  # what can be done is not asked of one kind of root: one run of each


def checks(document: dict[str, Any], interface: str | None = None) -> dict[str, Any]:
    """The checks of the machine, or of an interface, by name."""
    return {one["name"]: one for one in document["checks"] if one["interface"] == interface}


def diagnosed(tool: Tool, *words: object) -> dict[str, Any]:
    return tool.try_("doctor", *words, "--json").json


def test_a_chain_can_be_run_here(tool: Tool, veth: net.Veth) -> None:
    result = tool("doctor", veth.dev, "--json")
    assert result.err == ""
    document = result.json
    assert document["works"] is True
    assert document["exit_code"] == 0
    found = checks(document)
    for name in ("rights", "libbpf", "xdp", "fused", "link", "netlink", "generic", "bpffs"):
        assert found[name]["state"] == "ok", found[name]
    assert {one["interface"] for one in document["checks"]} == {None, veth.dev}


def test_it_says_of_the_kernel_what_the_oracle_says(tool: Tool) -> None:
    document = diagnosed(tool, "lo")
    found = checks(document)
    for check, capability in (("ext", "ext"), ("frags", "frags"), ("xdp", "xdp_link")):
        assert (found[check]["state"] == "ok") == (not oracle.lacks(capability)), found[check]
    assert document["kind"] == ("fused" if oracle.lacks("ext") else "ext")
    assert (found["btf"]["state"] == "ok") == Path("/sys/kernel/btf/vmlinux").exists()
    if oracle.lacks("ext"):
        assert "EPERM" in found["ext"]["found"]
        assert "fused" in found["ext"]["consequence"]
    else:
        assert found["policy"]["state"] == "ok"


def test_it_leaves_nothing_behind(
    tool: Tool, veth: net.Veth, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Programs, links and maps: the fixture clean_kernel looks for those."""
    # A cache of its own: others fill the one that is there at the same time.
    shutil.copytree(os.environ["XDPCTL_CACHE"], tmp_path / "cache")
    monkeypatch.setenv("XDPCTL_CACHE", str(tmp_path / "cache"))
    tool("doctor")  # the cache of dispatchers, which is there to stay
    cache = sorted(os.listdir(tmp_path / "cache"))
    descriptors = sorted(os.listdir("/proc/self/fd"))
    here = os.stat("/proc/thread-self/ns/net").st_ino
    entries = sorted(tool.bpffs.iterdir())
    interfaces = socket.if_nameindex()
    out = tool("doctor").out
    assert out.splitlines()[-1].startswith("a chain can be run here")
    assert sorted(os.listdir("/proc/self/fd")) == descriptors
    assert os.stat("/proc/thread-self/ns/net").st_ino == here
    assert socket.if_nameindex() == interfaces
    assert sorted(os.listdir(tmp_path / "cache")) == cache
    assert sorted(tool.bpffs.iterdir()) == entries
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_the_user_s_interfaces_are_not_touched(
    tool: Tool, veth: net.Veth, objects: dict[str, Path]
) -> None:
    tool("load", veth.dev, objects["count"])
    root = oracle.xdp_prog_id(veth.ifindex)
    chain = tool.chain(veth.ifindex)
    hook = checks(diagnosed(tool, veth.dev), veth.dev)["hook"]
    assert hook["state"] == "ok"
    assert "a chain of xdpctl's" in hook["found"]
    assert str(root[0]) in hook["found"]
    assert oracle.xdp_prog_id(veth.ifindex) == root
    assert tool.chain(veth.ifindex) == chain
    tool("unload", veth.dev, "--all")


def test_a_foreign_program_is_named(tool: Tool, veth: net.Veth) -> None:
    program = oracle.xdp_load(oracle.returning(oracle.XDP_PASS), name="theirs")
    link = oracle.xdp_attach(program, veth.ifindex)
    number = oracle.prog(program).id
    for words, code, state in ((("doctor", veth.dev), 8, "failed"), (("doctor",), 0, "warning")):
        result = tool.try_(*words, "--json")
        assert result.code == code
        hook = checks(result.json, veth.dev)["hook"]
        assert hook["state"] == state
        assert f"theirs (id {number})" in hook["found"]
        assert f"process {os.getpid()} " in hook["found"]
        assert hook["remedy"]
    assert tool.try_("load", veth.dev, "/dev/null").code != 0
    assert oracle.xdp_prog_id(veth.ifindex)[0] == number
    link.close()
    program.close()


def test_driver_queues_and_mtu(tool: Tool) -> None:
    with net.Veth(mtu=9000, queues=2) as pair:
        found = checks(diagnosed(tool, pair.dev), pair.dev)
        assert "driver veth, 2 receive and 2 transmit queues" in found["native"]["found"]
        assert found["native"]["state"] == "ok"
        assert found["mtu"]["state"] == "warning"
        assert found["mtu"]["found"].startswith("9000 bytes")
        assert found["mtu"]["remedy"]


def test_a_bpffs_that_is_not_there(tool: Tool, tmp_path: Path) -> None:
    result = tool.try_("--bpffs", tmp_path, "doctor", "lo", "--json")
    assert result.code == 9
    assert result.json["works"] is False
    assert "mount -t bpf" in checks(result.json)["bpffs"]["remedy"]
    assert list(tmp_path.glob("xdpctl*")) == []


def test_a_bpffs_that_takes_no_pins(tool: Tool) -> None:
    subprocess.run(["mount", "-o", "remount,ro", tool.bpffs], check=True)
    assert tool.try_("doctor", "lo").code == 9
    subprocess.run(["mount", "-o", "remount,rw", tool.bpffs], check=True)
    tool.bpffs.chmod(0o777)
    assert tool.try_("doctor", "lo").code == 9


def test_without_rights(tool: Tool) -> None:
    drop = ("setpriv", "--bounding-set=-bpf,-perfmon", "--inh-caps=-all")
    result = tool.process("doctor", "lo", "--json", prefix=drop)
    assert (result.code, result.err) == (6, "")
    found = checks(result.json)
    assert "CAP_BPF" in found["rights"]["found"]
    assert found["ext"]["found"] == "not tried"


def test_a_machine_without_clang_and_without_a_cache(tool: Tool, tmp_path: Path) -> None:
    hidden = ("/usr/bin/env", f"PATH={tmp_path / 'none'}", f"XDPCTL_CACHE={tmp_path / 'cache'}")
    result = tool.process("doctor", "lo", "--json", prefix=hidden)
    found = checks(result.json)
    assert result.code == 0, result.out
    assert found["clang"]["state"] == "warning"
    assert "apt install clang" in found["clang"]["remedy"]


def test_no_such_interface(tool: Tool) -> None:
    assert tool.try_("doctor", "nosuch0").code == 3


def test_another_namespace(tool: Tool) -> None:
    with net.NetNs() as there:
        net.ip("link", "add", "inside0", "type", "veth", "peer", "inside1", netns=there.name)
        document = tool.process("--netns", there.name, "doctor", "inside0", "--json").json
        assert "driver veth" in checks(document, "inside0")["native"]["found"]
        assert document["exit_code"] == 0
