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
_MODE_FLAGS: dict[AskedMode, int] = {
    "unspecified": 0,
    "native": libbpf.XDP_FLAGS_DRV_MODE,
    "skb": libbpf.XDP_FLAGS_SKB_MODE,
}


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
        for _attempt in range(_ATTEMPTS):
            state = observe(interface, paths)
            plan = make_plan(state, target(state), mode)
            removed = _remove_residue(bpffs, paths, state)
            report = Report(plan, state, plan.target.members, removed=removed)
            try:
                _Commit(bpffs, paths, report, on_step).run()
            except _LostRace:
                continue
            return report
    raise RaceError(
        f"{interface.name} kept changing",
        why=f"another program changed its XDP hook during each of {_ATTEMPTS} attempts",
        hint="find out who does, then try again",
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
                flip()
                undo.pop_all()
                closing.close()
                self.release()

    def step(self, number: str, text: str, **ids: int) -> None:
        now = time.perf_counter()
        done = Step(number, text, ids, now - self.clock)
        self.report.steps.append(done)
        self.on_step(done)
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
            number, text = "4'", f"found {member.name}, which runs on X"
        else:
            loaded = objects.load(member.source, root.fd, root.names[slot])
            fd = loaded.fd
            for path in loaded.pins:
                undo.callback(pins.remove, path)
            program_id = libbpf.prog_info(fd).id
            for name, array in loaded.arrays.items():
                closing.callback(os.close, array)
                undo.callback(pins.remove, self.paths.keep_map(program_id, name, array))
            number, text = "2", f"loaded {member.name} from {member.source.path}"
        closing.callback(os.close, fd)
        info = libbpf.prog_info(fd)
        self.step(number, text, program=info.id)
        return fd, info

    def pin(
        self, root: dispatcher.Root, hooked: Sequence[tuple[int, int]], undo: contextlib.ExitStack
    ) -> None:
        """Pin the new links beside the old: they have to outlive this process."""
        with self.bpffs.pins_locked():
            undo.callback(self.paths.remove_dispatch, root.id)
            self.paths.make_dispatch(root.id)
            with pins.failing("pin links in", self.bpffs.path):
                for slot, (program, link) in enumerate(hooked):
                    libbpf.pin(link, self.paths.link(root.id, slot))
                    libbpf.pin(program, self.paths.program(root.id, slot))

    # --- the commit point -----------------------------------------------------------------------

    def attach(self, root: dispatcher.Root, closing: contextlib.ExitStack) -> Callable[[], None]:
        """The first root: attached by a link that is pinned at once, or else falls with us."""

        def flip() -> None:
            ifindex = self.state.interface.ifindex
            with self.refusals("attach"):
                link = libbpf.link_xdp(root.fd, ifindex, _MODE_FLAGS[self.plan.mode])
            closing.callback(os.close, link)
            with pins.failing("pin the root link in", self.bpffs.path):
                libbpf.pin(link, self.paths.root_link)
            number = libbpf.link_info(link).id
            self.step("1'", f"attached X to {self.plan.interface}", root=root.id, root_link=number)

        return flip

    def update(self, root: dispatcher.Root, closing: contextlib.ExitStack) -> Callable[[], None]:
        """A later root: exchanged for the one that was observed, and for no other."""
        old = self.state.root
        assert old is not None
        link, expected = self.root_link(closing)

        def flip() -> None:
            with self.refusals("update"):
                libbpf.link_update(link, root.fd, expected)
            self.step(
                "6",
                "updated the root link X → Y: packets now run through Y",
                root_link=old.link_id,
                X=old.id,
                Y=root.id,
            )

        return flip

    def detach(self, closing: contextlib.ExitStack) -> Callable[[], None]:
        """The last root goes."""
        old = self.state.root
        assert old is not None
        link, _expected = self.root_link(closing)

        def flip() -> None:
            with self.refusals("detach"):
                libbpf.link_detach(link)
            self.step(
                "6",
                f"detached X from {self.plan.interface}: packets pass",
                root_link=old.link_id,
                X=old.id,
            )

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
        with self.bpffs.pins_locked():
            self.paths.remove_dispatch(old.id)
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
    ending = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ending)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
