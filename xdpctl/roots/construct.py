"""A new root in the making, attached nowhere: what is the same for all kinds of root.

Members are found where they run, or loaded; what they pin is noted and can be taken back. How a
root is made of them is the kind's own (kind.py).
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

from ..bpffs import made as made_pins
from ..bpffs import pin
from ..bpffs.directory import CALLED, InterfacePins
from ..bpffs.places import Beside
from ..errors import KernelError, UnsupportedError, UsageError
from ..kernel import asm, records, uapi
from ..kernel.descriptor import Descriptor
from ..kernel.link import Link
from ..kernel.maps import Map
from ..kernel.program import Program
from ..model.chain import Member
from ..model.labels import Made
from ..model.plan import Plan
from ..model.source import EmptyArray, ReusedMap, Source
from ..model.state import Place
from ..programs import image
from ..programs.binding import Device
from ..value import Value
from .count_code import Counter
from .hook import LostRace, NewRoot
from .peers import Peers, RunningRoot

if TYPE_CHECKING:
    from ..programs.loading import Loaded
    from .counting import Counting


class Hooked(NamedTuple):
    """A member on the new root: its program, and its link if it has one."""

    program: Program
    link: Link | None = None


class Target(Value):
    """What an EXT program is to replace: a function of a root, by its name and its BTF id."""

    root: Program
    name: str
    function: int


@dataclass(eq=False, repr=False)
class Construction:
    """A root under construction.

    `step` reports one. `closing` ends descriptors in any case; `undo` takes back what was made. The
    root is `built` by its kind, or that of an interface that was `joined`, which is one of the
    `peers`.
    """

    plan: Plan
    paths: InterfacePins
    step: Callable[..., None]
    closing: contextlib.ExitStack
    undo: contextlib.ExitStack
    peers: Peers = field(default_factory=Peers)
    joined: str = ""
    built: NewRoot | None = None
    members: list[Member] = field(default_factory=list)
    hooked: list[Hooked] = field(default_factory=list)
    places: dict[int, Place] = field(default_factory=dict)
    holds: dict[int, Descriptor] = field(default_factory=dict)
    renewed: dict[int, int] = field(default_factory=dict)
    maps: dict[str, Map] = field(default_factory=dict)
    loaded: set[int] = field(default_factory=set)
    noted: set[int] = field(default_factory=set)
    empty: list[EmptyArray] = field(default_factory=list)
    reused: list[ReusedMap] = field(default_factory=list)
    counting: Counting | None = None

    @property
    def root(self) -> NewRoot:
        """The root, once it is built."""
        assert self.built is not None
        return self.built

    @property
    def first(self) -> bool:
        return self.plan.flip == "attach"

    # --- roots of others ------------------------------------------------------------------------

    def join(self, root: RunningRoot) -> None:
        """Take a root that another interface runs, with all that is on it.

        Nothing of it has to be locked: what is open here stays, whatever that interface does.
        """
        try:
            program = self.closing.enter_context(Program.by_id(root.id))
            for member in root.members:
                place = root.places[member.id]
                hooked = self.closing.enter_context(Program.by_id(member.id))
                link = Link.by_id(place.link_id) if place.link_id else None
                self.closing.enter_context(link or contextlib.nullcontext())
                self.hooked.append(Hooked(hooked, link))
                self.keep_as(root.home, member.id, member.id)
        except KernelError as error:
            self.peers.forget(root.id)
            raise LostRace from error
        self.built, self.joined = NewRoot(program, root.id), root.interface
        pairs = zip(self.plan.target.members, root.members, strict=True)
        self.members = [replace(wanted, id=one.id, tag=one.tag) for wanted, one in pairs]
        self.places, self.renewed = dict(root.places), dict(root.renewed)
        number, which = ("1", "X") if self.first else ("4", "Y")
        self.step(number, f"took the root {which} that {root.interface} runs", root=root.id)

    def running(self, interface: str) -> RunningRoot:
        """The root as others can join it, once an interface runs it."""
        return RunningRoot(
            interface,
            self.root.id,
            tuple(self.members),
            self.places,
            self.paths.listed(),
            self.renewed,
        )

    def keep_as(self, home: InterfacePins, old: int, new: int) -> None:
        """Pin here what is kept beside a program in a home, for one of this root's."""
        for path, (kind, name) in home.beside(old).items():
            there = os.path.lexists(self.paths.beside_pin(kind, new, name))
            # What calls a program calls that one, and none that is made anew of it.
            if there or (name == CALLED and new != old):
                continue
            with Descriptor.pinned(path) as kept:
                self.keep_beside(kind, new, name, kept)

    # --- members --------------------------------------------------------------------------------

    def put(self, member: Member, info: records.ProgInfo, hooked: Hooked, link_id: int = 0) -> None:
        """A member has the next slot of the new root."""
        slot = len(self.hooked)
        self.hooked.append(hooked)
        self.members.append(replace(member, id=info.id, tag=info.tag))
        self.places[info.id] = Place(slot, link_id)

    def device_of(self, member: Member) -> Device | None:
        """What a new member is loaded for, if not for any device."""
        card = self.plan.mode == "hw"
        return Device(self.paths.ifindex, card) if card or member.devbound else None

    def begin_counting(self) -> None:
        """Have counters, those that are there or new ones."""
        from .counting import Counting

        self.counting = Counting.prepared(self.paths, self.closing, self.undo)

    def count(self) -> None:
        """Count what the members do, if the rules of the interface ask for it."""
        if self.plan.target.rules.counted:
            self.begin_counting()

    def counter(self, slot: int) -> Counter | None:
        """Where a member's packets are counted, if they are to be."""
        if self.counting is None:
            return None
        from .counting import mask_of

        last = slot + 1 == len(self.plan.target.members)
        mask = mask_of(self.members[slot], self.plan.target.rules, last=last)
        return self.counting.counter(self.counting.row(self.members[slot].id, mask, self.undo))

    def hold(self, program_id: int, what: Descriptor) -> None:
        """What holds a held member is its caller's, and nobody else's."""
        self.holds[program_id] = what.duplicate()
        self.undo.callback(self.holds[program_id].close)

    def program(
        self, member: Member, replaced: Target | None = None, where: str = "runs on X"
    ) -> tuple[Program, records.ProgInfo]:
        """A member's program: found where it runs, or loaded from its object.

        As one of type EXT if it is to replace something. `where` says where it is found.
        """
        if member.source is None:
            return self._found(member, replaced, where)
        if loaded := self.peers.program(self.plan, member):
            self.keep_as(loaded.home, loaded.id, loaded.id)
            return self._found(replace(member, id=loaded.id), replaced, "was loaded before")
        target = (replaced.root.fd, replaced.name) if replaced else None
        if member.source.maps_of and not member.source.forced:
            check_same(member, target, self.device_of(member))
        fresh = self._fresh(member, member.source, target)
        self.closing.enter_context(fresh)
        self.undo.callback(fresh.put_back)
        program, info = fresh.program, fresh.program.info
        self.loaded.add(info.id)
        for name, array in fresh.arrays.items():
            self.keep_beside("map", info.id, name, array)
        for name, callee in fresh.callees.items():
            self.loaded.add(callee.info.id)
            self.keep_beside("callee", info.id, name, callee)
        # The first of several that ask for one name makes the pin, and the others would not share
        # its map: they are built again with it there.
        if self.maps.keys() & fresh.maps.keys():
            self.pin_maps(info.id)
            return self.program(member, replaced, where)
        self.maps |= fresh.maps
        empty = fresh.empty.items()
        self.empty += [EmptyArray(info.id, array, tuple(fitting)) for array, fitting in empty]
        self.reused += [ReusedMap(info.id, *one) for one in fresh.pinned]
        self.step("2", f"loaded {member.name} from {member.source.path}", program=info.id)
        return program, info

    def _fresh(self, member: Member, source: Source, target: tuple[int, str] | None) -> Loaded:
        if device := self.device_of(member):
            from ..programs import loading

            return loading.load(source, member.frags, target, device=device)
        all_take_frags = all(one.frags for one in self.plan.target.members)
        shape = (self.plan.protocol, all_take_frags)
        return self.peers.stock.load(source, member.frags, target, shape)

    def _found(
        self, member: Member, replaced: Target | None, where: str
    ) -> tuple[Program, records.ProgInfo]:
        """A program that runs already; made anew of its image where it is not of type EXT."""
        try:
            program = self.closing.enter_context(Program.by_id(member.id))
        except KernelError as error:
            raise LostRace from error
        info = program.info
        self.step("4'", f"found {member.name}, which {where}", program=info.id)
        if replaced and info.type != uapi.BPF_PROG_TYPE_EXT:
            program = self._renew(info, member, replaced)
            info = program.info
        return program, info

    def _renew(self, info: records.ProgInfo, member: Member, replaced: Target) -> Program:
        """A program once more, as EXT; the kernel gives it another id."""
        code = image.of(info)
        if code is None:
            raise no_image(member, "ext")
        try:
            new = image.load_ext(code, member.name, replaced.root.fd, replaced.function)
        except KernelError as error:
            what = f"{member.name} (id {member.id})"
            if error.errno == errno.EINVAL and asm.makes_tail_calls(code.code):
                raise image.array_of_another_kind(what, "ext") from error
            from ..programs.words import refused

            raise refused(what, error, ext=True) from error
        self.closing.enter_context(new)
        program_id = new.info.id
        self.renewed[member.id] = program_id
        self.loaded.add(program_id)
        self.keep_as(self.paths, member.id, program_id)
        self.step("2", f"loaded {member.name} anew, as an EXT program", program=program_id)
        return new

    # --- maps -----------------------------------------------------------------------------------

    def keep_beside(self, kind: Beside, program_id: int, name: str, what: Descriptor) -> None:
        """Pin a program array, or a program that may go into one.

        The kernel empties an array that only programs use, and drops a program that is in none.
        """
        self.undo.callback(pin.remove, self.paths.beside_pin(kind, program_id, name))
        self.paths.keep_beside(kind, program_id, name, what)

    def pin_maps(self, key: int) -> None:
        """Pin the maps that ask for it, where their user wants them; each is noted before.

        The notes are kept by the id of a program of this change's: the root, once it is there.
        """
        made: list[Made] = []
        self.noted.add(key)
        self.undo.callback(self._unmake, key, made)
        number = len(self.paths.made().get(key, []))
        for path, kept in self.maps.items():
            directory = os.path.dirname(path)
            wanted = [] if os.path.isdir(directory) else [Made(None, directory)]
            for one in (*wanted, Made(kept.info.id, path)):
                self.paths.note_made(key, number, one)
                number += 1
                with pin.failing("pin a map at", one.path):
                    if one.map_id is not None:
                        _pin_new(kept, path)
                    else:
                        with contextlib.suppress(FileExistsError):
                            os.mkdir(directory, 0o700)
                made.append(one)
        self.maps.clear()

    def _unmake(self, key: int, made: Sequence[Made]) -> None:
        """Take pins of maps back."""
        made_pins.unmake(made, self.loaded)
        self.paths.forget_made(key)


