"""What a user gives as FILE: the path of a file, an image in a registry, or an object's bytes."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..errors import BadObjectError, KernelError
from ..host import files
from ..kernel import libbpf
from ..supply import policy
from ..supply.keys import check_none
from ..supply.reference import Labels, Reference, is_image
from ..value import Value
from . import clang

if TYPE_CHECKING:
    from ..supply.keys import Demand


class Given(Value):
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


def given(path: str, data: bytes | None = None, keys: Sequence[str] = ()) -> Given:
    """What a FILE is, signed as the policy wants it, and by one of some keys if there are any.

    An image is fetched. Raises NotFoundError, BadObjectError, UntrustedError, RightsError for a
    policy that others may write; for an image also what `images.fetch` raises.
    """
    asked = _asked(keys)
    if data is not None:
        demands = policy.demands(policy.INPUT, asked)
        check_none(path, "nothing can be signed beside it", demands)
        return Given(path, data, files.STANDARD_INPUT, path)
    if is_image(path):
        from ..supply import images

        image = Reference.parse(path)
        found = images.fetch(image, policy.demands(image.source, asked))
        name = str(found.image)
        return Given(name, found.data, name, found.name or name, name, found.labels)
    # Where a link leads decides, and that is read: not what is at its end a moment later.
    real = os.path.realpath(path) if policy.in_force() else path
    demands = policy.demands(real, asked)
    data, file = read(real), os.path.abspath(path)
    if clang.is_source(path):
        why = "a signature of a C source does not cover what it includes"
        check_none(path, why, demands)
        return Given(real, data, file, path)
    if demands:
        from ..supply import signatures

        signatures.check_file(path, data, demands)
    return Given(path, data, file, path)


def check_module(keys: Sequence[str] = ()) -> None:
    """Raise UntrustedError if a program that BCC compiled in this process may not be loaded."""
    demands = policy.demands(policy.MODULE, _asked(keys))
    check_none("a bcc.BPF", "nothing can be signed beside it", demands)


def _asked(keys: Sequence[str]) -> list[Demand]:
    if not keys:
        return []
    from ..supply.keys import asked

    return asked(keys)


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
