"""What the kernel tells of programs, maps and links."""

from __future__ import annotations

from typing import Literal, NamedTuple

from . import uapi


class ProgInfo(NamedTuple):
    """What the kernel tells of a program; `load_time` in ns since boot, `size` in bytes.

    `gpl` tells whether its licence goes together with the GPL.
    """

    id: int
    type: int
    name: str
    tag: str
    load_time: int
    size: int
    btf_id: int
    map_ids: tuple[int, ...]
    gpl: bool


class MapShape(NamedTuple):
    """What two maps have to have in common to be exchanged; sizes in bytes."""

    type: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int

    def __str__(self) -> str:
        return (
            f"type {self.type}, key {self.key_size} B, value {self.value_size} B, "
            f"{self.max_entries} entries, flags {self.flags:#x}"
        )


class MapInfo(NamedTuple):
    """What the kernel tells of a map; sizes in bytes, by default those of `map_create`."""

    id: int
    type: int
    name: str
    value_size: int
    key_size: int = 4
    max_entries: int = 1
    flags: int = 0
    btf_id: int = 0
    btf_key: int = 0
    btf_value: int = 0

    @property
    def shape(self) -> MapShape:
        return MapShape(self.type, self.key_size, self.value_size, self.max_entries, self.flags)


class LinkInfo(NamedTuple):
    """What the kernel tells of a link. The target of an EXT link is told from Linux 5.13 on.

    Linux kernel commit 441e8c66b23e "bpf: Return target info when a tracing bpf_link is queried".
    """

    id: int
    type: int
    prog_id: int
    word: tuple[int, ...]

    @property
    def ifindex(self) -> int:
        """Of an XDP link: the device, 0 when that is gone."""
        return self.word[0]

    @property
    def is_ext(self) -> bool:
        """An EXT link; fentry and fexit links have the same type and another attach type."""
        return self.type == uapi.BPF_LINK_TYPE_TRACING and self.word[0] == 0

    @property
    def target(self) -> int:
        """Of an EXT link: the program whose function it replaces, 0 where it is not told."""
        return self.word[1]

    @property
    def function(self) -> int:
        """Of an EXT link: the BTF id of the function that it replaces, 0 where it is not told."""
        return self.word[2]


Handle = tuple[Literal["link_id", "map_id", "prog_id"], int]