class Rehearsal(Construction):
    """A root that is made to see whether it can be, and pins nothing."""

    def keep_beside(self, kind: Beside, program_id: int, name: str, what: Descriptor) -> None:
        pass

    def pin_maps(self, key: int) -> None:
        self.maps.clear()

    def begin_counting(self) -> None:
        pass


def check_same(
    member: Member, target: tuple[int, str] | None, device: Device | None = None
) -> None:
    """Raise UsageError where a file has other code than the program that it is to stand for.

    It is loaded with maps of its own for that: a file may fill the maps that it is given. The tag
    is a hash of the instructions as they were given to the kernel, maps left out.
    """
    from ..programs import loading

    source = member.source
    assert source is not None
    with contextlib.ExitStack() as closing:
        alone = loading.load(
            replace(source, maps_of=0, pin_path=None), member.frags, target, device=device
        )
        info = closing.enter_context(alone).program.info
        running = closing.enter_context(Program.by_id(source.maps_of)).info
    if running.tag != info.tag:
        raise UsageError(
            f"{source.program} of {source.path} is not the program that runs",
            why=f"its tag is {info.tag}, that of program {running.id} ({running.name}) is "
            f"{running.tag}",
            hint="give the object file that it was loaded from, or --force to put other code in "
            "its place",
        )


def no_image(member: Member, kind: str) -> UnsupportedError:
    """Why a member whose code is not kept cannot go to a root of a kind."""
    if member.source:
        return UnsupportedError(
            f"{member.name} of {member.source.path} cannot go to a root of the {kind} kind",
            why="it uses something of a kernel module, which cannot be kept with its code",
            hint="--root ext, where the kernel allows it, takes it",
        )
    return UnsupportedError(
        f"{member.name} (id {member.id}) cannot go to a root of the {kind} kind",
        why="its code is not kept with it: another tool or an earlier xdpctl has loaded it, or it "
        "uses something of a kernel module",
        hint="unload it and load it again",
    )


def _pin_new(what: Map, path: str) -> None:
    try:
        what.pin(path)
    except KernelError as error:
        if error.errno == errno.EEXIST:
            raise LostRace from error  # somebody else made it meanwhile: it is to be shared
        raise


def count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' if number != 1 else ''}"
