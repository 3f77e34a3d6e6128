"""Why a program of an object was not loaded: what the child says of it, as errors.

What libbpf and the kernel say is in words.py.
"""

from __future__ import annotations

import errno

from ..errors import KernelError, UnsupportedError, UsageError, XdpctlError
from ..model.source import Source
from .binding import Device, not_bound
from .sharing import PINNED, SHARING
from .tails import OCCUPIED, UNFIT

CALLING, FILLING = "making tail calls", "filling program arrays"
ARRAY = "sharing a program array"
"""What a KernelError calls these."""

_NO_OFFLOAD = (
    "the driver takes no programs for its card, as most do, or none such: cards take no fragments, "
    "and of maps plain arrays and hashes alone"
)


def explained(
    source: Source, error: KernelError, target: tuple[int, str] | None, device: Device | None
) -> XdpctlError:
    """Why a program was not loaded."""
    from .words import libbpf_words, refused  # many regular expressions, for refusals alone

    what = f"{source.program} of {source.path}"
    if error.call == FILLING:
        return UnsupportedError(
            f"{what} cannot be tried",
            why="it has program arrays and shares maps with others: loading it fills the "
            "arrays, and its callees would work on the maps that are in use",
            hint="it can be tried with maps of its own: load -p pins them elsewhere",
        )
    if error.call == PINNED:
        return UnsupportedError(
            f"{what} cannot use a map that is pinned",
            why=error.log,
            hint="remove the pin, which leaves the map to those who use it, or "
            + (
                "--maps MAP=new takes one that is not pinned"
                if source.replaces
                else "-p DIR pins its maps elsewhere (in the file of apply: pin-path)"
            ),
        )
    if error.call == SHARING:
        return UnsupportedError(
            f"{what} cannot share the maps of program {source.maps_of}",
            why=error.log,
            hint=_sharing_hint(source),
        )
    if error.call in (OCCUPIED, UNFIT, ARRAY, CALLING):
        return _about_arrays(what, error)
    by_driver = error.call != "verifier" and error.errno in (errno.EINVAL, errno.EOPNOTSUPP)
    if device and device.card and error.errno and by_driver:
        return UnsupportedError(
            f"{what} cannot be offloaded",
            why=f"{_NO_OFFLOAD} ({errno.errorcode[error.errno]})",
            hint="-m native runs it in the driver, -m skb on any interface",
            details=libbpf_words(error),
            number=error.errno,
        )
    return not_bound(what, device, error) or refused(what, error, ext=bool(target))


def _about_arrays(what: str, error: KernelError) -> XdpctlError:
    """Why a program was not loaded, because of its program arrays."""
    if error.call == OCCUPIED:
        return UsageError(
            f"a program array of {what} cannot be filled so",
            why=error.log,
            hint="choose another place, or leave this one to the object",
        )
    if error.call == UNFIT:
        return UnsupportedError(
            f"a program array of {what} cannot be filled so",
            why=error.log,
            hint="the kernel wants the programs of an array alike in type, attach type, and in "
            "whether they take fragments; on a root of the ext kind a member itself goes into none",
        )
    if error.call == ARRAY:
        return UnsupportedError(
            f"{what} cannot call through the program array {error.log}",
            why="the programs that use it were loaded in another way, and the kernel wants "
            "all of them alike: the expected attach type (some loaders in Go and Rust name "
            "none), whether they take fragments, and whether they are machine code",
            hint="-p DIR, or --maps MAP=new, gives it an array of its own; with programs that "
            "name no attach type --root ext goes together, with others --root fused",
        )
    return UnsupportedError(
        f"{what} cannot replace a function of a dispatcher",
        why="it makes tail calls, and here EXT and XDP programs have no program array in common",
        hint="use --root fused, or a kernel that has the fix of Linux 6.2",
    )


def _sharing_hint(source: Source) -> str:
    if source.replaces:
        return (
            '--maps new (in the file of apply: maps = "new") gives the new program maps of its '
            "own, MAP=new a single one"
        )
    force = "" if source.forced else ", or --force to leave out maps that it lacks"
    return f"give the object file that the running program was loaded from{force}"
