"""The record in which a root keeps its chain: libxdp's protocol, and a fused root's own."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

from .chain import VACANT, Kind, Member
from .kernel import libbpf

ENTRY = "xdp_dispatcher"
"""The root's name, as libxdp's protocol wants it, and its entry function's."""

FUSED = "xdpctl_fused"
"""A fused root's name: another one, for libxdp's tools could not read its record."""

FUSED_RECORD = "xdpctl_chain"
"""The name of the map that is bound to a fused root."""

MAX_SLOTS: dict[Kind, int] = {"ext": 10, "fused": 200}
"""Members of a chain: ten in libxdp's protocol. Linux takes 256 functions in one program."""

MAGIC = 236
PROTOCOLS = (1, 2, 3)
PROTOCOL = 2
"""What a new root has: libxdp's tools from 1.3 on read it, those that write 3 as well."""

# libxdp's configuration record, protocol 2 (3 adds a byte and padding, 1 lacks the first line's
# magic and version, and the flags): magic, version, number of programs, frags, then ten words each
# of chain actions, priorities and program flags; last whether the root is bound to its device.
_CONFIG = struct.Struct("=4B10I10I10I")
_CONFIG_V3 = struct.Struct("=4B10I10I10IB3x")
_CONFIG_V1 = struct.Struct("=B3x10I10I")
# A fused root's: magic, version, number of programs, frags, the errno for which EXT was refused (0:
# asked for); then a line a slot: program id, chain actions, priority, program flags, and the id of
# the program array that the slot calls a held member through, or 0.
_FUSED = struct.Struct("=4sHHII")
_FUSED_SLOT = struct.Struct("=5I")
_FUSED_MAGIC, _FUSED_VERSION = b"xdpf", 1


class Config(NamedTuple):
    """A root's record of its chain, a value for each slot in use.

    `protocol` is libxdp's version; 0 for a fused root, which alone has what stands last. `devbound`
    tells that the root and every program are loaded for their device alone.
    """

    protocol: int
    frags: bool
    actions: tuple[int, ...]
    priorities: tuple[int, ...]
    flags: tuple[int, ...]
    devbound: bool = False
    programs: tuple[int, ...] = ()
    arrays: tuple[int, ...] = ()
    why: int = 0

    @classmethod
    def of(cls, members: Sequence[Member], protocol: int = PROTOCOL) -> Config:
        return cls(
            protocol=protocol,
            frags=protocol != 1 and all(member.frags for member in members),
            actions=tuple(member.actions for member in members),
            priorities=tuple(member.priority for member in members),
            flags=tuple(
                libbpf.BPF_F_XDP_HAS_FRAGS * member.frags
                | libbpf.BPF_F_XDP_DEV_BOUND_ONLY * member.devbound
                for member in members
            ),
            devbound=all(member.devbound for member in members),
        )

    def pack(self) -> bytes:
        def words(values: Sequence[int]) -> list[int]:
            return [*values, *[0] * (MAX_SLOTS["ext"] - len(values))]

        actions = words([mask | 1 << VACANT for mask in self.actions])
        priorities, flags = words(self.priorities), words(self.flags)
        if self.protocol == 1:
            return _CONFIG_V1.pack(len(self.actions), *actions, *priorities)
        head = MAGIC, self.protocol, len(self.actions), self.frags
        if self.protocol == 2:
            return _CONFIG.pack(*head, *actions, *priorities, *flags)
        return _CONFIG_V3.pack(*head, *actions, *priorities, *flags, self.devbound)

    @classmethod
    def unpack(cls, record: bytes) -> Config | None:
        """Read protocol 1, 2 or 3; None where the record is none of them."""
        slots = MAX_SLOTS["ext"]
        sizes = {2: _CONFIG.size, 3: _CONFIG_V3.size}
        if len(record) < _CONFIG_V1.size:
            return None
        if record[0] == MAGIC and len(record) >= sizes.get(record[1], len(record) + 1):
            _magic, protocol, enabled, frags, *words = _CONFIG.unpack_from(record)
        elif record[0] != MAGIC:
            enabled, *words = _CONFIG_V1.unpack_from(record)
            protocol, frags, words = 1, 0, [*words, *[0] * slots]
        else:
            return None
        if enabled > slots:
            return None
        groups = [words[start : start + enabled] for start in (0, slots, 2 * slots)]
        return cls(
            protocol=protocol,
            frags=bool(frags),
            actions=tuple(mask & ~(1 << VACANT) for mask in groups[0]),
            priorities=tuple(groups[1]),
            flags=tuple(groups[2]),
            devbound=protocol == 3 and record[_CONFIG.size] != 0,
        )

    # --- a fused root's -------------------------------------------------------------------------

    def pack_fused(self) -> bytes:
        head = _FUSED.pack(_FUSED_MAGIC, _FUSED_VERSION, len(self.programs), self.frags, self.why)
        slots = zip(
            self.programs, self.actions, self.priorities, self.flags, self.arrays, strict=True
        )
        return head + b"".join(_FUSED_SLOT.pack(*slot) for slot in slots)

    @classmethod
    def unpack_fused(cls, record: bytes) -> Config | None:
        """None where the record is none of a fused root's, or a later xdpctl's."""
        if len(record) < _FUSED.size:
            return None
        magic, version, count, frags, why = _FUSED.unpack_from(record)
        size = _FUSED.size + count * _FUSED_SLOT.size
        if (magic, version) != (_FUSED_MAGIC, _FUSED_VERSION) or len(record) != size:
            return None
        slots = [*_FUSED_SLOT.iter_unpack(record[_FUSED.size :])]
        programs, actions, priorities, flags, arrays = (
            zip(*slots, strict=True) if slots else [()] * 5
        )
        return cls(0, bool(frags), actions, priorities, flags, False, programs, arrays, why)
