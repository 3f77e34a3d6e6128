"""Programs of others that are called like roots: nothing is believed because of a name."""

from __future__ import annotations

import pytest

from tests.kernel import net, oracle
from tests.kernel.conftest import Objects
from tests.kernel.oracle import insn, mov
from tests.kernel.tool import Tool

# Type, key size, value size, entries, flags: those of an array of one value, and all others.
MAPS = {
    "read-write array": (2, 4, 124, 1, 0),
    "long array": (2, 4, 124, 3, 0x80),
    "record of zeros": (2, 4, 124, 1, 0x80),
    "record of one byte": (2, 4, 1, 1, 0x80),
    "large record": (2, 4, 1 << 20, 1, 0x80),
    "hash": (1, 4, 124, 1, 0x80),
    "hash of long keys": (1, 400, 124, 1, 0x80),
    "per-CPU array": (6, 4, 2048, 1, 0x80),
    "per-CPU hash": (5, 4, 2048, 1, 0x80),
    "program array": (3, 4, 4, 1, 0),
    "LRU hash": (9, 4, 124, 1, 0),
    "device map": (14, 4, 4, 1, 0),
}


@pytest.mark.parametrize("name", ["xdp_dispatcher", "xdpctl_wide", "xdpctl_fused"])
def test_a_name_proves_nothing(tool: Tool, veth: net.Veth, objects: Objects, name: str) -> None:
    """Status ends well and calls it another tool's; a load is refused as by any of those."""
    types = oracle.btf_load(oracle.btf_build([name]))
    for called, shape in MAPS.items():
        for btf in (0, types):
            program = named(name, shape, btf)
            with oracle.xdp_attach(program, veth.ifindex):
                # A heap that is written over kills the process, or another command later.
                run = tool.process if "per-CPU" in called and btf else tool.try_
                status = run("status", veth.dev, "--json")
                assert (status.code, status.err) == (0, ""), called
                (interface,) = status.json["interfaces"]
                root = interface["root"]
                assert (root["id"], root["owner"]) == (oracle.prog(program).id, "other"), called
                loaded = tool.try_("load", veth.dev, objects["pass"])
                assert loaded.code == 8, (called, loaded.err)
    assert tool.pins() == []


def named(name: str, shape: tuple[int, int, int, int, int], btf: int) -> oracle.Fd:
    """A program of a root's name that uses a map of the name that the root's record has."""
    kind, key, value, entries, flags = shape
    record = "xdpctl_chain" if name == "xdpctl_fused" else "rodata"
    found = oracle.map_create(kind, key, value, entries, record, flags)
    return oracle.prog_load_raw(
        oracle.PROG_TYPE_XDP,
        insn(0x18, 1, 1, imm=found) + insn(0) + mov(0, 2) + insn(0x95),
        name=name,
        expected_attach_type=oracle.ATTACH_XDP,
        prog_btf_fd=btf,
        func_info=[(0, 5)] if btf else [],
    )
