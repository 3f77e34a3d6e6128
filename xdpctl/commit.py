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
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from . import dispatcher, objects, pins, rights
from .chain import Chain, Member
from .errors import (
    HookBusyError,
    KernelError,
    RaceError,
    UnsupportedError,
    VanishedError,
    XdpctlError,
)
from .kernel import libbpf
from .observe import State, observe
from .plan import AskedMode, Plan, make_plan

_ATTEMPTS = 8
_UNCHANGED = 3
"""After so many refusals in front of the same root nobody else is changing it."""
_MODE_FLAGS: dict[AskedMode, int] = {
    "unspecified": 0,
    "native": libbpf.XDP_FLAGS_DRV_MODE,
    "skb": libbpf.XDP_FLAGS_SKB_MODE,
}


_ENDING = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
"""The signals that end a command, which turns them into exceptions (cli)."""


@dataclass(frozen=True)
class Step:
    """One step, numbered as in the kernel list's thread; `ids` names what it made or used."""

    number: str
    text: str
    ids: dict[str, int]
    seconds: float


@dataclass
class Report:
    """What a transaction did."""

    plan: Plan
    before: State
    members: tuple[Member, ...] = ()
    root_id: int = 0
    steps: list[Step] = field(default_factory=list)
    removed: tuple[str, ...] = ()


# Makes the change live and tells the step that this was: its number, its text, its ids.
_Flip = Callable[[], tuple[str, str, dict[str, int]]]


class _LostRace(Exception):  # noqa: N818 - not an error: observe again
    """The interface is not as it was observed."""


def transact(
    bpffs: pins.Bpffs,
    interface: pins.Interface,
    target: Callable[[State], Chain],
    *,
    mode: AskedMode | None = None,
    dry_run: bool = False,
    on_step: Callable[[Step], None] = lambda _step: None,
) -> Report:
    """Bring an interface from its current chain to `target(state)`.

    A lost race is observed and planned anew, so `target` may be called several times. Raises any
    XdpctlError; the interface then runs what it ran before.
    """
    rights.require()
    bpffs.check()
    paths = bpffs.interface(interface)
    if dry_run:
        state = observe(interface, paths)
        return Report(make_plan(state, target(state), mode), state)
    with paths.locked():
        refused_at: list[int] = []
        for _attempt in range(_ATTEMPTS):
            state = observe(interface, paths)
            plan = make_plan(state, target(state), mode)
            removed = _remove_residue(bpffs, paths, state)
            report = Report(plan, state, plan.target.members, removed=removed)
            try:
                _Commit(bpffs, paths, report, on_step).run()
            except _LostRace as lost:
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


def _no_race(interface: pins.Interface, lost: _LostRace) -> HookBusyError:
    """What it means that the kernel refuses while nothing changes."""
    return HookBusyError(
        f"the kernel does not let go of the XDP hook of {interface.name}",
        why=str(lost.__cause__),
        hint="a program in another mode, or on a device above or below this one, may exclude it",
    )


def _remove_residue(bpffs: pins.Bpffs, paths: pins.InterfacePins, state: State) -> tuple[str, ...]:
    """Remove what an interrupted command left; the interface's lock says that none is under way."""
    if state.residue:
        live = state.root.id if state.root and state.root.owner == "xdpctl" else 0
        with bpffs.pins_locked():
            for root_id in paths.recorded():
                if root_id != live:
                    paths.remove_dispatch(root_id)
        if not live:
            paths.remove_root_link()
        paths.remove_maps_but({member.id for member in state.chain.members})
    return state.residue


