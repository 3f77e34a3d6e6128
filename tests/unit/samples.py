"""Objects and hand-made values that several modules test with."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from xdpctl.bpffs import homes
from xdpctl.bpffs.mount import Bpffs
from xdpctl.errors import Interrupted
from xdpctl.host import signals
from xdpctl.host.interfaces import Interface
from xdpctl.model.chain import Chain, Kind, Member
from xdpctl.model.kinds import AskedKind
from xdpctl.model.labels import Attach, Origin
from xdpctl.model.plan import Plan, make_plan
from xdpctl.model.record import FUSED, Config, root_name
from xdpctl.model.request import AskedMode, Request
from xdpctl.model.source import Source
from xdpctl.model.state import Mode, Owner, Root, Slot, State

ROOT = Path(__file__).parents[2]
INTERFACE = Interface("veth7", 7, "4711")
LOOPBACK = Interface.named("lo")
GONE = Interface("gone0", 2**31 - 1, LOOPBACK.netns)
HOME = homes.of(Bpffs("/bpffs"), INTERFACE)
DROP, PASS, TX = 1 << 1, 1 << 2, 1 << 3

needs_clang = pytest.mark.skipif(shutil.which("clang") is None, reason="missing: clang")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="missing: root")

_PREAMBLE = """
#define SEC(name) __attribute__((section(name), used))
#define CONFIG(function, ...) struct { __VA_ARGS__ } _##function SEC(".xdp_run_config")
#define UINT(name, value) int (*name)[value];
char LICENSE[] SEC("license") = "GPL";
struct xdp_md;
"""


def built(name: str) -> str:
    """The path of an object that is made from tests/bpf/<name>.c; skips if that cannot be made."""
    _make_objects()
    path = ROOT / f"build/tests/bpf/{name}.o"
    assert path.exists(), f"{path} is missing: there is no tests/bpf/{name}.c"
    return str(path)


@cache
def _make_objects() -> None:
    for tool in ("make", "clang", "llvm-objcopy"):
        if shutil.which(tool) is None:
            pytest.skip(f"missing: {tool}")
    if not Path("/usr/include/linux/bpf.h").exists():
        pytest.skip("missing: the kernel's headers")
    if not Path("/usr/include/bpf/bpf_helpers.h").exists():
        pytest.skip("missing: the headers of libbpf")
    directory = ROOT / "build/tests"
    directory.mkdir(parents=True, exist_ok=True)
    # Test processes that run side by side do not write the same files.
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        subprocess.run(["make", "-s", "-C", ROOT / "tests/bpf"], check=True)


def compiled(directory: Path, source: str, *flags: str) -> str:
    """Compile C that needs no header; returns the object's path."""
    path = directory / "sample.o"
    command = ["clang", "-O2", "-g", "-target", "bpf", "-Wno-implicit-function-declaration"]
    subprocess.run(
        [*command, *flags, "-x", "c", "-", "-c", "-o", path],
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
    origins: Mapping[int, Origin] | None = None,
    orphans: Collection[int] = (),
    stranded: int | None = None,
    kind: Kind = "ext",
    why: int = 0,
    arrays: Mapping[int, int] | None = None,
    lost: Mapping[int, int] | None = None,
) -> State:
    """An interface that runs these members, None being a vacant slot; with None it has no root.

    `origins` tells by slot whose programs are borrowed, `orphans` which slots have lost the owner.
    On a fused root `arrays` has by slot what holds a member, and `lost` the programs that are gone.
    """
    if members is None:
        return State(INTERFACE, None, residue, HOME.home, stranded)
    origins = origins or {}
    arrays, lost = arrays or {}, lost or {}
    known = [member or Member("gone", id=lost.get(slot, 0)) for slot, member in enumerate(members)]
    bare, fused = owner == "other" or kind == "bare", kind == "fused"
    config = Config.of(known)
    if fused:
        config = replace(
            Config.of(known, protocol=0),
            programs=tuple(member.id for member in known),
            arrays=tuple(arrays.get(slot, 0) for slot in range(len(known))),
            why=why,
        )
    what = "prog" if fused else "link"
    slots = tuple(
        Slot(
            number=number,
            function=f"prog{number}",
            function_btf_id=0 if fused else 20 + number,
            member=member,
            link_id=100 + number if member and not fused else 0,
            pin=f"/bpffs/xdp/dispatch-7-500/prog{number}-{what}"
            if member and pinned and number not in arrays
            else None,
            origin=origins.get(number),
            orphan=number in orphans,
            array_id=arrays.get(number, 0),
            lost=lost.get(number, 0),
        )
        for number, member in enumerate(members)
    )
    root = Root(
        id=500,
        name="firewall" if bare else FUSED if fused else root_name(len(members)),
        tag="00112233aabbccdd",
        btf_id=40,
        mode=mode,
        owner=owner,
        link_id=link_id,
        link_pin="/bpffs/xdp/xdpctl-4711-7/root_link" if owner == "xdpctl" else None,
        config=None if bare else config,
        slots=slots,
    )
    return State(INTERFACE, root, residue, HOME.home, stranded)


def chain_of(*members: Member) -> Chain:
    return Chain(members)


def plan_of(
    state: State,
    target: Chain,
    mode: AskedMode | None = None,
    attach: Attach | None = None,
    *,
    kind: AskedKind | None = None,
    protocol: int | None = None,
    adopts: bool = False,
    refused: int = 0,
) -> Plan:
    """The plan of a change for which this is asked."""
    request = Request(mode=mode, attach=attach, kind=kind, protocol=protocol, adopts=adopts)
    return make_plan(state, target, request=request, refused=refused)


# --- locks --------------------------------------------------------------------------------------

_HOLD = """
import fcntl, os, sys
fcntl.flock(os.open(sys.argv[1], os.O_RDONLY), fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def locked_by_another(directory: str | Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lock of a directory; let go by the end of its standard input."""
    with subprocess.Popen(
        [sys.executable, "-ISc", _HOLD, directory],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.stdin.close()


def some(count: int, cases: Iterable[object]) -> list[object]:
    """Cases of a test; those after the first COUNT are long."""
    return [
        case if number < count else pytest.param(case, marks=pytest.mark.long)
        for number, case in enumerate(cases)
    ]


# --- signals ------------------------------------------------------------------------------------


def ending_signals() -> Iterator[None]:
    """A fixture: signals raise Interrupted, as in a command; afterwards all is as before."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    with signals.handled():
        yield
    with contextlib.suppress(Interrupted):
        signals.release()
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == mask


def send(number: int) -> None:
    """To this thread: the process may have others, with other signals blocked."""
    signal.pthread_kill(threading.get_ident(), number)


def blocked() -> set[int]:
    return set(signal.pthread_sigmask(signal.SIG_BLOCK, ()))


def sent_while_blocking(
    number: signal.Signals,
) -> Callable[[int, Iterable[int]], set[int | signal.Signals]]:
    """A pthread_sigmask that a signal comes to while it blocks the others."""
    real = signal.pthread_sigmask

    def call(how: int, mask: Iterable[int]) -> set[int | signal.Signals]:
        wanted = set(mask)
        before = real(how, wanted - {number} if how == signal.SIG_BLOCK else wanted)
        if how == signal.SIG_BLOCK and number in wanted:
            send(number)
        return before

    return call


@contextlib.contextmanager
def standard_input(patch: pytest.MonkeyPatch, path: str) -> Iterator[None]:
    with open(path, encoding="utf-8", errors="surrogateescape") as stdin:
        patch.setattr("sys.stdin", stdin)
        yield
