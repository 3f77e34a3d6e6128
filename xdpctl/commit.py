"""The one door: a target chain becomes what the interface runs, or nothing changes.

    observe → plan → load the new root → hook every member onto it → pin the links → flip
            → wait out a grace period → remove the old links and let the old root go

The flip is the commit point: one system call. All before it is undone on failure; all after it
is clean-up that the next command would do as well. Any other order loses packets: a member must be
on both roots while packets may be in either, and the flip returns before the last CPU has left the
old one.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from . import dispatcher, objects, pins, rights, signals
from .bpffs import Bpffs
from .chain import Chain, Member
from .errors import (
    HookBusyError,
    KernelError,
    RaceError,
    UnsupportedError,
    XdpctlError,
)
from .hook import Hook, LostRace
from .interfaces import Interface
from .kernel import libbpf
from .observe import Slot, State, View, observe
from .pins import Attach, InterfacePins, Made, Origin
from .plan import AskedMode, Plan, make_plan
from .settle import Place, Rehooked, rehome, repair, settle, unmake

_ATTEMPTS = 8
_UNCHANGED = 3
"""After so many refusals in front of the same root nobody else is changing it."""


@dataclass(frozen=True)
class Step:
    """One step, numbered as in the kernel list's thread; `ids` names what it made or used."""

    number: str
    text: str
    ids: dict[str, int]
    seconds: float


@dataclass
class Report:
    """What a transaction did.

    `removed` is what an interrupted command had left, `rehooked` the pins of others that hold
    another link now, `links` the descriptors of the links of held members, by program id, and
    `unsettled` why something was left to the next command after the change was live.
    """

    plan: Plan
    before: State
    members: tuple[Member, ...] = ()
    root_id: int = 0
    steps: list[Step] = field(default_factory=list)
    removed: tuple[str, ...] = ()
    rehooked: list[Rehooked] = field(default_factory=list)
    links: dict[int, int] = field(default_factory=dict)
    unsettled: str = ""


def transact(
    bpffs: Bpffs,
    interface: Interface,
    target: Callable[[State], Chain],
    *,
    mode: AskedMode | None = None,
    attach: Attach | None = None,
    dry_run: bool = False,
    on_step: Callable[[Step], None] = lambda _step: None,
    view: View | None = None,
) -> Report:
    """Bring an interface from its current chain to `target(state)`.

    A lost race is observed and planned anew, so `target` may be called several times. Raises any
    XdpctlError; the interface then runs what it ran before.
    """
    rights.require()
    bpffs.check()
    paths = bpffs.interface(interface)
    if dry_run:
        state = observe(interface, bpffs, view=view)
        return Report(make_plan(state, target(state), mode, attach), state)
    refused_at: list[int] = []
    removed: tuple[str, ...] = ()
    for _attempt in range(_ATTEMPTS):
        signals.release()
        with _private_files(), paths.locked():
            state = observe(interface, bpffs, locked=True, view=view)
            view = None
            removed += repair(bpffs, paths, state)
            if rehome(paths, state):
                continue
            plan = make_plan(state, target(state), mode, attach)
            report = Report(plan, state, plan.target.members, removed=removed)
            try:
                _Commit(bpffs, paths, report, on_step).run()
            except LostRace as lost:
                refused_at.append(state.root.id if state.root else 0)
                if refused_at[-_UNCHANGED:] == refused_at[-1:] * _UNCHANGED:
                    raise _no_race(interface, lost) from lost
                continue
            return report
    raise RaceError(
        f"{interface.name} kept changing",
        why=f"another program changed its XDP hook during each of {_ATTEMPTS} attempts",
        hint="find out who does, then try again",
    )


def _no_race(interface: Interface, lost: LostRace) -> HookBusyError:
    """What it means that the kernel refuses while nothing changes."""
    return HookBusyError(
        f"the kernel does not let go of the XDP hook of {interface.name}",
        why=str(lost.__cause__),
        hint="a program in another mode, or on a device above or below this one, may exclude it",
    )


