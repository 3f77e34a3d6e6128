"""Few descriptors, little memory, few rights, others' directories: true words, nothing changed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kernel import net, oracle
from tests.kernel.conftest import Objects, one_guest
from tests.kernel.tool import ROOT, Tool

pytestmark = one_guest

NOBODY = 65534


def shell(tool: Tool, limits: str, *words: object, prefix: str = "") -> tuple[int, str]:
    line = " ".join([prefix, sys.executable, "-m", "xdpctl", *map(str, words)])
    done = subprocess.run(
        ["bash", "-c", f"{limits}\n{line}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "LIBXDP_BPFFS": str(tool.bpffs)},
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize("limit", ["ulimit -n {}", "ulimit -v {}"])
def test_limits(tool: Tool, veth: net.Veth, objects: Objects, limit: str) -> None:
    """A load is made or it is not, and what is said is that."""
    tool("load", veth.dev, objects["count"])
    steps = (7, 9, 12, 14, 16, 20) if "-n" in limit else (20_000, 30_000, 40_000, 60_000, 90_000)
    for step in steps:
        before = tool.ids(veth.dev)
        code, err = shell(tool, limit.format(step), "load", veth.dev, objects["pass"])
        if "xdpctl: " not in err and code:
            continue  # the interpreter itself could not start
        assert "Traceback" not in err, (step, err)
        assert code in (0, 1, 9), (step, err)
        assert len(tool.ids(veth.dev)) == len(before) + (code == 0), (step, err)
        assert tool.status(veth.dev)["residue"] == []


def test_a_user_namespace(tool: Tool, veth: net.Veth, objects: Objects) -> None:
    """Its capabilities are all there, and count for nothing here."""
    prefix = "unshare --user --map-root-user"
    code, err = shell(tool, "", "load", veth.dev, objects["pass"], prefix=prefix)
    if "unshare" in err:
        pytest.skip(f"missing: user namespaces ({err.strip()})")
    assert code == 6, err
    assert "user namespace" in err
    assert "run xdpctl as root outside of it" in err


def test_a_directory_that_others_own(
    tool: Tool, veth: net.Veth, objects: Objects, tmp_path: Path
) -> None:
    """Who owns a directory above can put another one in the place of the bpffs."""
    theirs = tmp_path / "theirs"
    (theirs / "bpf").mkdir(parents=True)
    subprocess.run(["mount", "-t", "bpf", "bpf", theirs / "bpf"], check=True)
    try:
        for mode, owner in ((0o755, NOBODY), (0o777, 0)):
            theirs.chmod(mode)
            os.chown(theirs, owner, owner)
            result = tool.try_("--bpffs", theirs / "bpf", "load", veth.dev, objects["pass"])
            assert result.code == 9
            assert f"may write to {theirs}" in result.err
    finally:
        subprocess.run(["umount", theirs / "bpf"], check=True)
    assert oracle.xdp_prog_id(veth.ifindex)[0] == 0


def test_a_pin_of_somebody_else(tool: Tool, veth: net.Veth, objects: Objects) -> None:
    """A map that others have put where ours would be is not shared without a word."""
    tool("load", veth.dev, objects["pinned"])
    tool("unload", veth.dev, "--all")
    pins = [one for one in tool.bpffs.iterdir() if one.suffix != ".debug" and one.is_file()]
    assert pins
    try:
        for pin in pins:
            os.chown(pin, NOBODY, NOBODY)
        result = tool.try_("load", veth.dev, objects["pinned"])
        assert result.code == 7
        assert f"belongs to user {NOBODY}" in result.err
    finally:
        for pin in pins:
            pin.unlink()


def test_a_directory_that_is_no_bpffs(
    tool: Tool, veth: net.Veth, objects: Objects, tmp_path: Path
) -> None:
    """Root is not told to become root."""
    result = tool.try_("load", veth.dev, objects["pinned"], "-p", tmp_path)
    assert result.code == 9
    assert "it is not in a BPF file system" in result.err
    assert "as root" not in result.err


def test_a_chain_seen_from_elsewhere(
    tool: Tool, veth: net.Veth, objects: Objects, tmp_path: Path
) -> None:
    """Our own root is nobody else's, whatever bpffs one looks at."""
    tool("load", veth.dev, objects["pass"])
    (tmp_path / "bpf").mkdir()
    subprocess.run(["mount", "-t", "bpf", "bpf", tmp_path / "bpf"], check=True)
    try:
        result = tool.try_("--bpffs", tmp_path / "bpf", "load", veth.dev, objects["count"])
        assert result.code == 8
        assert "whose pins are not in this BPF file system" in result.err
        shown = tool.try_("--bpffs", tmp_path / "bpf", "status", veth.dev)
        assert "another tool" not in shown.err + shown.out
        assert "pins in another bpffs" in shown.err + shown.out
    finally:
        subprocess.run(["umount", tmp_path / "bpf"], check=True)


