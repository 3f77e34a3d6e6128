"""The bare kind of root: a program that has the hook to itself, as the only member."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ..bpffs.directory import InterfacePins
from ..bpffs.mount import Bpffs
from ..model.chain import Kind, Member
from ..model.labels import Attach
from ..model.state import Place, Root, Slot
from .construct import Construction
from .hook import NewRoot


class BareKind:
    """The only member is the root itself, a new one or one that ran before."""

    name: Kind = "bare"

    def build(self, made: Construction) -> None:
        (member,) = made.plan.target.members
        program, info = made.program(member, where="ran before")
        made.built = NewRoot(program, info.id)
        made.members.append(replace(member, id=info.id, tag=info.tag))
        made.places[info.id] = Place(0, 0)

    def make_pins(self, paths: InterfacePins, root_id: int, attach: Attach) -> None:
        paths.make_record(root_id, attach)

    def keeps(self, _slot: Slot) -> bool:
        return True

    def holders(self, _bpffs: Bpffs, _root: Root, _staying: Mapping[int, Member]) -> list[str]:
        return []
