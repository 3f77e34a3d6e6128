"""What a user gives as FILE: the path of a file, an image in a registry, or an object's bytes."""

from __future__ import annotations

import errno
import os
from typing import NamedTuple

from ..errors import BadObjectError, KernelError
from ..host import files
from ..kernel import libbpf
from ..origins.manifest import Labels
from ..origins.reference import Reference, is_image
from . import clang


class Given(NamedTuple):
    """The bytes of a FILE: what it is called in messages, and where they come from.

    `file` is what a recipe says of it: an absolute path, - for standard input, or an image with its
    digest. `named` is what libbpf calls the object, and so its internal maps. `image` is the same
    as `file` if it is one, and has `labels`.
    """

    path: str
    data: bytes
    file: str
    named: str
    image: str = ""
    labels: Labels = Labels()

    @property
    def is_source(self) -> bool:
        """Whether it is C, to be compiled."""
        return self.file != files.STANDARD_INPUT and clang.is_source(self.file)


def given(path: str, data: bytes | None = None) -> Given:
    """What a FILE is; an image is fetched.

    Raises NotFoundError and BadObjectError; for an image also what `images.fetch` raises.
    """
    if data is not None:
        return Given(path, data, files.STANDARD_INPUT, path)
    if is_image(path):
        from ..origins import images

        found = images.fetch(Reference.parse(path))
        name = str(found.image)
        return Given(name, found.data, name, found.name or name, name, found.labels)
    return Given(path, read(path), os.path.abspath(path), path)


def read(path: str, most: int | None = None) -> bytes:
    """A file's bytes, or its first ones. Raises NotFoundError or BadObjectError."""
    limit = files.SOURCE if clang.is_source(path) else files.OBJECT
    try:
        return files.read(path, limit, most=most, number=libbpf.LIBBPF_ERRNO__LIBELF)
    except BadObjectError as error:
        cause = error.__cause__
        if isinstance(cause, OSError) and cause.errno == errno.EIO:
            check_no_pin(path)  # what the pin of a program answers
        if isinstance(cause, files.NotRegularError) and not os.path.isdir(path):
            error.number = libbpf.LIBBPF_ERRNO__FORMAT  # it can be read, and has no object
        raise


def check_no_pin(path: str) -> None:
    """Raise BadObjectError if something is pinned at a path, as far as this process may know."""
    try:
        fd = libbpf.get(path)
    except KernelError:
        return
    with libbpf.owned(fd):
        kind = os.readlink(f"/proc/self/fd/{fd}").rpartition(":")[2]
    kind = {"bpf-map": "map", "bpf-prog": "program", "bpf_link": "link"}.get(kind, kind)
    raise BadObjectError(
        f"{path} is no file",
        why=f"it is the pin of a {kind} in a BPF file system",
        hint="give the object file, or the C source, that the program is made of",
    )
