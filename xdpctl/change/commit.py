"""One attempt at a plan.

    load the new root → hook every member onto it → pin the links → flip
            → wait out a grace period → remove the old links and let the old root go

The flip is the commit point: one system call. All before it is undone on failure; all after it
is clean-up that the next command would do as well. Any other order loses packets: a member must be
on both roots while packets may be in either, and the flip returns before the last CPU has left the
old one. If several interfaces change, one grace period does for all (batch.py).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from ..bpffs import pin
from ..bpffs.directory import InterfacePins
from ..bpffs.history import History
from ..bpffs.mount import Bpffs
from ..errors import (
    BpffsError,
    OutputError,
    RaceError,
    UnsupportedError,
    VanishedError,
    XdpctlError,
)
from ..host import rights, signals
from ..kernel import libbpf
from ..model.chain import USUAL
from ..model.generation import Generation, WentBack
from ..model.labels import Asked, Origin
from ..model.plan import Plan
from ..model.source import SharedMap
from ..model.state import Foreign, Root, Slot
from ..model.terms import Pending, Terms, now
from ..roots import counting, kinds
from ..roots.construct import Construction
from ..roots.hook import Hook
from ..roots.kinds import root_kind
from ..roots.peers import Peers
from .report import Report, Step
from .settle import Elsewhere, settle


class Guard(Protocol):
    """What takes a change back unless it is confirmed (watchdog.py)."""

    @property
    def pid(self) -> int:
        """Its process."""

    def release(self) -> None:
        """The change is live: from here on it is on its own."""

    def dismiss(self) -> None:
        """There is no change: it ends; returns when it has."""


class Commit:
    """One attempt at a plan. `peers` are roots of other interfaces, of which it may take one."""

    def __init__(
        self,
        bpffs: Bpffs,
        paths: InterfacePins,
        report: Report,
        on_step: Callable[[Step], None],
        terms: Terms,
        guard: Callable[[], Guard],
        peers: Peers,
    ) -> None:
        self.bpffs, self.paths, self.report, self.peers = bpffs, paths, report, peers
        self.plan, self.state = report.plan, report.before
        self.terms, self.history, self.guard = terms, History(paths), guard
        self.watchdog: Guard | None = None
        self.on_step = on_step
        self.clock = time.perf_counter()
        self.flipped = False
        self.unheard: Exception | None = None
        self.made: Construction | None = None

    def run(self) -> None:
        """Do it as far as the flip; then `finish` has to be called, which may wait."""
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
                for held in self.report.holds.values() if self.flipped else ():
                    held.close()
                raise

    def change(self, closing: contextlib.ExitStack, undo: contextlib.ExitStack) -> None:
        hook = Hook(self.state.interface, self.plan, self.paths, self.state.root, closing)
        made = self.build(closing, undo) if self.plan.flip != "detach" else None
        self.remember(undo)
        if made:
            if not self.plan.gives_back:
                self.pin(made, undo)
            if self.plan.adopts:
                hook.adopt(undo)
            elif self.plan.gives_back:
                hook.note_adopted(undo)
        # Blocked from here, or a signal after the flip would undo what is live.
        with signals.blocked():
            number, text, ids = hook.flip(made.root if made else None)
            undo.pop_all()
            signals.hold(live=True)  # what comes now comes too late: all that was asked is done
            self.flipped = True
            if self.watchdog:
                self.watchdog.release()
            self.step(number, text, **ids)
            closing.close()
            self.forget()
        if self.made and not self.made.joined:
            self.peers.add(self.plan, self.state, self.made.running(self.state.interface.name))

    def step(self, number: str, text: str, **ids: int) -> None:
        now = time.perf_counter()
        done = Step(number, text, ids, now - self.clock)
        self.report.steps.append(done)
        try:
            self.on_step(done)
        except Exception as error:
            # Whoever listens may be gone (a closed pipe). That undoes a change which is not made
            # yet; one that is live is brought to its end first.
            if isinstance(error, OutputError) and not self.flipped:
                what = f"nothing was changed: {error.what}"
                raise XdpctlError(what, number=error.number) from error
            if not self.flipped:
                raise
            self.unheard = error
        self.clock = time.perf_counter()

    # --- before the commit point ----------------------------------------------------------------

    def build(self, closing: contextlib.ExitStack, undo: contextlib.ExitStack) -> Construction:
        """Make the new root, with every member on it."""
        old = self.state.root
        if old and old.kind != self.plan.kind:
            _check_movable(self.bpffs, old, self.plan)
        made = Construction(self.plan, self.paths, self.step, closing, undo, self.peers)
        if root := self.peers.root(self.plan, self.state):
            made.join(root)
        else:
            kinds.build(made)
        self.made = made
        self.report.root_id = made.root.id
        self.report.joined = made.joined
        self.report.members = tuple(made.members)
        self.report.holds = made.holds
        self.report.renewed = made.renewed
        self.report.empty = [one for one in made.empty if one.program in made.places]
        self.report.shared = self.shared(made)
        return made

    def shared(self, made: Construction) -> list[SharedMap]:
        """Whose maps the new members share, as far as that can be read: it is only told."""
        reused = [one for one in made.reused if one.program in made.places]
        if reused:
            from ..observe.sharers import sharers

            with contextlib.suppress(OSError, RaceError, VanishedError, BpffsError):
                return list(sharers(self.bpffs, self.state.interface, reused))
        return []

    def remember(self, undo: contextlib.ExitStack) -> None:
        """Record the chain that runs, keep what leaves it, and see to it that it comes back."""
        terms, history, after = self.terms, self.history, self.report.root_id
        if terms.uses_up:
            undo.callback(pin.remove, history.back)
            known = history.generations(self.state.live(self.paths.directory))
            left = next((one for one in known if one.number == terms.back), None)
            told = WentBack.of(left, self.plan, terms, rights.user()).text()
            to, _blank, rest = told.partition(" ")
            history.note(history.back, f"{to} {after or 0} {rest}")
            return
        kept = bool(terms.within) or terms.keeps
        if not (terms.command or kept) or (self.plan.is_same and not terms.within):
            return
        if self.plan.adopts and not terms.within:
            return  # the program that goes is nobody's to keep
        if self.plan.flip == "detach" and not kept:
            return
        number = history.next_number()
        if terms.within:
            self.watchdog = self.guard()
            undo.callback(self.watchdog.dismiss)
        undo.callback(history.forget, number)
        history.record(Generation.of(number, self.state, self.plan, after, terms, rights.user()))
        # A program that was made anew leaves as what it was.
        leaving = {member.id for member in self.plan.leaving}.union(self.report.renewed)
        for slot in self.slots() if kept else ():
            # What others hold is theirs: it leaves the kernel when they want it to.
            ours = root_kind(self.state.root.kind).keeps(slot) if self.state.root else False
            if slot.member and slot.member.id in leaving and ours and not slot.origin:
                history.keep(number, slot.member.id)
        if self.plan.adopts and self.state.root:
            history.keep(number, self.state.root.id)
        if self.watchdog:
            deadline = now() + int(terms.within * 1e9)
            self.report.pending = Pending(number, deadline, self.watchdog.pid)
            history.note(history.confirm, self.report.pending)

    def pin(self, made: Construction, undo: contextlib.ExitStack) -> None:
        """Pin the new links and the programs beside the old: they have to outlive this process."""
        old = {slot.member.id: slot for slot in self.slots() if slot.member}
        origins = self.origins(old)
        with self.bpffs.pins_locked():
            undo.callback(self.unpin, made.root.id)
            if self.state.root and self.state.root.owner == "libxdp":
                # Nothing else would tell after a crash whose pins those of X are.
                undo.callback(pin.remove, self.paths.record(self.state.root.id))
                self.paths.make_record(self.state.root.id, self.plan.attach)
            root_kind(self.plan.kind).make_pins(self.paths, made.root.id, self.plan.attach)
            if self.plan.target.rules != USUAL:
                self.paths.rule(made.root.id, self.plan.target.rules)
            with pin.failing("pin programs in", self.bpffs.path):
                for slot, (program, link) in enumerate(made.hooked):
                    member = made.members[slot]
                    if member.id in origins:
                        self.paths.borrow(made.root.id, slot, origins[member.id])
                    asked = Asked(member.label, member.before, member.after, member.image)
                    if asked != Asked():
                        self.paths.label(made.root.id, slot, asked)
                    if link is not None and not member.held:
                        link.pin(self.paths.link(made.root.id, slot))
                    if not member.array_id:  # else its process keeps it, and nobody else may
                        program.pin(self.paths.program(made.root.id, slot))
        made.pin_maps(made.root.id)

    def slots(self) -> Sequence[Slot]:
        return self.state.root.slots if self.state.root else ()

    def origins(self, old: dict[int, Slot]) -> dict[int, Origin]:
        """Whose the programs are that xdpctl carries over but did not pin itself."""
        staying = [old[member.id] for member in self.report.members if member.id in old]
        found = {
            slot.link_id: slot.member.id
            for slot in staying
            if slot.member and slot.link_id and not slot.pin
        }
        origins = {slot.member.id: slot.origin for slot in staying if slot.member and slot.origin}
        if self.terms.back is not None:
            # Who had it before, and kept its link onto a root that went, has it again.
            kept = self.paths.kept_programs().union(old)
            back = {member.id for member in self.plan.staying if member.id not in kept}
            found |= {one.id: one.prog_id for one in libbpf.links() if one.prog_id in back}
        if found:
            from ..host.holders import holders

            for (_what, link_id), holding in holders([("link_id", one) for one in found]).items():
                pid, name = (holding[0].pid, holding[0].name) if holding else (0, "")
                origins[found[link_id]] = Origin(link_id, pid, name)
        return origins

    def unpin(self, root_id: int) -> None:
        """Remove the pins of a root's links."""
        with self.bpffs.pins_locked():
            self.paths.remove_dispatch(root_id)

    # --- after the commit point -----------------------------------------------------------------

    def forget(self) -> None:
        """What this change noted for a crash before its flip, and generations of no more use.

        The change is live: what fails here is left to the next command, which does the same.
        """
        with self.left_over():
            paths = self.paths.listed()
            if self.plan.gives_back:
                self.paths.remove_root_link()
            History(paths).tidy(Foreign() if self.plan.gives_back else self.report.root_id)
            if self.plan.target.rules.counted:
                counting.sync(self.paths, self.report.members, self.plan.target.rules)
            pin.remove(self.paths.adopting)
            for key in self.made.noted if self.made else ():
                paths.forget_made(key)

    def finish(self, waited: float, elsewhere: Elsewhere | None) -> None:
        """Step 7: who holds the members holds them on Y; the old links and X go.

        A grace period is over if there is an X, after the seconds that it took. `elsewhere` was
        looked for since the flip, or is still to be.
        """
        old = self.state.root
        places = self.made.places if self.made else {}
        self.clock = time.perf_counter() - waited
        if self.report.unsettled:
            return
        with self.left_over():
            paths = self.paths.listed()
            if old is None:
                paths.remove_maps_but(places)
                return
            self.step("7", "waited until no CPU runs X any more")
            self.report.rehooked = settle(paths, self.report.root_id, places, [old.id], elsewhere)
            for path, link_id in self.report.rehooked:
                self.step("7", f"re-hooked the pin {path}", link=link_id)
            if self.plan.flip == "detach":
                self.paths.remove_root_link()
            self.step("7", "removed the pins of X and let X go", X=old.id)

    @contextlib.contextmanager
    def left_over(self) -> Iterator[None]:
        """What fails once the change is live is left to the next command."""
        try:
            yield
        except (XdpctlError, OSError) as error:
            self.report.unsettled = str(error)


def _check_movable(bpffs: Bpffs, old: Root, plan: Plan) -> None:
    """Raise UnsupportedError where a holder would lose its program by a change of the root's kind.

    A link or a program array that somebody holds means a place on a root of its own kind.
    """
    staying = {member.id: member for member in plan.target.members if member.id}
    held = root_kind(old.kind).holders(bpffs, old, staying)
    if held:
        raise UnsupportedError(
            f"the root of {plan.interface} cannot become one of the {plan.kind} kind",
            why=f"others than xdpctl hold {', '.join(sorted(set(held)))}, and what they hold means "
            f"a place on a root of the {old.kind} kind",
            hint="have them detach it first",
        )


# --- signals and files --------------------------------------------------------------------------


def _undo(undo: contextlib.ExitStack) -> None:
    """Take back what was made.

    What cannot be removed is left over, and no news beside the error that is on its way.
    """
    signals.hold()
    with signals.blocked(), contextlib.suppress(XdpctlError, OSError):
        undo.close()
