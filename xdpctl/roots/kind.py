"""What a kind of root is: how one is built, what is pinned of it, who else holds its members.

Each kind is a module of its own (dispatcher.py, fused.py, bare.py); kinds.py has them by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from ..bpffs.directory import InterfacePins
from ..bpffs.mount import Bpffs
from ..model.chain import Kind, Member
from ..model.labels import Attach
from ..model.state import Root, Slot
from .construct import Construction


class RootKind(Protocol):
    """A kind of root."""

    @property
    def name(self) -> Kind:
        """As plans and records call it."""

    def build(self, made: Construction) -> None:
        """Load the root for the plan of a construction, and put every member on it.

        The root is attached nowhere. Raises XdpctlError, KernelError or LostRace.
        """

    def make_pins(self, paths: InterfacePins, root_id: int, attach: Attach) -> None:
        """Record a root, and make the directory for what is pinned of it."""

    def keeps(self, slot: Slot) -> bool:
        """Whether it is xdpctl that keeps the program of a slot in the kernel."""

    def holders(self, bpffs: Bpffs, root: Root, staying: Mapping[int, Member]) -> list[str]:
        """The names of those members that others hold by a place on this root, of some by id."""


class ChainKind:
    """What the kinds of a chain's root have in common: a directory of pins."""

    def make_pins(self, paths: InterfacePins, root_id: int, attach: Attach) -> None:
        paths.make_dispatch(root_id, attach)

    def keeps(self, slot: Slot) -> bool:
        return bool(slot.pin)

    def holders(self, _bpffs: Bpffs, root: Root, staying: Mapping[int, Member]) -> list[str]:
        return [
            slot.member.name
            for slot in root.slots
            if slot.member
            and slot.member.id in staying
            and (slot.origin or slot.array_id or (slot.link_id and not slot.pin))
        ]
