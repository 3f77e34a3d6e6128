"""libxdp's multi-program protocol: the record in which a dispatcher keeps its chain."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

from .chain import MAX_MEMBERS, VACANT, Member
from .kernel import libbpf

ENTRY = "xdp_dispatcher"
"""The root's name, as libxdp's protocol wants it, and its entry function's."""

MAGIC = 236
PROTOCOL = 2
# libxdp's configuration record, protocol 2 (3 adds a byte and padding, 1 lacks the first line's
# magic and version): magic, version, number of programs, frags, then ten words each of chain
# actions, priorities and program flags.
_CONFIG = struct.Struct("=4B10I10I10I")
_CONFIG_V1 = struct.Struct("=B3x10I10I")


class Config(NamedTuple):
    """A dispatcher's record of its chain, a value for each slot in use."""

    protocol: int
    frags: bool
    actions: tuple[int, ...]
    priorities: tuple[int, ...]
    flags: tuple[int, ...]

    @classmethod
    def of(cls, members: Sequence[Member]) -> Config:
        return cls(
            protocol=PROTOCOL,
            frags=all(member.frags for member in members),
            actions=tuple(member.actions for member in members),
            priorities=tuple(member.priority for member in members),
            flags=tuple(libbpf.BPF_F_XDP_HAS_FRAGS * member.frags for member in members),
        )

    def pack(self) -> bytes:
        def words(values: Sequence[int]) -> list[int]:
            return [*values, *[0] * (MAX_MEMBERS - len(values))]

        return _CONFIG.pack(
            MAGIC,
            PROTOCOL,
            len(self.actions),
            self.frags,
            *words([mask | 1 << VACANT for mask in self.actions]),
            *words(self.priorities),
            *words(self.flags),
        )

    @classmethod
    def unpack(cls, record: bytes) -> Config | None:
        """Read protocol 1, 2 or 3; None where the record is none of them."""
        if len(record) >= _CONFIG.size and record[0] == MAGIC and record[1] in (2, 3):
            _magic, protocol, enabled, frags, *words = _CONFIG.unpack_from(record)
        elif len(record) >= _CONFIG_V1.size and record[0] != MAGIC:
            enabled, *words = _CONFIG_V1.unpack_from(record)
            protocol, frags, words = 1, 0, [*words, *[0] * MAX_MEMBERS]
        else:
            return None
        if enabled > MAX_MEMBERS:
            return None
        groups = [words[start : start + enabled] for start in (0, MAX_MEMBERS, 2 * MAX_MEMBERS)]
        return cls(
            protocol=protocol,
            frags=bool(frags),
            actions=tuple(mask & ~(1 << VACANT) for mask in groups[0]),
            priorities=tuple(groups[1]),
            flags=tuple(groups[2]),
        )