class _Commit:
    """One attempt at a plan."""

    def __init__(
        self,
        bpffs: pins.Bpffs,
        paths: pins.InterfacePins,
        report: Report,
        on_step: Callable[[Step], None],
    ) -> None:
        self.bpffs, self.paths, self.report = bpffs, paths, report
        self.plan, self.state = report.plan, report.before
        self.on_step = on_step
        self.clock = time.perf_counter()
        self.flipped = False
        self.unheard: Exception | None = None

    def run(self) -> None:
        # `closing` ends every descriptor in any case; `undo` takes back what was made, unless the
        # commit point is reached.
        with contextlib.ExitStack() as closing, contextlib.ExitStack() as undo:
            if self.plan.flip == "none":
                return
            if self.plan.flip == "detach":
                flip = self.detach(closing)
            else:
                root, hooked = self.build(closing, undo)
                flip = (self.update if self.plan.flip == "update" else self.attach)(root, closing)
                self.pin(root, hooked, undo)
            # Blocked from here, or a signal after the flip would undo what is live.
            with _signals_blocked():
                number, text, ids = flip()
                undo.pop_all()
                self.flipped = True
                self.step(number, text, **ids)
                closing.close()
                self.release()
                # What came meanwhile came too late: the command has done all that was asked.
                while signal.sigtimedwait(_ENDING, 0):
                    pass
        if self.unheard:
            raise self.unheard

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
            hooked.append((fd, link))
            known.append(replace(member, id=info.id, tag=info.tag))
            self.step(
                "3" if first else "5",
                f"hooked {member.name} onto {root.names[slot]}",
                program=info.id,
                link=libbpf.link_info(link).id,
                root=root.id,
                function=root.functions[slot],
            )
        self.report.members = tuple(known)
        return root, hooked

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
                raise _LostRace from error
            closing.callback(os.close, fd)
            info = libbpf.prog_info(fd)
            self.step("4'", f"found {member.name}, which runs on X", program=info.id)
            return fd, info
        loaded = objects.load(member.source, root.fd, root.names[slot])
        for number in (loaded.fd, *loaded.arrays.values()):
            closing.callback(os.close, number)
        for path in loaded.pins:
            undo.callback(pins.remove, path)
        info = libbpf.prog_info(loaded.fd)
        for name, array in loaded.arrays.items():
            undo.callback(pins.remove, self.paths.keep_map(info.id, name, array))
        self.step("2", f"loaded {member.name} from {member.source.path}", program=info.id)
        return loaded.fd, info

    def pin(
        self, root: dispatcher.Root, hooked: Sequence[tuple[int, int]], undo: contextlib.ExitStack
    ) -> None:
        """Pin the new links beside the old: they have to outlive this process."""
        with self.bpffs.pins_locked():
            undo.callback(self.unpin, root.id)
            self.paths.make_dispatch(root.id)
            with pins.failing("pin links in", self.bpffs.path):
                for slot, (program, link) in enumerate(hooked):
                    libbpf.pin(link, self.paths.link(root.id, slot))
                    libbpf.pin(program, self.paths.program(root.id, slot))

    def unpin(self, root_id: int) -> None:
        """Remove the pins of a root's links."""
        with self.bpffs.pins_locked():
            self.paths.remove_dispatch(root_id)

    # --- the commit point -----------------------------------------------------------------------

    def attach(self, root: dispatcher.Root, closing: contextlib.ExitStack) -> _Flip:
        """The first root: attached by a link that is pinned at once, or else falls with us."""

        def flip() -> tuple[str, str, dict[str, int]]:
            ifindex = self.state.interface.ifindex
            with self.refusals("attach"):
                link = libbpf.link_xdp(root.fd, ifindex, _MODE_FLAGS[self.plan.mode])
            closing.callback(os.close, link)
            with pins.failing("pin the root link in", self.bpffs.path):
                libbpf.pin(link, self.paths.root_link)
            ids = {"root": root.id, "root_link": libbpf.link_info(link).id}
            return "1'", f"attached X to {self.plan.interface}", ids

        return flip

    def update(self, root: dispatcher.Root, closing: contextlib.ExitStack) -> _Flip:
        """A later root: exchanged for the one that was observed, and for no other."""
        old = self.state.root
        assert old is not None
        link, expected = self.root_link(closing)

        def flip() -> tuple[str, str, dict[str, int]]:
            with self.refusals("update"):
                libbpf.link_update(link, root.fd, expected)
            ids = {"root_link": old.link_id, "X": old.id, "Y": root.id}
            return "6", "updated the root link X → Y: packets now run through Y", ids

        return flip

    def detach(self, closing: contextlib.ExitStack) -> _Flip:
        """The last root goes."""
        old = self.state.root
        assert old is not None
        link, _expected = self.root_link(closing)

        def flip() -> tuple[str, str, dict[str, int]]:
            with self.refusals("detach"):
                libbpf.link_detach(link)
            ids = {"root_link": old.link_id, "X": old.id}
            return "6", f"detached X from {self.plan.interface}: packets pass", ids

        return flip

    def root_link(self, closing: contextlib.ExitStack) -> tuple[int, int]:
        """Descriptors of the root link and of the program that it is expected to run."""
        old = self.state.root
        assert old is not None
        try:
            link = libbpf.get(self.paths.root_link)
            closing.callback(os.close, link)
            expected = libbpf.prog_fd(old.id)
            closing.callback(os.close, expected)
        except KernelError as error:
            raise _LostRace from error
        return link, expected

    @contextlib.contextmanager
    def refusals(self, what: str) -> Iterator[None]:
        """What it means when the kernel does not flip."""
        name = self.plan.interface
        try:
            yield
        except KernelError as error:
            reason = error.log.strip() or str(error)
            if not self.state.interface.exists():
                raise VanishedError(f"{name} went away meanwhile", why=reason) from error
            match error.errno:
                case errno.EBUSY | errno.EEXIST | errno.EPERM | errno.ENOLINK:
                    # Observed and planned anew: a program of another tool's is then named.
                    raise _LostRace from error
                case errno.ERANGE:
                    raise UnsupportedError(
                        f"the MTU of {name} is too large for this chain",
                        why="packets of several fragments need frags support in every program, and "
                        + _without_frags(self.plan.target.members),
                        hint=f"lower it (ip link set dev {name} mtu 1500) or build the programs "
                        'with SEC("xdp.frags")',
                    ) from error
                case errno.EOPNOTSUPP | errno.EINVAL if what == "attach":
                    raise UnsupportedError(
                        f"cannot attach to {name} in {self.plan.mode} mode",
                        why=reason,
                        hint="the driver may know generic mode alone: -m skb",
                    ) from error
            raise XdpctlError(f"cannot {what} the root of {name}", why=reason) from error

    # --- after it -------------------------------------------------------------------------------

    def release(self) -> None:
        """Step 7: the pins that hold the members mean Y alone; the old links and X go."""
        old = self.state.root
        if old is None:
            return
        libbpf.grace_period()
        self.step("7", "waited until no CPU runs X any more")
        self.unpin(old.id)
        self.paths.remove_maps_but({member.id for member in self.report.members})
        if self.plan.flip == "detach":
            self.paths.remove_root_link()
        self.step("7", "removed the links onto X and let X go", X=old.id)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' if number != 1 else ''}"


def _without_frags(members: Sequence[Member]) -> str:
    lacking = [member.name for member in members if not member.frags]
    return f"{', '.join(lacking)} lack{'s' if len(lacking) == 1 else ''} it"


@contextlib.contextmanager
def _signals_blocked() -> Iterator[None]:
    """The signals that end a command wait for the end of the block."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
