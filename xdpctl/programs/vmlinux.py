"""The header vmlinux.h: all types of the running kernel, as C, for sources that include it."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ..errors import KernelError, UnsupportedError
from ..host import cache
from ..kernel import libbpf
from ..kernel.btf import Btf

NAME = "vmlinux.h"
_BTF = Path("/sys/kernel/btf/vmlinux")

# What clang notes of each access lets libbpf find the fields where another kernel has them.
_BEFORE = b"""#pragma once
#ifndef BPF_NO_PRESERVE_ACCESS_INDEX
#pragma clang attribute push (__attribute__((preserve_access_index)), apply_to = record)
#endif
"""
_AFTER = b"""#ifndef BPF_NO_PRESERVE_ACCESS_INDEX
#pragma clang attribute pop
#endif
"""


@contextlib.contextmanager
def directory(path: str) -> Iterator[str]:
    """A directory with the header, for as long as the block takes; for the source of a path.

    Raises UnsupportedError if the kernel does not have its types.
    """
    with tempfile.TemporaryDirectory(prefix="xdpctl-") as place:
        Path(place, NAME).write_bytes(header(path))
        yield place


def header(path: str) -> bytes:
    """The header for the source of a path, made once for each kernel."""
    try:
        types = _BTF.read_bytes()
        key = types + libbpf.version().encode()
        return cache.kept("vmlinux", key, _made)
    except OSError as error:
        raise UnsupportedError(
            f"there is no {NAME} for {path}",
            why=f"this kernel does not tell its types: {_BTF}: {error.strerror}",
            hint="the kernel has to be built with CONFIG_DEBUG_INFO_BTF; -I DIR tells where one is "
            f"(bpftool btf dump file {_BTF} format c makes it elsewhere)",
        ) from error


def _made() -> bytes:
    with Btf.of_kernel() as btf, tempfile.TemporaryFile() as file:
        try:
            btf.write_c(file.fileno())
        except KernelError as error:
            raise UnsupportedError(f"cannot make {NAME}", why=str(error)) from error
        file.seek(0)
        return _BEFORE + file.read() + _AFTER
