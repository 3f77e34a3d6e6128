"""Descriptors that somebody owns: what is opened in a `with` is closed at its end."""

from __future__ import annotations

import os
from typing import Literal, Self

from . import libbpf


class Descriptor:
    """A descriptor of a BPF object; closed by its block or by `close`, and once alone."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    @classmethod
    def pinned(cls, path: str) -> Self:
        """Open a pin. Raises KernelError."""
        return cls(libbpf.get(path))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """May be called again."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def handed_over(self) -> int:
        """The bare descriptor, which is the caller's to close from here on."""
        fd, self.fd = self.fd, -1
        return fd

    def is_of(self, kind: Literal["link", "prog", "map"]) -> bool:
        """Whether it is of a kind: the kernel tells the facts of any, each in its own form.

        Its names are anon_inode:bpf_link, anon_inode:bpf-prog and anon_inode:bpf-map, some in
        brackets.
        """
        return os.readlink(f"/proc/self/fd/{self.fd}").rstrip("]").endswith(kind)

    def duplicate(self) -> Self:
        """The same object by a descriptor of its own."""
        return type(self)(os.dup(self.fd))

    def pin(self, path: str) -> None:
        """Raises KernelError."""
        libbpf.pin(self.fd, path)
