"""Programs that ask the device about a packet, its hash or its time, and so are bound to it.

Linux kernel commits 2b3486bc2d23 "bpf: Introduce device-bound XDP programs" and 3d76a4d3d4e5 "bpf:
XDP metadata RX kfuncs" (in v6.3).
"""

from __future__ import annotations

import errno
from collections.abc import Iterator

from ..errors import KernelError, UnsupportedError, unless_short
from ..kernel import asm
from ..kernel.btf import BTF_KIND_FUNC, Btf
from ..kernel.object import Object, ObjectProgram
from ..value import Value

PREFIX = "bpf_xdp_metadata_"
"""How the functions are called that a device answers."""


class Device(Value):
    """What a program is loaded for: a device that it is bound to, or a `card` that is to run it."""

    ifindex: int
    card: bool = False


def not_bound(what: str, device: Device | None, error: KernelError) -> UnsupportedError | None:
    """Why something cannot be bound to a device, if it is that: its driver has no part in XDP."""
    if device is None or error.call == "verifier" or error.errno != errno.EOPNOTSUPP:
        return None
    return UnsupportedError(
        f"{what} cannot be bound to the device",
        why="its programs ask the driver about packets, which runs no XDP programs (EOPNOTSUPP)",
        hint="they have to be on an interface with native XDP: see xdpctl features",
        number=errno.EOPNOTSUPP,
    )


def asks_device(parsed: Object) -> bool:
    """In the child: whether an object names functions of the kernel's that a device answers.

    What this kernel does not have is left to libbpf: an object can do without what it declares
    __weak.
    """
    named = [*_named(parsed.btf)] if parsed.btf else []
    if not named:
        return False
    with unless_short(), Btf.of_kernel() as kernel:
        return any(kernel.find(name, BTF_KIND_FUNC) for name in named)
    return False


def may_ask(program: ObjectProgram) -> bool:
    """In the child: whether a program of such an object may be one that calls these functions.

    Before it is loaded, a call does not tell what it is one of.
    """
    return asm.may_call(program.code)


def _named(btf: Btf) -> Iterator[str]:
    """The functions of an object with the prefix."""
    for number in range(1, btf.count):
        found = btf.type(number)
        if found.kind == BTF_KIND_FUNC and (name := btf.string(found.name_off)).startswith(PREFIX):
            yield name
