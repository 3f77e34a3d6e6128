"""Programs beside those that run, on copies of their maps."""

from __future__ import annotations

import contextlib
import errno

from ..errors import KernelError, RaceError, UnsupportedError
from ..kernel import asm, uapi
from ..kernel.descriptor import Descriptor
from ..kernel.program import Program
from ..model.chain import Member
from ..model.source import Image
from ..programs import image, loading, words
from ..roots import dispatcher
from ..roots.construct import check_same
from .copies import CannotCopyError, Copies


class Programs:
    """Programs beside those that run, on copies of their maps; `known` are the maps in use."""

    def __init__(
        self, closing: contextlib.ExitStack, known: frozenset[int], live_maps: bool
    ) -> None:
        self.closing, self.known, self.live_maps = closing, known, live_maps
        self.copies = Copies(closing)
        self.pinned: dict[str, int] = {}

    def own(self, what: Descriptor) -> int:
        return self.closing.enter_context(what).fd

    def of(self, member: Member) -> int | None:
        """The descriptor of what does with a packet what the member does; None: a vacant slot."""
        if not member.id and not member.source:
            return None
        if member.devbound:
            raise untried(member, "the kernel makes no test runs of programs bound to a device")
        try:
            return self._new(member) if member.source else self._running(member)
        except CannotCopyError as error:
            raise untried(
                member,
                str(error),
                "" if self.live_maps else "xdpctl test --live-maps runs it on the maps in use",
            ) from error

    def _running(self, member: Member) -> int:
        try:
            program = Program.by_id(member.id)
        except KernelError as error:
            if error.errno != errno.ENOENT:
                raise
            raise RaceError(
                f"{member.known_as} (id {member.id}) is gone from the kernel",
                hint="try it once more",
            ) from error
        fd, info = self.own(program), program.info
        code = image.of(info)
        stands_for = self._stand_ins(asm.maps_of(code.code) if code else set(info.map_ids))
        if code and not asm.makes_tail_calls(code.code):
            return self._load(member, code, stands_for)
        if any(number != other for number, other in stands_for.items()):
            raise CannotCopyError(
                "its code is not kept with it: another tool or an earlier xdpctl has loaded it, or "
                "it uses something of a kernel module"
            )
        return fd if info.type == uapi.BPF_PROG_TYPE_XDP else self._alone(member, program)

    def _new(self, member: Member) -> int:
        """A member to be. Its maps are its own already, but for those that are pinned."""
        assert member.source is not None
        if code := member.source.image:  # its maps are there already: it will run on them
            return self._load(member, code, self._stand_ins(asm.maps_of(code.code)))
        if member.source.maps_of and not member.source.forced:
            check_same(member, None)
        loaded = loading.load(member.source, member.frags, apart=True)
        info = self.closing.enter_context(loaded).program.info
        code = image.of(info)
        named = asm.maps_of(code.code) if code else {*info.map_ids}
        stands_for = {number: number for number in named}
        stands_for |= self._stand_ins(named & self.known)
        for path, one in loaded.maps.items():
            number = one.info.id
            stands_for[number] = self.pinned.setdefault(path, number)
        if all(number == other for number, other in stands_for.items()):
            return loaded.program.fd
        if code is None or loaded.arrays:
            raise CannotCopyError(
                "it shares maps, and uses something of a kernel module or makes tail calls"
            )
        return self._load(member, code, stands_for)

    def _stand_ins(self, map_ids: set[int]) -> dict[int, int]:
        """What is to be used for maps, by id."""
        return {one: one if self.live_maps else self.copies.of(one) for one in map_ids}

    def _load(self, member: Member, code: Image, stands_for: dict[int, int]) -> int:
        text = asm.with_maps(code.code, stands_for)
        kind, name = uapi.BPF_PROG_TYPE_XDP, member.name
        if code.frags:
            with contextlib.suppress(KernelError):  # before Linux 5.18
                return self.own(Program.load(kind, name, text, gpl=code.gpl, frags=True))
        try:
            return self.own(Program.load(kind, name, text, gpl=code.gpl))
        except KernelError as error:
            raise words.refused(f"{name} for a trial", error, ext=False) from error

    def _alone(self, member: Member, program: Program) -> int:
        """An EXT program behind a root of its own: the kernel does not run it else."""
        root = dispatcher.build([Member(member.name, frags=member.frags)])
        self.own(root.program)
        self.own(root.hook(program, 0))
        return root.program.fd


def untried(member: Member, why: str, hint: str = "") -> UnsupportedError:
    what = f"{member.name} (id {member.id})" if member.id else member.name
    return UnsupportedError(f"{what} cannot be tried", why=why, hint=hint)