# --- what stands where pins are to be -----------------------------------------------------------


def test_a_bpffs_that_is_read_only(tool: Tool, veth: net.Veth, objects: Objects) -> None:
    """The kernel opens no pin there, not even to look: what runs is not told wrongly."""
    tool("load", veth.dev, objects["count"])
    words = ("status", "rollback", "unload -a", f"load {objects['pass']}", "doctor")
    subprocess.run(["mount", "-o", "remount,ro", tool.bpffs], check=True)
    try:
        for line in words:
            command, *rest = line.split()
            result = tool.try_(command, veth.dev, *rest)
            assert (result.code, "read-only" in result.err + result.out) == (9, True), line
            assert "nothing on it" not in result.out
    finally:
        subprocess.run(["mount", "-o", "remount,rw", tool.bpffs], check=True)
    assert len(tool.ids(veth.dev)) == 1


@pytest.mark.parametrize("what", ["pin", "link"])
def test_what_is_no_directory_in_the_place_of_all_pins(
    tool: Tool, veth: net.Veth, objects: Objects, what: str
) -> None:
    place = tool.bpffs / "xdp"
    if what == "pin":
        with oracle.map_create(2, 4, 8, 1, "stray") as fd:
            oracle.pin(fd, place)
    else:
        place.symlink_to("nowhere")
    for line in (f"load {objects['pass']}", "unload -a"):
        command, *rest = line.split()
        result = tool.try_(command, veth.dev, *rest)
        assert (result.code, f"{place} is no directory" in result.err) == (9, True), result.err
    assert tool.try_("clean").code == 9
    tool("status", veth.dev)
    place.unlink()


def test_directories_in_the_place_of_pins_and_records(
    tool: Tool, veth: net.Veth, objects: Objects
) -> None:
    """They are named, and harm nothing that is done without them."""
    tool("load", "--attach", "netlink", veth.dev, objects["count"])
    (home,) = (tool.bpffs / "xdp").glob("xdpctl-*")
    (home / "root_link").mkdir()
    tool("load", veth.dev, objects["pass"])
    tool("status", veth.dev)
    assert f"{home}/root_link" in tool("clean").out
    tool("unload", veth.dev, "--all")
    result = tool.try_("load", "--attach", "link", veth.dev, objects["pass"])
    assert (result.code, f"{home}/root_link" in result.err) == (9, True), result.err
    (home / "root_link").rmdir()
    tool("load", veth.dev, objects["pass"])
    last = max(int(one.name.split("-")[1]) for one in home.glob("was-*"))
    (home / f"was-{last + 1}").mkdir()
    result = tool.try_("load", veth.dev, objects["count"])
    assert (result.code, f"{home}/was-{last + 1}" in result.err) == (9, True), result.err
    assert len(tool.ids(veth.dev)) == 1
    (home / f"was-{last + 1}").rmdir()
    tool("unload", veth.dev, "--all")
