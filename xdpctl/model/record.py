"""The record in which a root keeps its chain: libxdp's protocol, and those of our own."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence

from ..kernel import uapi
from ..value import Value
from .chain import VACANT, Member

ENTRY = "xdp_dispatcher"
"""The root's name, as libxdp's protocol wants it, and its entry function's."""

WIDE = "xdpctl_wide"
"""The name of a dispatcher with more slots than libxdp's record has places."""

FUSED = "xdpctl_fused"
"""A fused root's name: another one, for libxdp's tools could not read its record."""

FUSED_RECORD = "xdpctl_chain"
"""The name of the map that is bound to a fused root."""

MAX_SLOTS = 200
"""Members of a chain, of either kind. Linux takes 256 functions in one program."""

LIBXDP_SLOTS = 10
"""Members of a chain in libxdp's protocol; a dispatcher with more is a wide one."""

MAGIC = 236
PROTOCOLS = (1, 2, 3)
PROTOCOL = 2
"""What a new root has: libxdp's tools from 1.3 on read it, those that write 3 as well."""
BINDING = 3
"""What a root that is bound to its device has: libxdp's tools see in it that it is."""

# libxdp's configuration record, protocol 2 (3 adds a byte and padding, 1 lacks the first line's
# magic and version, and the flags): magic, version, number of programs, frags, then ten words each
# of chain actions, priorities and program flags; last whether the root is bound to its device.
_CONFIG = struct.Struct("=4B10I10I10I")
_CONFIG_V3 = struct.Struct("=4B10I10I10IB3x")
_CONFIG_V1 = struct.Struct("=B3x10I10I")
# Our own: magic, version, number of programs, frags; a fused root has then the errno for which EXT
# was refused (0: asked for), a wide dispatcher the protocol that the chain has while it is short.
_OWN = struct.Struct("=4sHHII")
_OWN_VERSION = 1
# Then a line a slot. A fused root's: program id, chain actions, priority, program flags, and the id
# of the program array that the slot calls a held member through, or 0.
_FUSED_MAGIC, _FUSED_SLOT = b"xdpf", struct.Struct("=5I")
# A wide dispatcher's: chain actions, priority, program flags.
_WIDE_MAGIC, _WIDE_SLOT = b"xdpw", struct.Struct("=3I")


def is_wide(count: int) -> bool:
    """Whether a dispatcher for so many members is none that libxdp's protocol has a record for."""
    return count > LIBXDP_SLOTS


def root_name(count: int) -> str:
    """The name of a dispatcher of so many slots, and its entry function's."""
    return WIDE if is_wide(count) else ENTRY


class Config(Value):
    """A root's record of its chain, a value for each slot in use.

    `protocol` is libxdp's version, that of a wide dispatcher for when its chain is short again; 0
    for a fused root, which alone has what stands last. `devbound` tells that the root is bound to
    its device, since a program is: each says so in its flags.
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
                uapi.BPF_F_XDP_HAS_FRAGS * member.frags
                | uapi.BPF_F_XDP_DEV_BOUND_ONLY * member.devbound
                for member in members
            ),
            devbound=any(member.devbound for member in members),
        )

    @property
    def libxdp(self) -> int:
        """The version of libxdp's protocol that the record has; 0: none of its tools reads it."""
        return 0 if is_wide(len(self.actions)) else self.protocol

    def pack(self) -> bytes:
        """A dispatcher's record."""
        if is_wide(len(self.actions)):
            slots = zip(self.actions, self.priorities, self.flags, strict=True)
            return self._pack_own(_WIDE_MAGIC, self.protocol, _WIDE_SLOT, slots)

        def words(values: Sequence[int]) -> list[int]:
            return [*values, *[0] * (LIBXDP_SLOTS - len(values))]

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
        slots = LIBXDP_SLOTS
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

    # --- our own --------------------------------------------------------------------------------

    @classmethod
    def unpack_wide(cls, record: bytes) -> Config | None:
        """None where the record is none of a wide dispatcher's, or a later xdpctl's."""
        found = _unpack_own(_WIDE_MAGIC, _WIDE_SLOT, record)
        if found is None:
            return None
        frags, protocol, lines = found
        if protocol not in PROTOCOLS or not is_wide(len(lines)):
            return None
        actions, priorities, flags = zip(*lines, strict=True)
        bound = any(one & uapi.BPF_F_XDP_DEV_BOUND_ONLY for one in flags)
        return cls(protocol, frags, actions, priorities, flags, bound)

    def pack_fused(self) -> bytes:
        slots = zip(
            self.programs, self.actions, self.priorities, self.flags, self.arrays, strict=True
        )
        return self._pack_own(_FUSED_MAGIC, self.why, _FUSED_SLOT, slots)

    @classmethod
    def unpack_fused(cls, record: bytes) -> Config | None:
        """None where the record is none of a fused root's, or a later xdpctl's."""
        found = _unpack_own(_FUSED_MAGIC, _FUSED_SLOT, record)
        if found is None:
            return None
        frags, why, lines = found
        programs, actions, priorities, flags, arrays = (
            zip(*lines, strict=True) if lines else [()] * 5
        )
        return cls(0, frags, actions, priorities, flags, False, programs, arrays, why)

    def _pack_own(
        self, magic: bytes, word: int, slot: struct.Struct, lines: Iterable[tuple[int, ...]]
    ) -> bytes:
        head = _OWN.pack(magic, _OWN_VERSION, len(self.actions), self.frags, word)
        return head + b"".join(slot.pack(*line) for line in lines)


def _unpack_own(
    magic: bytes, slot: struct.Struct, record: bytes
) -> tuple[bool, int, list[tuple[int, ...]]] | None:
    """Frags, the word that the kind of record has, and its lines."""
    if len(record) < _OWN.size:
        return None
    found, version, count, frags, word = _OWN.unpack_from(record)
    if (found, version, _OWN.size + count * slot.size) != (magic, _OWN_VERSION, len(record)):
        return None
    return bool(frags), word, [*slot.iter_unpack(record[_OWN.size :])]