class _Commit:
    """One attempt at a plan."""

    def __init__(
        self,
        bpffs: Bpffs,
        paths: InterfacePins,
        report: Report,
        on_step: Callable[[Step], None],
    ) -> None:
        self.bpffs, self.paths, self.report = bpffs, paths, report
        self.plan, self.state = report.plan, report.before
        self.on_step = on_step
        self.clock = time.perf_counter()
        self.flipped = False
        self.unheard: Exception | None = None
        self.places: dict[int, Place] = {}
        self.maps: dict[str, int] = {}
        self.loaded: set[int] = set()

    def run(self) -> None:
        if self.plan.flip == "none":
            return
        # `closing` ends every descriptor in any case; `undo` takes back what was made, unless the
        # commit point is reached.
        undo = contextlib.ExitStack()
        with contextlib.ExitStack() as closing:
            try:
                self.change(closing, undo)
            except BaseException:
                _undo(undo)
                for link in self.report.links.values() if self.flipped else ():
                    os.close(link)
                raise
        if self.unheard:
            raise self.unheard

    def change(self, closing: contextlib.ExitStack, undo: contextlib.ExitStack) -> None:
        root_fd = -1
        hook = Hook(self.state.interface, self.plan, self.paths, self.state.root, closing)
        if self.plan.flip != "detach":
            root, hooked = self.build(closing, undo)
            self.pin(root, hooked, undo)
            root_fd = root.fd
        # Blocked from here, or a signal after the flip would undo what is live.
        with signals.blocked():
            number, text, ids = hook.flip(root_fd, self.report.root_id)
            undo.pop_all()
            signals.hold()  # what comes now comes too late: all that was asked is done
            self.flipped = True
            self.step(number, text, **ids)
            closing.close()
            self.release()

    def step(self, number: str, text: str, **ids: int) -> None:
        now = time.perf_counter()
        done = Step(number, text, ids, now - self.clock)
        self.report.steps.append(done)
        try:
            self.on_step(done)
        except Exception as error:
            # Whoever listens may be gone (a closed pipe). That undoes a change which is not made
            # yet; one that is live is brought to its end first.
            if not self.flipped:
                raise
            self.unheard = error
        self.clock = time.perf_counter()

    # --- before the commit point ----------------------------------------------------------------

    def build(
        self, closing: contextlib.ExitStack, undo: contextlib.ExitStack
    ) -> tuple[dispatcher.Root, list[tuple[int, int]]]:
        """Load the new root and hook every member; returns it with (program, link) descriptors."""
        members = self.plan.target.members
        first = self.plan.flip == "attach"
        root = dispatcher.build(members)
        closing.callback(root.close)
        self.report.root_id = root.id
        self.step(
            "1" if first else "4",
            f"loaded root {'X' if first else 'Y'} with {_count(len(members), 'slot')}",
            root=root.id,
            btf=root.btf_id,
        )
        hooked, known = [], []
        for slot, member in enumerate(members):
            fd, info = self.program(root, slot, member, closing, undo)
            link = root.hook(fd, slot)
            closing.callback(os.close, link)
            found = libbpf.link_info(link)
            hooked.append((fd, link))
            known.append(replace(member, id=info.id, tag=info.tag))
            self.places[info.id] = Place(slot, found.id)
            if member.held:
                self.keep(link, info.id, found, undo)
            self.step(
                "3" if first else "5",
                f"hooked {member.name} onto {root.names[slot]}",
                program=info.id,
                link=found.id,
                root=root.id,
                function=root.functions[slot],
            )
        self.report.members = tuple(known)
        return root, hooked

    def keep(
        self, link: int, program_id: int, info: libbpf.LinkInfo, undo: contextlib.ExitStack
    ) -> None:
        """A held member's link is its caller's, and nobody else's."""
        if not info.target:
            raise UnsupportedError(
                "this kernel does not tell what a link is hooked onto",
                why="a program that only a process holds could not be found again (Linux 5.13 can)",
                hint="load it with xdpctl load instead",
            )
        self.report.links[program_id] = os.dup(link)
        undo.callback(os.close, self.report.links[program_id])

    def program(
        self,
        root: dispatcher.Root,
        slot: int,
        member: Member,
        closing: contextlib.ExitStack,
        undo: contextlib.ExitStack,
    ) -> tuple[int, libbpf.ProgInfo]:
        """A member's program: found where it runs, or loaded from its object."""
        if member.source is None:
            try:
                fd = libbpf.prog_fd(member.id)
            except KernelError as error:
                raise LostRace from error
            closing.callback(os.close, fd)
            info = libbpf.prog_info(fd)
            self.step("4'", f"found {member.name}, which runs on X", program=info.id)
            return fd, info
        loaded = objects.load(member.source, root.fd, root.names[slot])
        for number in (loaded.fd, *loaded.arrays.values(), *loaded.maps.values()):
            closing.callback(os.close, number)
        info = libbpf.prog_info(loaded.fd)
        self.loaded.add(info.id)
        for name, array in loaded.arrays.items():
            undo.callback(pins.remove, self.paths.map_pin(info.id, name))
            self.paths.keep_map(info.id, name, array)
        # The first of several that ask for one name makes the pin, and the others would not share
        # its map: they are built again with it there.
        if self.maps.keys() & loaded.maps.keys():
            self.pin_maps(root.id, undo)
            return self.program(root, slot, member, closing, undo)
        self.maps |= loaded.maps
        self.step("2", f"loaded {member.name} from {member.source.path}", program=info.id)
        return loaded.fd, info

    def pin(
        self, root: dispatcher.Root, hooked: Sequence[tuple[int, int]], undo: contextlib.ExitStack
    ) -> None:
        """Pin the new links beside the old: they have to outlive this process."""
        old = {slot.member.id: slot for slot in self.slots() if slot.member}
        origins = self.origins(old)
        with self.bpffs.pins_locked():
            undo.callback(self.unpin, root.id)
            self.paths.make_dispatch(root.id, self.plan.attach)
            with pins.failing("pin links in", self.bpffs.path):
                for slot, (program, link) in enumerate(hooked):
                    member = self.report.members[slot]
                    if member.id in origins:
                        self.paths.borrow(root.id, slot, origins[member.id])
                    if not member.held:
                        libbpf.pin(link, self.paths.link(root.id, slot))
                    libbpf.pin(program, self.paths.program(root.id, slot))
        self.pin_maps(root.id, undo)

    def slots(self) -> Sequence[Slot]:
        return self.state.root.slots if self.state.root else ()

    def origins(self, old: dict[int, Slot]) -> dict[int, Origin]:
        """Whose the programs are that xdpctl carries over but did not pin itself."""
        staying = [old[member.id] for member in self.report.members if member.id in old]
        found = {slot.link_id: slot for slot in staying if not slot.pin}
        origins = {slot.member.id: slot.origin for slot in staying if slot.member and slot.origin}
        if found:
            from .holders import holders

            for link_id, holding in holders(list(found)).items():
                member = found[link_id].member
                assert member is not None
                pid, name = (holding[0].pid, holding[0].name) if holding else (0, "")
                origins[member.id] = Origin(link_id, pid, name)
        return origins

    def pin_maps(self, root_id: int, undo: contextlib.ExitStack) -> None:
        """Pin the maps that ask for it, where their user wants them; each is noted before."""
        made: list[Made] = []
        undo.callback(self.unmake, root_id, made)
        number = len(self.paths.made().get(root_id, []))
        for path, fd in self.maps.items():
            directory = os.path.dirname(path)
            wanted = [] if os.path.isdir(directory) else [Made(0, directory)]
            for one in (*wanted, Made(libbpf.map_info(fd)[0], path)):
                self.paths.note_made(root_id, number, one)
                number += 1
                with pins.failing("pin a map at", one.path):
                    if one.map_id:
                        _pin_new(fd, path)
                    else:
                        with contextlib.suppress(FileExistsError):
                            os.mkdir(directory, 0o700)
                made.append(one)
        self.maps.clear()

    def unmake(self, root_id: int, made: Sequence[Made]) -> None:
        """Take pins of maps back."""
        unmake(made, self.loaded)
        self.paths.forget_made(root_id)

    def unpin(self, root_id: int) -> None:
        """Remove the pins of a root's links."""
        with self.bpffs.pins_locked():
            self.paths.remove_dispatch(root_id)

    # --- after the commit point -----------------------------------------------------------------

    def release(self) -> None:
        """Step 7: who holds the members holds them on Y; the old links and X go.

        The change is live: what fails here is left to the next command, which does the same.
        """
        old = self.state.root
        try:
            if old is None:
                self.paths.remove_maps_but(self.places)
                self.paths.forget_made(self.report.root_id)
                return
            libbpf.grace_period()
            self.step("7", "waited until no CPU runs X any more")
            self.report.rehooked = settle(self.paths, self.report.root_id, self.places, [old.id])
            for path, link_id in self.report.rehooked:
                self.step("7", f"re-hooked the pin {path}", link=link_id)
            if self.plan.flip == "detach":
                self.paths.remove_root_link()
            self.step("7", "removed the links onto X and let X go", X=old.id)
        except (XdpctlError, OSError) as error:
            self.report.unsettled = str(error)


def _pin_new(fd: int, path: str) -> None:
    try:
        libbpf.pin(fd, path)
    except KernelError as error:
        if error.errno == errno.EEXIST:
            raise LostRace from error  # somebody else made it meanwhile: it is to be shared
        raise


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' if number != 1 else ''}"


# --- signals and files --------------------------------------------------------------------------


def _undo(undo: contextlib.ExitStack) -> None:
    """Take back what was made.

    What cannot be removed is left over, and no news beside the error that is on its way.
    """
    signals.hold()
    with signals.blocked(), contextlib.suppress(XdpctlError, OSError):
        undo.close()


@contextlib.contextmanager
def _private_files() -> Iterator[None]:
    """Pins and directories are for root alone, whatever the umask says."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)
