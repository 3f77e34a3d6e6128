"""Maps of programs for Python: a map of bytes to bytes, whoever made it.

with xdpctl.Map.pinned("/sys/fs/bpf/blocked") as blocked:
    blocked[key] = bytes(8)
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, MutableMapping
from types import TracebackType
from typing import Self

from ..errors import KernelError, NotFoundError, UsageError
from ..kernel import maps
from ..kernel.program import Program
from ..programs import image


class Map(MutableMapping[bytes, bytes]):
    """A map in the kernel. Keys and values are bytes, as long as the program has them.

    In a map with values for each CPU one value is all of them, each filled up to 8 bytes; one that
    is written may also be a single value, for all. `per_cpu` takes them apart.

    It keeps the map in the kernel until it is closed, or nobody refers to it any more. Other
    programs change it meanwhile: what comes and goes while one goes through it may be met or not.
    Raises KeyError for an element that is not there, UsageError for one of another length, and an
    XdpctlError where the kernel refuses.
    """

    def __init__(self, owner: maps.Map) -> None:
        self._owner = owner
        self._info = owner.info

    @classmethod
    def pinned(cls, path: str | os.PathLike[str]) -> Self:
        """Open a map by its pin. Raises NotFoundError, or an XdpctlError for what is no map."""
        where = os.fspath(path)
        try:
            found = maps.Map.pinned(where)
        except KernelError as error:
            if error.errno == errno.ENOENT:
                raise NotFoundError(f"no map is pinned at {where}") from error
            raise error.explained() from error
        # The kernel tells of programs and links by the same call as of maps.
        if not found.is_of("map"):
            found.close()
            raise UsageError(f"what is pinned at {where} is no map")
        return cls(found)

    @property
    def id(self) -> int:
        return self._info.id

    @property
    def name(self) -> str:
        """As the kernel keeps it: 15 characters at most."""
        return self._info.name

    @property
    def key_size(self) -> int:
        """In bytes."""
        return self._info.key_size

    @property
    def value_size(self) -> int:
        """In bytes; of one CPU's value."""
        return self._info.value_size

    def per_cpu(self, key: bytes) -> list[bytes]:
        """The value of each possible CPU; the only one of a map without."""
        value = self[key]
        if not maps.is_percpu(self._info):
            return [value]
        step = len(value) // maps.possible_cpus()
        return [value[at : at + self.value_size] for at in range(0, len(value), step)]

    def close(self) -> None:
        """Let the map go; may be called again."""
        self._owner.close()

    def __getitem__(self, key: bytes) -> bytes:
        try:
            return self._owner.lookup(self._info, self._key(key))
        except KernelError as error:
            raise self._explained(error, key) from error

    def __setitem__(self, key: bytes, value: bytes) -> None:
        whole = maps.value_size(self._info)
        if maps.is_percpu(self._info) and len(value) == self.value_size:
            value = value.ljust(whole // maps.possible_cpus(), b"\0") * maps.possible_cpus()
        if len(value) != whole:
            raise self._misfit("value", len(value), self.value_size)
        try:
            self._owner.update(self._key(key), value)
        except KernelError as error:
            raise self._explained(error, key) from error

    def __delitem__(self, key: bytes) -> None:
        try:
            self._owner.delete(self._key(key))
        except KernelError as error:
            raise self._explained(error, key) from error

    def __iter__(self) -> Iterator[bytes]:
        size = self.key_size
        try:
            for keys, _values in self._owner.entries(self._info):
                yield from (keys[at : at + size] for at in range(0, len(keys), size))
        except KernelError as error:
            raise error.explained() from error

    def __len__(self) -> int:
        """By going through it: the kernel does not count them."""
        return sum(1 for _key in self)

    def __repr__(self) -> str:
        return f"<Map {self.name} (id {self.id})>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_info"):
            self.close()

    def _key(self, key: bytes) -> bytes:
        if len(key) != self.key_size:
            raise self._misfit("key", len(key), self.key_size)
        return key

    def _misfit(self, what: str, size: int, wanted: int) -> UsageError:
        return UsageError(
            f"a {what} of {size} bytes does not fit the map {self.name}",
            why=f"its {what}s have {wanted}",
        )

    def _explained(self, error: KernelError, key: bytes) -> Exception:
        return KeyError(key) if error.errno == errno.ENOENT else error.explained()


def of_program(program_id: int) -> dict[str, Map]:
    """The maps that a program uses, by name; of several of one name the first.

    Raises NotFoundError where there is no such program.
    """
    try:
        with Program.by_id(program_id) as program:
            found = [Map(maps.Map.by_id(map_id)) for map_id in program.info.map_ids]
    except KernelError as error:
        if error.errno == errno.ENOENT:
            raise NotFoundError(f"program {program_id} is not in the kernel") from error
        raise error.explained() from error
    # The image is xdpctl's own.
    return {one.name: one for one in reversed(found) if one.name != image.NAME}
