"""A member's code, kept with it: what fused roots are made of, and an EXT program made anew.

The kernel does not give back what it was given: it shows a program's instructions as it rewrote
them. So a map that is bound to the program holds them as libbpf relocated them, with the ids of
maps in the place of descriptors. It lives as long as the program does, wherever the object file is.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Mapping, Sequence

from ..errors import UnsupportedError, unless_short
from ..kernel import asm, libbpf, records, uapi
from ..kernel.object import Object, ObjectProgram
from ..kernel.program import Program, kept_record
from ..model.source import Image, Recipe

NAME = "xdpctl_image"
"""The name of the map."""

_KEPT = 15
"""How many bytes of a map's name the kernel keeps."""


def of(program: records.ProgInfo) -> Image | None:
    """The image that is bound to a program; None where there is none."""
    record = kept_record(program, NAME)
    return Image.unpack(record) if record is not None else None


def is_loaded(program_id: int, recipe: Recipe) -> bool:
    """Whether a program was loaded from the same bytes in the same way as a recipe says."""
    if not recipe.digest:
        return False
    with unless_short(), Program.by_id(program_id) as running:
        found = of(running.info)
        return found is not None and found.recipe == recipe
    return False  # it is gone: the change will see that


def load_ext(image: Image, name: str, root_fd: int, function: int) -> Program:
    """Load the code as EXT for a function (a BTF id) of a root."""
    target = (root_fd, function)
    kind = uapi.BPF_PROG_TYPE_EXT
    return bound(image, Program.load(kind, name, image.code, gpl=image.gpl, target=target))


def load_xdp(image: Image, name: str) -> Program:
    """Load the code as an XDP program of its own."""
    kind = uapi.BPF_PROG_TYPE_XDP
    return bound(image, Program.load(kind, name, image.code, gpl=image.gpl, frags=image.frags))


def bound(image: Image, program: Program) -> Program:
    """Keep the image with a program, which is returned, or else closed."""
    try:
        program.keep(NAME, image.pack())
    except BaseException:
        program.close()
        raise
    return program


class Tables(dict[str, int]):
    """Descriptors of maps by name, which are closed at the latest when nobody has them any more.

    `undo` takes back what making them left elsewhere. It is called then, too, unless they were
    `taken`: a member of a chain uses them.
    """

    def __init__(self, fds: Mapping[str, int], undo: Callable[[], None] = lambda: None) -> None:
        super().__init__(fds)
        self._undo = [undo]
        self.close = weakref.finalize(self, _close, tuple(fds.values()), self._undo)

    def taken(self) -> None:
        """Keep what making them left elsewhere."""
        self._undo.clear()


def _close(fds: Sequence[int], undo: Sequence[Callable[[], None]]) -> None:
    for fd in fds:
        os.close(fd)
    for call in undo:
        call()


def capture(
    parsed: Object, program: ObjectProgram, frags: bool, recipe: Recipe | None
) -> Image | None:
    """The image of a program of an object that libbpf has just loaded.

    None for a program that names something of a kernel module: a descriptor of the module's, which
    means nothing later.
    """
    code = program.code
    if asm.names_module(code):
        return None
    found = {one.fd: one.raw_name for one in parsed.maps}
    ids = {fd: libbpf.map_info(fd).id for fd in found if fd >= 0}
    used = asm.maps_of(code)
    names = tuple(
        (ids[fd], name.decode(errors="replace"))
        for fd, name in found.items()
        if fd in used and len(name) >= _KEPT
    )
    gpl = libbpf.prog_info(program.fd).gpl
    return Image(asm.with_maps(code, ids), frags, gpl, names, recipe)


def array_of_another_kind(what: str, kind: str) -> UnsupportedError:
    """Why a member that makes tail calls stays on its kind of root.

    Linux kernel commit 4540aed51b12 "bpf: Enforce expected_attach_type for tailcall compatibility"
    (in v6.18 and stable releases).
    """
    return UnsupportedError(
        f"{what} cannot go to a root of the {kind} kind",
        why="it makes tail calls, and this kernel keeps its program array for callers of the kind "
        "that it was loaded for",
        hint="unload it, change the kind, and load it again",
    )
