"""No change ends with 0 unless its chain outlives the command."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel import net, oracle
from tests.kernel.conftest import Objects, kinds, one_guest
from tests.kernel.tool import ROOT, Tool
from tests.unit.docs.pages import read

pytestmark = [one_guest, kinds("fused")]  # mounts know no root

ALONE = ["unshare", "--mount", "--propagation", "private"]
MOUNTS = ["env", "LIBXDP_BPFFS_AUTOMOUNT=1"]
XDPCTL = [sys.executable, "-m", "xdpctl"]


def run(*words: object) -> tuple[int, str]:
    done = subprocess.run(
        [str(word) for word in words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stderr


def shell(text: str, *before: str) -> tuple[int, str]:
    return run(*before, "sh", "-c", text)


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    """A directory without a bpffs."""
    (tmp_path / "empty").mkdir()
    return tmp_path / "empty"


@pytest.fixture
def there(tool: Tool) -> Iterator[net.NetNs]:
    space = net.NetNs()
    with space.entered():
        veth = net.Veth(name="x0")
    yield space
    with space.entered():
        veth.delete()
    space.delete()


def refused(code: int, err: str, hint: str = "--netns NAME") -> None:
    assert (code, "Traceback" in err) == (9, False), err
    assert "would be gone when this command ends" in err
    assert hint in err


def test_a_mount_of_the_commands_own(veth: net.Veth, objects: Objects, empty: Path) -> None:
    """However it comes to be alone with it: nothing is changed."""
    load = ["--bpffs", str(empty), "load", veth.dev, str(objects["pass"])]
    line = " ".join([*MOUNTS, *XDPCTL, *load])
    for before in (
        ALONE,
        [*ALONE, "timeout", "60"],
        [*ALONE, "--pid", "--fork", "--mount-proc"],
    ):
        refused(*run(*before, *MOUNTS, *XDPCTL, *load))
    refused(*shell(f"set -e; {line}", *ALONE))
    refused(*shell(f"mount -t bpf bpf {empty}; {line}", *ALONE))
    _code, err = shell(f"{line} | cat", *ALONE)
    refused(9, err)
    assert oracle.xdp_prog_id(veth.ifindex)[0] == 0
    assert not os.listdir(empty)


def test_ip_netns_exec(tool: Tool, there: net.NetNs, objects: Objects, empty: Path) -> None:
    """It hides the bpffs. What is mounted then goes with it, what was mounted before does not."""
    inside = ["ip", "netns", "exec", there.name]
    words = ["load", "x0", str(objects["pass"])]
    hint = f"xdpctl --netns {there.name} "
    refused(*run(*inside, *MOUNTS, *XDPCTL, "--bpffs", empty, *words), hint)
    # The hint for a missing one does not recommend what would be refused.
    code, err = run(*inside, *XDPCTL, "--bpffs", empty, *words)
    assert code == 9
    assert hint in err
    assert "AUTOMOUNT" not in err
    for change in (words, ["swap-dispatcher", "x0"], ["unload", "x0", "--all"]):
        code, err = run(*inside, *XDPCTL, "--bpffs", tool.bpffs, *change)
        assert code == 0, err
        with there.entered():
            running, _mode = oracle.xdp_prog_id(socket.if_nametoindex("x0"))
        assert bool(running) == (change[0] != "unload")


def test_a_shell_that_lives_on(veth: net.Veth, objects: Objects, empty: Path) -> None:
    """It has the mount, and with it the chain."""
    xdpctl = " ".join([*XDPCTL, "--bpffs", str(empty)])
    code, err = shell(
        f"mount -t bpf bpf {empty} && {xdpctl} load {veth.dev} {objects['pass']}\n"
        f"{xdpctl} status {veth.dev} | grep -w pass && {xdpctl} unload {veth.dev} --all",
        *ALONE,
    )
    assert code == 0, err


def test_a_container(tool: Tool, veth: net.Veth, objects: Objects) -> None:
    """With what docs/install.md gives it, and with the host's processes one capability more."""
    (words,) = re.findall(r"^podman run .*?^```", read("docs/install.md"), re.DOTALL | re.MULTILINE)
    given = ",".join(f"+{name.lower()}" for name in re.findall(r"--cap-add (\w+)", words))
    load = ["load", veth.dev, str(objects["pass"])]

    def inside(rights: str, *namespaces: str) -> list[str]:
        limits = ["setpriv", f"--bounding-set=-all,{rights}", "--inh-caps=-all", "--"]
        return [*ALONE, *namespaces, *limits, *XDPCTL, "--bpffs", str(tool.bpffs)]

    time.sleep(0.1)  # a container is younger than the host's mounts, by the tick of a clock
    alone = inside(given, "--pid", "--fork", "--mount-proc")
    for xdpctl in (alone, inside(f"{given},+sys_ptrace")):
        for change in (load, ["swap-dispatcher", veth.dev], ["unload", veth.dev, "--all"]):
            code, err = run(*xdpctl, *change)
            assert code == 0, err
    refused(*run(*inside(given), *load), hint="give the command CAP_SYS_PTRACE")


def test_a_namespace_that_a_descriptor_keeps(veth: net.Veth, objects: Objects, empty: Path) -> None:
    with subprocess.Popen([*ALONE, "sleep", "60"]) as process:
        while os.readlink(f"/proc/{process.pid}/ns/mnt") == os.readlink("/proc/self/ns/mnt"):
            pass
        fd = os.open(f"/proc/{process.pid}/ns/mnt", os.O_RDONLY)
        process.send_signal(signal.SIGKILL)
    inside = ["nsenter", f"--mount=/proc/{os.getpid()}/fd/{fd}", *MOUNTS]
    try:
        for words in (["load", veth.dev, str(objects["pass"])], ["unload", veth.dev, "--all"]):
            done = subprocess.run(
                [*inside, *XDPCTL, "--bpffs", str(empty), *words],
                cwd=ROOT,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr
    finally:
        os.close(fd)


def test_a_network_namespace_of_the_commands_own(tool: Tool, objects: Objects) -> None:
    """Its interfaces go with it."""
    code, err = run(
        *("unshare", "--net", *XDPCTL, "--bpffs", tool.bpffs, "load", "lo", objects["pass"])
    )
    assert code == 1
    assert "the interfaces go with it" in err
    assert "--netns NAME" in err


def test_a_directory_for_maps(tool: Tool, veth: net.Veth, objects: Objects, empty: Path) -> None:
    """Pins of maps that go with the command, beside a chain that stays."""
    line = " ".join([*XDPCTL, "--bpffs", str(tool.bpffs), "load", veth.dev, str(objects["pinned"])])
    refused(*shell(f"mount -t bpf bpf {empty}; {line} -p {empty}/maps", *ALONE))
    assert oracle.xdp_prog_id(veth.ifindex)[0] == 0
