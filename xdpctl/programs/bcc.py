"""Programs in BCC's dialect: compiled by BCC in a child process, or at hand as a `bcc.BPF`.

BCC gives relocated instructions that name maps by descriptors, and no object file. With the maps'
ids in their place they are an image, as a root's kind wants it. BCC itself is the distribution's
package; the project of that name on PyPI is another one.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeGuard

from ..errors import (
    BadObjectError,
    KernelError,
    NotFoundError,
    UnsupportedError,
    UsageError,
    XdpctlError,
)
from ..host import rights
from ..host.child import in_child
from ..host.text import Json
from ..kernel import asm, libbpf
from ..model.source import Image
from . import clang
from .image import Tables

if TYPE_CHECKING:
    import ctypes


# BPF_TABLE_PINNED("array", u32, u64, packets, 1, "/sys/fs/bpf/packets");
_PINNED = re.compile(rb'^[ \t]*BPF_TABLE_PINNED\w*\s*\([^;]*,\s*"([^"]+)"\s*\)\s*;', re.MULTILINE)
_MISSING, _COMPILING = "import bcc", "compiling"
# What the kernel takes for compatible with the GPL (<linux/license.h>).
_GPL = {
    b"GPL",
    b"GPL v2",
    b"GPL and additional rights",
    *(b"Dual %s/GPL" % one for one in (b"BSD", b"MIT", b"MPL")),
}


class BPF(Protocol):
    """A `bcc.BPF`, as far as it is used."""

    module: Any

    remove_xdp: Callable[..., None]

    def dump_func(self, func_name: bytes) -> bytes:
        """The instructions of a function."""


class Detachable(Protocol):
    """An attachment, as far as it is known here."""

    def detach(self) -> None:
        """Take the program out; may be called again."""


def is_module(source: object) -> TypeGuard[BPF]:
    """Whether something is a `bcc.BPF`; nobody has one who has not imported BCC."""
    bcc = sys.modules.get("bcc")
    return bcc is not None and isinstance(source, getattr(bcc, "BPF", ()))


def of_module(module: BPF, program: str | None) -> tuple[str, Image]:
    """The program of a `bcc.BPF`, by its function's name unless there is only one.

    Its maps are the module's own. Raises NotFoundError or UsageError.
    """
    from bcc.libbcc import lib

    name = _chosen("the bcc.BPF object", _functions(module, lib), program)
    return name, _image(module.dump_func(name.encode()), lib.bpf_module_license(module.module))


def keep(module: BPF, interface: str, attachment: Detachable) -> None:
    """Have a module keep what it is attached by, and detach that in its `remove_xdp`.

    BCC's own takes whatever there is off the hook, which is the programs of all.
    """
    kept: dict[str, list[Detachable]] = vars(module).setdefault("_xdpctl_kept", {})
    if not kept:
        module.remove_xdp = partial(_remove_xdp, kept, module.remove_xdp)
    kept.setdefault(interface, []).append(attachment)


def _remove_xdp(
    kept: Mapping[str, Sequence[Detachable]],
    original: Callable[..., None],
    dev: str | bytes,
    flags: int = 0,
) -> None:
    name = os.fsdecode(dev)
    if name not in kept:
        original(dev, flags)
    for attachment in kept.get(name, ()):
        attachment.detach()


def compiled(
    path: str, text: bytes, flags: Sequence[str], program: str | None
) -> tuple[str, Image, Tables]:
    """The program of a source in BCC's dialect, and the maps that it uses.

    Raises UnsupportedError without BCC or the kernel's headers, BadObjectError for what BCC
    refuses, RightsError, NotFoundError or UsageError.
    """
    rights.require()  # the maps are made with the code
    pins = [pin for pin in _pins(text) if not os.path.lexists(pin)]

    def work() -> tuple[Json, list[int]]:
        directory = os.path.dirname(os.path.abspath(path))
        # BCC compiles elsewhere: what is relative would be so to another directory.
        module, lib = _compile(text, [*clang.absolute(flags), f"-I{directory}"])
        found = _functions(module, lib)
        meant = program or (found[0] if len(found) == 1 else "")
        code = None
        if meant in found:  # else it is the parent's to say what is wrong
            licence = lib.bpf_module_license(module.module)
            code = _image(module.dump_func(meant.encode()), licence)
        tables = _tables(module, lib, asm.maps_of(code.code)) if code else {}
        record = code.pack().hex() if code else ""
        return {"functions": found, "image": record, "tables": [*tables]}, [*tables.values()]

    try:
        answer, fds = _in_child(path, work)
    except XdpctlError:
        unpin(pins)
        raise
    tables = Tables(dict(zip(answer["tables"], fds, strict=True)), partial(unpin, pins))
    name = _chosen(path, answer["functions"], program)
    code = Image.unpack(bytes.fromhex(answer["image"]))
    assert code is not None
    return name, code, tables


def _pins(text: bytes) -> list[str]:
    """Where the tables of a source are pinned as it is compiled."""
    return [os.fsdecode(path) for path in _PINNED.findall(text)]


def unpin(paths: Sequence[str]) -> None:
    """Take pins away that compiling has made."""
    for path in paths:
        with contextlib.suppress(OSError):
            os.unlink(path)


def functions(
    path: str, text: bytes, flags: Sequence[str], tables: Sequence[str]
) -> dict[str, bytes]:
    """The code of every function of a source, its maps named by their places in `tables`.

    The maps that BCC makes with it go again. Raises as `compiled`.
    """
    rights.require()

    def work() -> tuple[Json, list[int]]:
        module, lib = _compile(text, flags)
        fds = [lib.bpf_table_fd(module.module, name.encode()) for name in tables]
        places = {fd: place for place, fd in enumerate(fds)}
        codes = {name: module.dump_func(name.encode()) for name in _functions(module, lib)}
        return {name: asm.with_maps(code, places).hex() for name, code in codes.items()}, []

    answer, _fds = _in_child(path, work)
    return {name: bytes.fromhex(code) for name, code in answer.items()}


def _in_child(path: str, work: Callable[[], tuple[Json, list[int]]]) -> tuple[Json, list[int]]:
    try:
        return in_child(path, work, "BCC")
    except KernelError as error:
        raise _explained(path, error) from error


def _compile(text: bytes, flags: Sequence[str]) -> tuple[BPF, ctypes.CDLL]:
    """In a process of its own, whose output it takes away: a module, and BCC's C interface."""
    try:
        from bcc import BPF as Module  # noqa: N811
        from bcc.libbcc import lib
    except ImportError as error:
        raise KernelError(_MISSING, errno.ENOENT, str(error)) from error
    for name in os.environb.keys() - set(map(os.fsencode, clang.environment())):
        del os.environb[name]
    log = os.memfd_create("log")
    for number in (1, 2):  # where BCC and its compiler write
        os.dup2(log, number)
    try:
        # The kernel's headers make it warn, whatever the program is like.
        return Module(text=text, cflags=["-w", *flags]), lib
    except Exception as error:
        said = os.pread(log, 1 << 20, 0).decode(errors="replace").strip()
        raise KernelError(_COMPILING, errno.EINVAL, said or str(error)) from error


