"""Maps wholesale: their contents, and a new map like another."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator
from ctypes import c_uint32
from functools import cache
from typing import Self

from ..errors import KernelError
from . import abi, libbpf, uapi
from .descriptor import Descriptor
from .records import MapInfo, MapShape

_PERCPU = (
    uapi.BPF_MAP_TYPE_PERCPU_HASH,
    uapi.BPF_MAP_TYPE_PERCPU_ARRAY,
    uapi.BPF_MAP_TYPE_LRU_PERCPU_HASH,
    uapi.BPF_MAP_TYPE_PERCPU_CGROUP_STORAGE,
)
_KNOWN = 33
"""The last map type of Linux 6.18 (<linux/bpf.h>); a later one may be per CPU."""
_MAX_RECORD = 16 << 20
"""Bytes of a record that is kept in a map: the code of the largest program has eight million."""
_BATCH_BYTES = 4 << 20
_ENOTSUPP = 524


class Map(Descriptor):
    """A map in the kernel, which stays there for as long as somebody holds it."""

    @classmethod
    def by_id(cls, map_id: int) -> Self:
        """Raises KernelError: ENOENT if it is gone."""
        return cls(libbpf.map_fd(map_id))

    @classmethod
    def create(
        cls, kind: int, name: str, value_size: int, flags: int = 0, elements: int = 1
    ) -> Self:
        """Make a map of one element or more, its keys of 4 bytes. Raises KernelError."""
        return cls(libbpf.map_create(kind, name, value_size, flags=flags, elements=elements))

    @classmethod
    def like(cls, info: MapInfo, inner: Map | None = None) -> Self:
        """Make an empty map of the same shape and types, see `create_like`. Raises KernelError."""
        return cls(create_like(info, inner.fd if inner else 0))

    @property
    def info(self) -> MapInfo:
        return libbpf.map_info(self.fd)

    def lookup(self, info: MapInfo, key: bytes) -> bytes:
        """An element's value, see `lookup`; `info` is the map's own. Raises KernelError."""
        return lookup(self.fd, info, key)

    def entries(self, info: MapInfo) -> Iterator[tuple[bytes, bytes]]:
        """The elements, many at once, see `entries`. Raises KernelError."""
        return entries(self.fd, info)

    def update(self, key: bytes, value: bytes) -> None:
        """Put an element there. Raises KernelError."""
        libbpf.map_update(self.fd, key, value)

    def delete(self, key: bytes) -> None:
        """Remove an element. Raises KernelError: ENOENT if it is not there."""
        libbpf.map_delete(self.fd, key)


@cache
def possible_cpus() -> int:
    return libbpf.call("libbpf_num_possible_cpus")


def is_percpu(info: MapInfo) -> bool:
    """Whether each CPU has values of its own."""
    return info.type in _PERCPU


def value_size(info: MapInfo) -> int:
    """What bpf(2) reads and writes as an element's value: with per-CPU maps one for each CPU."""
    each = -(-info.value_size // 8) * 8
    return each * possible_cpus() if is_percpu(info) else info.value_size


def lookup(fd: int, info: MapInfo, key: bytes) -> bytes:
    """An element's value, those of all CPUs in a per-CPU map. Raises KernelError.

    The kernel reads as many bytes of the key and writes as many of the value as the map has
    (bpf_map_value_size() in kernel/bpf/syscall.c), whatever room they were given: hence the info of
    the map itself, and room for each CPU's value in a map of a type that is not known here.
    """
    if len(key) != info.key_size:
        raise KernelError("bpf_map_lookup_elem", errno.EINVAL)
    size = value_size(info)
    room = size if info.type <= _KNOWN else -(-size // 8) * 8 * possible_cpus()
    value = ctypes.create_string_buffer(room)
    libbpf.call("bpf_map_lookup_elem", fd, key, value)
    return value.raw[:size]


def record(fd: int, info: MapInfo, flags: int = 0) -> bytes | None:
    """What a map of a single value keeps; None where it is not such a map.

    That is an array of one element, with at least these `flags`. Nothing is read of any other: an
    element may be missing, and other kinds of map mean other things by their sizes.
    """
    shape = (info.type, info.key_size, info.max_entries, info.flags & flags)
    if shape != (uapi.BPF_MAP_TYPE_ARRAY, 4, 1, flags) or not 0 < info.value_size <= _MAX_RECORD:
        return None
    return lookup(fd, info, bytes(4))


def create(shape: MapShape, inner_fd: int = 0) -> int:
    """Make an empty map of a shape, without a name or types; returns its descriptor."""
    options = abi.MapCreateOpts(map_flags=shape.flags, inner_map_fd=inner_fd)
    sizes = shape.key_size, shape.value_size, shape.max_entries
    return libbpf.call("bpf_map_create", shape.type, None, *sizes, ctypes.byref(options))


def create_like(info: MapInfo, inner_fd: int = 0) -> int:
    """Make an empty map of the same shape and types; returns its descriptor.

    What user space may do with it and on which node it lies is left out.
    """
    flags = info.flags & ~(uapi.BPF_F_NUMA_NODE | uapi.BPF_F_RDONLY | uapi.BPF_F_WRONLY)
    if info.type in (uapi.BPF_MAP_TYPE_DEVMAP, uapi.BPF_MAP_TYPE_DEVMAP_HASH):
        # The kernel adds it, and refuses it where it is asked for: Linux kernel commit 0cdbb4b09a06
        # "devmap: Allow map lookups from eBPF" (in v5.3).
        flags &= ~uapi.BPF_F_RDONLY_PROG
    options = abi.MapCreateOpts(map_flags=flags, inner_map_fd=inner_fd)
    btf_fd = -1
    if info.btf_id and (info.btf_key or info.btf_value):
        btf_fd = libbpf.call("bpf_btf_get_fd_by_id", info.btf_id)
        options.btf_fd = btf_fd
        options.btf_key_type_id, options.btf_value_type_id = info.btf_key, info.btf_value
    sizes = info.key_size, info.value_size, info.max_entries
    try:
        name = info.name.encode()
        return libbpf.call("bpf_map_create", info.type, name, *sizes, ctypes.byref(options))
    finally:
        if btf_fd >= 0:
            os.close(btf_fd)


def entries(fd: int, info: MapInfo) -> Iterator[tuple[bytes, bytes]]:
    """A map's elements as they are now, many at once where the kernel can: keys and values.

    Linux kernel commit cb4d03ab499d "bpf: Add generic support for lookup batch op" (in v5.6).
    """
    try:
        yield from _batches(fd, info)
    except KernelError as error:
        if error.errno not in (_ENOTSUPP, errno.EINVAL, errno.EOPNOTSUPP):
            raise
        yield from _one_by_one(fd, info)


def _batches(fd: int, info: MapInfo) -> Iterator[tuple[bytes, bytes]]:
    size = value_size(info)
    room = max(1, min(info.max_entries, _BATCH_BYTES // (info.key_size + size)))
    place = ctypes.create_string_buffer(max(info.key_size, 4))
    begun = False
    while True:
        keys = ctypes.create_string_buffer(room * info.key_size)
        values = ctypes.create_string_buffer(room * size)
        count, last = c_uint32(room), False
        start = place if begun else None
        try:
            libbpf.call(
                "bpf_map_lookup_batch", fd, start, place, keys, values, ctypes.byref(count), None
            )
        except KernelError as error:
            if error.errno == errno.ENOSPC:  # a bucket of a hash table has more
                room *= 2
                continue
            if error.errno != errno.ENOENT:
                raise
            last = True
        begun = True
        if count.value:
            yield keys.raw[: count.value * info.key_size], values.raw[: count.value * size]
        if last:
            return


def _one_by_one(fd: int, info: MapInfo) -> Iterator[tuple[bytes, bytes]]:
    """The same key by key; what comes and goes meanwhile may be met twice, or not at all."""
    key, following = None, ctypes.create_string_buffer(info.key_size)
    for _step in range(2 * info.max_entries):
        try:
            libbpf.call("bpf_map_get_next_key", fd, key, following)
        except KernelError as error:
            if error.errno == errno.ENOENT:
                return
            raise
        key = following.raw
        with libbpf.absent_is_fine():
            yield key, lookup(fd, info, key)


def fill(fd: int, info: MapInfo, keys: bytes, values: bytes) -> None:
    """Put elements into a map."""
    size = value_size(info)
    total = len(keys) // info.key_size
    count = c_uint32(total)
    try:
        libbpf.call("bpf_map_update_batch", fd, keys, values, ctypes.byref(count), None)
    except KernelError as error:
        if error.errno not in (_ENOTSUPP, errno.EINVAL, errno.EOPNOTSUPP):
            raise
        for number in range(total):
            key = keys[number * info.key_size : (number + 1) * info.key_size]
            libbpf.map_update(fd, key, values[number * size : (number + 1) * size])
