"""Names that others gave: bytes to the kernel, printable to people, Unicode in JSON."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel import net, oracle
from tests.kernel.conftest import Objects, kinds, one_guest
from tests.kernel.tool import ROOT, Tool
from xdpctl.host.holders import holders

pytestmark = [one_guest, kinds("fused")]  # what is printed does not depend on the kind of root

NAMES = [
    b"caf\xe9",
    "жук".encode(),
    "жукжукж".encode() + b"\xd0",  # cut within a letter, at 15 bytes
    b"e\x1b[31m",
    "a\u202eb".encode(),
    b"a\nxdpctl: b",
]


def called(name: bytes) -> Iterator[None]:
    """This process under a name, as ps shows it."""
    before = Path("/proc/self/comm").read_bytes().strip()
    Path("/proc/self/comm").write_bytes(name)
    yield
    Path("/proc/self/comm").write_bytes(before)


def harmless(data: bytes) -> str:
    """Output that no terminal obeys, and that is text."""
    text = data.decode()
    assert all(one.isprintable() or one in "\n\t" for one in text), text
    assert "Traceback" not in text
    return text


def xdpctl(tool: Tool, *words: str | bytes) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "xdpctl", "--bpffs", str(tool.bpffs), *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, check=False)


@pytest.mark.parametrize("name", NAMES)
def test_names_of_processes(name: bytes) -> None:
    with oracle.xdp_load(oracle.returning(oracle.XDP_PASS), name="theirs") as program:
        number = oracle.prog(program).id
        for _called in called(name):
            (found,) = holders([("prog_id", number)])[("prog_id", number)]
            assert os.fsencode(found.name) == name


@pytest.mark.parametrize("name", NAMES[:-1])
def test_names_of_interfaces_and_files(
    tool: Tool, objects: Objects, tmp_path: Path, name: bytes
) -> None:
    """What is done with them is done, and said harmlessly."""
    file = os.fsencode(tmp_path) + b"/" + name + b".o"
    shutil.copy(os.fsencode(objects["pass"]), file)
    add = [b"ip", b"link", b"add", name, b"type", b"veth", b"peer", b"name", b"other"]
    subprocess.run(add, check=True)
    lines: list[tuple[int, list[str | bytes]]] = [
        (0, ["load", "-m", "skb", name, file]),
        (0, ["status", name]),
        (0, ["status", "--json", name]),
        (0, ["show", name]),
        (0, ["-v", "swap-dispatcher", name]),
        (3, ["unload", name, "-n", name]),
        (3, ["load", name, file, "-n", name]),
        (3, ["load", name, file + b".missing"]),
        (0, ["unload", name, "--all"]),
    ]
    try:
        for code, words in lines:
            done = xdpctl(tool, *words)
            said = harmless(done.stdout) + harmless(done.stderr)
            assert done.returncode == code, said
            if "--json" in words:
                (one,) = json.loads(done.stdout)["interfaces"]
                one["interface"].encode()
    finally:
        subprocess.run([b"ip", b"link", b"del", name], check=True)


def test_a_line_is_one_line(tool: Tool, veth: net.Veth, objects: Objects, tmp_path: Path) -> None:
    """A name with a newline writes no line of its own."""
    forged = str(tmp_path / "a\nxdpctl: v0: loaded all.o")
    shutil.copy(objects["pass"], forged)
    for words in (["load", veth.dev, forged + "x"], ["load", "a\nxdpctl: b", forged]):
        done = xdpctl(tool, *words)
        assert done.returncode == 3
        lines = harmless(done.stderr).splitlines()
        assert [line for line in lines[1:] if not line.startswith("  ")] == []
