"""Links: what attaches a program, as an owner."""

from __future__ import annotations

from typing import Self

from . import libbpf, records
from .descriptor import Descriptor


class Link(Descriptor):
    """A bpf_link. It attaches its program for as long as there is a descriptor or a pin of it."""

    @classmethod
    def by_id(cls, link_id: int) -> Self:
        """Raises KernelError: ENOENT if it is gone."""
        return cls(libbpf.link_fd(link_id))

    @classmethod
    def ext(cls, program: Descriptor, root: Descriptor, function: int) -> Self:
        """Hook an EXT program onto a function (a BTF id) of a root. Raises KernelError."""
        return cls(libbpf.link_ext(program.fd, root.fd, function))

    @classmethod
    def tracing(cls, program: Descriptor) -> Self:
        """Attach a tracing program to what it was loaded for. Raises KernelError."""
        return cls(libbpf.link_tracing(program.fd))

    @classmethod
    def tracepoint(cls, program: Descriptor, name: str) -> Self:
        """Attach a program to a tracepoint of the kernel. Raises KernelError."""
        return cls(libbpf.link_tracepoint(program.fd, name))

    @classmethod
    def xdp(cls, root: Descriptor, ifindex: int, flags: int) -> Self:
        """Attach a root to an interface. Raises KernelError."""
        return cls(libbpf.link_xdp(root.fd, ifindex, flags))

    @property
    def info(self) -> records.LinkInfo:
        return libbpf.link_info(self.fd)

    def update(self, root: Descriptor, expected: Descriptor) -> None:
        """Exchange the program of an XDP link. Raises KernelError: EPERM if it runs another one."""
        libbpf.link_update(self.fd, root.fd, expected.fd)

    def detach(self) -> None:
        """Raises KernelError."""
        libbpf.link_detach(self.fd)