def _functions(module: BPF, lib: ctypes.CDLL) -> list[str]:
    count = lib.bpf_num_functions(module.module)
    return [lib.bpf_function_name(module.module, number).decode() for number in range(count)]


def _chosen(where: str, found: Sequence[str], program: str | None) -> str:
    """The function that is meant."""
    listing = ", ".join(found)
    if program is not None and program not in found:
        raise NotFoundError(f"no program {program} in {where}", why=f"it has {listing or 'none'}")
    if program is None and not found:
        raise BadObjectError(
            f"no XDP program in {where}",
            hint="one is a function that takes a struct xdp_md * and is not static",
        )
    if program is None and len(found) > 1:
        raise UsageError(
            f"{where} has several programs", why=listing, hint="name one with -n PROGRAM"
        )
    return program or found[0]


def _image(code: bytes, licence: bytes) -> Image:
    ids = {fd: libbpf.map_info(fd).id for fd in asm.maps_of(code)}
    return Image(asm.with_maps(code, ids), frags=False, gpl=licence in _GPL)


def _tables(module: BPF, lib: ctypes.CDLL, ids: set[int]) -> dict[str, int]:
    """The descriptors of maps with these ids, by the names that the source gives them."""
    import ctypes

    # BCC's Python does not list tables; these are of its C interface (bpf_module.h).
    lib.bpf_num_tables.restype = ctypes.c_size_t
    lib.bpf_num_tables.argtypes = [ctypes.c_void_p]
    lib.bpf_table_name.restype = ctypes.c_char_p
    lib.bpf_table_name.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    count = lib.bpf_num_tables(module.module)
    names = [lib.bpf_table_name(module.module, number) for number in range(count)]
    tables = {name.decode(): lib.bpf_table_fd(module.module, name) for name in names}
    return {name: fd for name, fd in tables.items() if libbpf.map_info(fd).id in ids}


def _explained(path: str, error: KernelError) -> XdpctlError:
    what = f"BCC cannot compile {path}"
    if error.call == _MISSING:
        return UnsupportedError(
            f"{path} needs BCC",
            why=error.log,
            hint="install it (Debian: apt install python3-bpfcc) where this Python finds it: a "
            "virtual environment needs --system-site-packages; the bcc of PyPI is another project",
        )
    said = error.log.replace("/virtual/main.c", path)
    if "kernel headers" in said or "chdir(" in said:
        return UnsupportedError(
            what,
            why=f"it finds no headers of this kernel ({os.uname().release})",
            hint="install them (Debian: apt install linux-headers-$(uname -r)), or name their "
            "directory in BCC_KERNEL_SOURCE",
            details=said,
        )
    hint = "--no-bcc compiles it with clang, for libbpf" if "SEC" in said else ""
    return BadObjectError(what, why=said, hint=hint)
