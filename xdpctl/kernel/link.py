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
    def ext(cls, program_fd: int, root_fd: int, function: int) -> Self:
        """Hook an EXT program onto a function (a BTF id) of a root. Raises KernelError."""
        return cls(libbpf.link_ext(program_fd, root_fd, function))

    @classmethod
    def tracing(cls, program_fd: int) -> Self:
        """Attach a tracing program to what it was loaded for. Raises KernelError."""
        return cls(libbpf.link_tracing(program_fd))

    @classmethod
    def tracepoint(cls, program_fd: int, name: str) -> Self:
        """Attach a program to a tracepoint of the kernel. Raises KernelError."""
        return cls(libbpf.link_tracepoint(program_fd, name))

    @classmethod
    def xdp(cls, program_fd: int, ifindex: int, flags: int) -> Self:
        """Attach a root to an interface. Raises KernelError."""
        return cls(libbpf.link_xdp(program_fd, ifindex, flags))

    @property
    def info(self) -> records.LinkInfo:
        return libbpf.link_info(self.fd)
