"""What goes wrong with packets around XDP, counted in the kernel at its xdp tracepoints.

The programs there are compiled by BCC, once for a kernel, and count in a map: no packet is handed
out, so that the counts are exact however many there are. Nothing is pinned: all of it goes with the
process, however that ends.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import struct
import time
from typing import NamedTuple

from ..errors import KernelError, NotFoundError, UnsupportedError
from ..host import cache, hints
from ..host.rights import explain_refusal
from ..kernel import asm, libbpf, maps, records, uapi
from ..kernel.btf import BTF_KIND_PTR, Btf
from ..kernel.link import Link
from ..kernel.maps import Map
from ..kernel.program import Program
from ..programs import bcc
from ..roots.dispatcher import shipped

EXCEPTION, REDIRECT, TX, DEVMAP, CPUMAP, CPU = range(6)
"""Events, as bpf/monitor.c numbers them."""

ODD_VERDICT = 256
"""The verdict that stands for all from this one on."""

_SOURCE = "monitor.c"
_SUBJECT = "what monitor counts with"
_COUNTS = 4096
_NAME = "xdpctl_counts"
_HINT = "monitor-"
_TABLES = ("counts", "lost")
# What they are called, and with how many arguments bpf/monitor.c knows them.
_TRACEPOINTS = {
    "xdp_exception": (3,),
    "xdp_redirect_err": (6, 7),
    "xdp_bulk_tx": (4,),
    "xdp_devmap_xmit": (5,),
    "xdp_cpumap_enqueue": (4,),
    "xdp_cpumap_kthread": (5,),
}
# macro: the members, one in the other, whose places add up to it.
_PLACES = {
    "DEV_IFINDEX": (("net_device", "ifindex"),),
    "DEV_NET": (("net_device", "nd_net"),),
    "NET_INUM": (("net", "ns"), ("ns_common", "inum")),
    "PROG_AUX": (("bpf_prog", "aux"),),
    "AUX_ID": (("bpf_prog_aux", "id"),),
    "MAP_TYPE": (("bpf_map", "map_type"),),
    "MAP_ID": (("bpf_map", "id"),),
}


class What(NamedTuple):
    """What is counted by itself; 0 for what an event does not tell.

    `netns` is the inode number of the interface's network namespace, `code` a verdict or a negative
    errno, `to` an interface's number if there is no map, else an index of the map, or a CPU.
    """

    event: int
    ifindex: int
    netns: int
    program: int
    code: int
    map_type: int
    map: int
    to: int


_WHAT = struct.Struct("=4Ii3I")


class Tally(NamedTuple):
    """How many packets so far, and how many there was no room for; `now` in seconds (monotonic)."""

    now: float
    counts: dict[What, int]
    lost: int


class Monitor:
    """Counts for the length of a with statement. `lacking`: tracepoints that this kernel has not.

    Entering it raises UnsupportedError without BCC, the kernel's headers or its BTF, or where the
    kernel does not allow it; RightsError.
    """

    def __init__(self) -> None:
        self.lacking: tuple[str, ...] = ()
        self._closing = contextlib.ExitStack()

    def __enter__(self) -> Monitor:
        with contextlib.ExitStack() as closing:
            self._open(closing)
            self._closing = closing.pop_all()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._closing.close()

    def _open(self, closing: contextlib.ExitStack) -> None:
        there, flags = _kernel()
        self.lacking = tuple(name for name in _TRACEPOINTS if name not in there)
        codes = _compiled(flags)

        def made(kind: int, name: str, elements: int, key_size: int) -> records.MapInfo:
            fd = libbpf.map_create(kind, name, 8, elements=elements, key_size=key_size)
            closing.callback(os.close, fd)
            fds.append(fd)
            return libbpf.map_info(fd)

        fds: list[int] = []
        shapes = (
            made(uapi.BPF_MAP_TYPE_PERCPU_HASH, _NAME, _COUNTS, _WHAT.size),
            made(uapi.BPF_MAP_TYPE_PERCPU_ARRAY, "xdpctl_lost", 1, 4),
        )
        self._counts, self._lost = fds
        self._shape, self._lost_shape = shapes
        ids = {place: shape.id for place, shape in enumerate(shapes)}
        hint = f"{_HINT}{self._shape.id}"
        closing.callback(hints.remove, hint)
        hints.write(hint, {"map": self._shape.id, "pid": os.getpid()})
        for name in there:
            code = asm.with_maps(codes[f"raw_tracepoint__{name}"], ids)
            closing.enter_context(_attached(name, code))

    def read(self) -> Tally:
        """What was counted since the beginning."""
        now = time.monotonic()
        counts = _counts(self._counts, self._shape)
        lost = maps.lookup(self._lost, self._lost_shape, bytes(4))
        return Tally(now, counts, sum(_cpus().unpack(lost)))


def _cpus() -> struct.Struct:
    return struct.Struct(f"={maps.possible_cpus()}Q")


def _counts(fd: int, shape: records.MapInfo) -> dict[What, int]:
    cpus = _cpus()
    return {
        What(*key): sum(value)
        for keys, values in maps.entries(fd, shape)
        for key, value in zip(_WHAT.iter_unpack(keys), cpus.iter_unpack(values), strict=True)
    }


def running() -> dict[What, int] | None:
    """What the monitor has counted that has run for longest, in any process; None if none runs.

    Its map is known by a hint alone.
    """
    found = {said["map"]: name for name, said in hints.every(_HINT) if type(said.get("map")) is int}
    for number in sorted(found):  # the kernel gives each map a higher one
        with libbpf.absent_is_fine(), Map.by_id(number) as counts:
            shape = counts.info
            if (shape.name, shape.key_size, shape.value_size) == (_NAME, _WHAT.size, 8):
                return _counts(counts.fd, shape)
        hints.remove(f"{_HINT}{found[number]}")  # of one that was killed
    return None


def _kernel() -> tuple[list[str], list[str]]:
    """The tracepoints of the running kernel, and what its types tell the compiler, as flags."""
    try:
        with Btf.of_kernel() as btf:
            arguments = {name: btf.arguments(name) for name in _TRACEPOINTS}
            places = {
                macro: sum(btf.offset(*member) for member in path)
                for macro, path in _PLACES.items()
            }
    except KernelError as error:
        raise UnsupportedError(
            "the kernel's structures cannot be read",
            why=f"it does not tell its own types: {error}",
            hint="take a kernel with CONFIG_DEBUG_INFO_BTF: xdpctl doctor, under btf",
        ) from error
    there = [name for name, known in _TRACEPOINTS.items() if len(arguments[name] or ()) in known]
    if not there:
        raise UnsupportedError(
            "this kernel tells nothing of what happens around XDP",
            why=f"it has no tracepoint such as {next(iter(_TRACEPOINTS))}, or in another form",
            hint="take a kernel with CONFIG_TRACEPOINTS and CONFIG_BPF_EVENTS",
        )
    flags = [f"-DCOUNTS={_COUNTS}", *(f"-D{macro}={place}" for macro, place in places.items())]
    # Linux kernel commit ee75aef23afe "bpf, xdp: Restructure redirect actions" (in v5.13): the
    # map's type and id in the place of a pointer to it.
    redirect = arguments["xdp_redirect_err"]
    if redirect and len(redirect) == 6 and redirect[4] == BTF_KIND_PTR:
        flags.append("-DREDIRECT_TELLS_POINTER")
    return there, flags


def _compiled(flags: list[str]) -> dict[str, bytes]:
    """The programs' code, maps named by their places in _TABLES; BCC compiles it once."""
    path = shipped(_SOURCE)
    if path is None:
        raise NotFoundError(f"bpf/{_SOURCE} is missing", hint="install xdpctl anew")
    text = path.read_bytes()

    def make() -> bytes:
        codes = bcc.functions(_SUBJECT, text, flags, _TABLES)
        return json.dumps({name: code.hex() for name, code in codes.items()}).encode()

    key = "\0".join([*flags, ""]).encode() + text
    found: dict[str, str] = json.loads(cache.kept("monitor", key, make))
    return {name: bytes.fromhex(code) for name, code in found.items()}


def _attached(name: str, code: bytes) -> Link:
    """Load a program and attach it to a tracepoint."""
    kind = uapi.BPF_PROG_TYPE_RAW_TRACEPOINT
    try:
        with Program.load(kind, name, code, gpl=True, attach_type=0) as program:
            return Link.tracepoint(program, name)
    except KernelError as error:
        what = f"what counts at the tracepoint {name}"
        # Under lockdown=confidentiality the helper that reads the kernel's memory does not exist.
        locked = error.errno == errno.EINVAL and "unknown func" in error.log
        raise explain_refusal(error, what) or UnsupportedError(
            f"the kernel refused {what}",
            why="programs may not read its memory" if locked else str(error),
            hint="see /sys/kernel/security/lockdown" if locked else "",
            details=error.log,
        ) from error
