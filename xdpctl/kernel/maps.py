"""Maps wholesale: their contents, and a new map like another."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator
from ctypes import c_uint32
from functools import cache

from ..errors import KernelError
from . import abi, libbpf
from .records import MapInfo

BPF_MAP_TYPE_HASH, BPF_MAP_TYPE_PERF_EVENT_ARRAY = 1, 4
BPF_MAP_TYPE_PERCPU_HASH, BPF_MAP_TYPE_PERCPU_ARRAY = 5, 6
BPF_MAP_TYPE_STACK_TRACE, BPF_MAP_TYPE_CGROUP_ARRAY = 7, 8
BPF_MAP_TYPE_LRU_HASH, BPF_MAP_TYPE_LRU_PERCPU_HASH, BPF_MAP_TYPE_LPM_TRIE = 9, 10, 11
BPF_MAP_TYPE_ARRAY_OF_MAPS, BPF_MAP_TYPE_HASH_OF_MAPS = 12, 13
BPF_MAP_TYPE_DEVMAP, BPF_MAP_TYPE_CPUMAP, BPF_MAP_TYPE_XSKMAP = 14, 16, 17
BPF_MAP_TYPE_DEVMAP_HASH, BPF_MAP_TYPE_RINGBUF = 25, 27
BPF_F_NUMA_NODE, BPF_F_RDONLY, BPF_F_WRONLY = 1 << 2, 1 << 3, 1 << 4

_PERCPU = (BPF_MAP_TYPE_PERCPU_HASH, BPF_MAP_TYPE_PERCPU_ARRAY, BPF_MAP_TYPE_LRU_PERCPU_HASH)
_BATCH_BYTES = 4 << 20
_ENOTSUPP = 524


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


def create_like(info: MapInfo, inner_fd: int = 0) -> int:
    """Make an empty map of the same shape and types; returns its descriptor.

    What user space may do with it and on which node it lies is left out.
    """
    flags = info.flags & ~(BPF_F_NUMA_NODE | BPF_F_RDONLY | BPF_F_WRONLY)
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
            yield key, libbpf.map_lookup(fd, key, value_size(info))


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
