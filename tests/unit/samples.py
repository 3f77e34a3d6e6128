"""Objects and hand-made values that several modules test with."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from xdpctl.chain import Chain, Member, Source
from xdpctl.observe import Mode, Owner, Root, Slot, State
from xdpctl.pins import Interface
from xdpctl.protocol import Config

ROOT = Path(__file__).parents[2]
INTERFACE = Interface("veth7", 7, "4711")
DROP, PASS, TX = 1 << 1, 1 << 2, 1 << 3

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="missing: root")

_PREAMBLE = """
#define SEC(name) __attribute__((section(name), used))
#define CONFIG(function, ...) struct { __VA_ARGS__ } _##function SEC(".xdp_run_config")
#define UINT(name, value) int (*name)[value];
char LICENSE[] SEC("license") = "GPL";
struct xdp_md;
"""


def built(name: str) -> str:
    """The path of an object that is made from tests/bpf/<name>.c."""
    path = ROOT / f"build/tests/bpf/{name}.o"
    assert path.exists(), f"{path} is missing: make -C tests/bpf"
    return str(path)


def compiled(directory: Path, source: str, *flags: str) -> str:
    """Compile C that needs no header; returns the object's path."""
    path = directory / "sample.o"
    subprocess.run(
        ["clang", "-O2", "-g", "-target", "bpf", *flags, "-x", "c", "-", "-c", "-o", path],
        input=(_PREAMBLE + source).encode(),
        check=True,
    )
    return str(path)


def fresh(name: str = "fresh", **values: Any) -> Member:
    """A member that is to be loaded."""
    return Member(name, source=Source(f"/objects/{name}.o", b"", name), **values)


def running(name: str, number: int, **values: Any) -> Member:
    """A member that runs; its tag is made of its id."""
    return Member(name, id=number, **{"tag": f"{number:016x}", **values})


def state_of(
    members: Sequence[Member | None] | None,
    *,
    owner: Owner = "xdpctl",
    mode: Mode = "native",
    link_id: int = 77,
    pinned: bool = True,
    residue: tuple[str, ...] = (),
) -> State:
    """An interface that runs these members, None being a vacant slot; with None it has no root."""
    if members is None:
        return State(INTERFACE, None, residue)
    known = [member or Member("gone") for member in members]
    slots = tuple(
        Slot(
            number=number,
            function=f"prog{number}",
            function_btf_id=20 + number,
            member=member,
            link_id=100 + number if member else 0,
            pin=f"/bpffs/xdp/dispatch-7-500/prog{number}-link" if member and pinned else None,
        )
        for number, member in enumerate(members)
    )
    other = owner == "other"
    root = Root(
        id=500,
        name="firewall" if other else "xdp_dispatcher",
        tag="00112233aabbccdd",
        btf_id=40,
        mode=mode,
        owner=owner,
        link_id=link_id,
        link_pin="/bpffs/xdp/xdpctl-4711-7/root_link" if owner == "xdpctl" else None,
        config=None if other else Config.of(known),
        slots=slots,
    )
    return State(INTERFACE, root, residue)


def chain_of(*members: Member) -> Chain:
    return Chain(members)
