"""Copies of maps, so that programs can be tried without a trace in the maps of those that run."""

from __future__ import annotations

import contextlib
import sys

from ..errors import KernelError
from ..kernel import maps, uapi
from ..kernel.maps import Map
from ..kernel.records import MapInfo

_COPIED = (
    *(uapi.BPF_MAP_TYPE_HASH, uapi.BPF_MAP_TYPE_ARRAY, uapi.BPF_MAP_TYPE_PERCPU_HASH),
    *(uapi.BPF_MAP_TYPE_PERCPU_ARRAY, uapi.BPF_MAP_TYPE_LRU_HASH),
    *(uapi.BPF_MAP_TYPE_LRU_PERCPU_HASH, uapi.BPF_MAP_TYPE_LPM_TRIE),
)
_OUTER = (uapi.BPF_MAP_TYPE_ARRAY_OF_MAPS, uapi.BPF_MAP_TYPE_HASH_OF_MAPS)
# What programs write to and never read.
_EMPTY = (
    *(uapi.BPF_MAP_TYPE_PERF_EVENT_ARRAY, uapi.BPF_MAP_TYPE_RINGBUF),
    uapi.BPF_MAP_TYPE_STACK_TRACE,
)
# What programs can read alone.
_SHARED = (
    *(uapi.BPF_MAP_TYPE_DEVMAP, uapi.BPF_MAP_TYPE_DEVMAP_HASH, uapi.BPF_MAP_TYPE_CPUMAP),
    *(uapi.BPF_MAP_TYPE_XSKMAP, uapi.BPF_MAP_TYPE_CGROUP_ARRAY),
)


class CannotCopyError(Exception):
    """A map cannot be copied; the text says why."""


class Copies:
    """Copies of maps, each made when it is first asked for; they live as long as `closing`."""

    def __init__(self, closing: contextlib.ExitStack) -> None:
        self._closing = closing
        self._made: dict[int, int] = {}

    def of(self, map_id: int) -> int:
        """The id of what is to be used for a map: its copy, or itself if no program can change it.

        Raises CannotCopyError.
        """
        if map_id not in self._made:
            with Map.by_id(map_id) as found:
                info = found.info
                try:
                    self._made[map_id] = self._copy(found, info)
                except KernelError as error:
                    raise CannotCopyError(
                        f"its map {info.name} cannot be copied: {error}"
                    ) from error
        return self._made[map_id]

    def _copy(self, what: Map, info: MapInfo) -> int:
        if info.type in _OUTER:
            return self._outer(what, info)
        if info.type in _SHARED or info.flags & uapi.BPF_F_RDONLY_PROG:
            return info.id
        if info.type not in _COPIED + _EMPTY:
            raise CannotCopyError(
                f"what is in its program array {info.name} cannot be read"
                if info.type == uapi.BPF_MAP_TYPE_PROG_ARRAY
                else f"what is in its map {info.name} (type {info.type}) cannot be copied"
            )
        new = self._new(info)
        if info.type in _COPIED:
            for keys, values in what.entries(info):
                maps.fill(new.fd, info, keys, values)
        return new.info.id

    def _outer(self, what: Map, info: MapInfo) -> int:
        """A map of maps: another one, of copies. An empty one says nothing of what it may have."""
        inner = {
            keys[start : start + info.key_size]: int.from_bytes(
                values[number * 4 : number * 4 + 4], sys.byteorder
            )
            for keys, values in what.entries(info)
            for number, start in enumerate(range(0, len(keys), info.key_size))
        }
        if not inner:
            return info.id
        copies = {
            key: self._closing.enter_context(Map.by_id(self.of(map_id)))
            for key, map_id in inner.items()
        }
        new = self._new(info, next(iter(copies.values())))
        for key, one in copies.items():
            new.update(key, one.fd.to_bytes(4, sys.byteorder))
        return new.info.id

    def _new(self, info: MapInfo, inner: Map | None = None) -> Map:
        return self._closing.enter_context(Map.like(info, inner))
