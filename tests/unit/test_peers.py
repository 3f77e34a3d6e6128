"""Which root of another interface one takes: data in, data out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.unit.samples import INTERFACE, fresh, running, state_of
from xdpctl.bpffs import homes
from xdpctl.bpffs.mount import Bpffs
from xdpctl.model.chain import USUAL, Chain, Member, Rules
from xdpctl.model.plan import Plan, make_plan
from xdpctl.model.request import Request
from xdpctl.model.source import Recipe
from xdpctl.model.state import Place, State
from xdpctl.programs import image
from xdpctl.roots.peers import Peers, RunningRoot, unshared

ONE, TWO = running("one", 11), running("two", 12)
HOME = homes.of(Bpffs("/nowhere"), INTERFACE)
NEW = fresh("new")


def root(plan: Plan, number: int = 900) -> RunningRoot:
    """The root of a plan, as another interface runs it: new programs have ids from 90 on."""
    pairs = enumerate(plan.target.members, 90)
    members = tuple(replace(one, id=one.id or new) for new, one in pairs)
    places = {one.id: Place(slot, 0) for slot, one in enumerate(members)}
    return RunningRoot("eth0", number, members, places, HOME)


def planned(state: State, *new: Member, shared: bool = True, rules: Rules = USUAL) -> Plan:
    target = replace(state.chain.with_added(new), rules=rules)
    return make_plan(state, target, request=Request(shared=shared))


EMPTY = state_of(None)


@pytest.mark.parametrize("shared", [True, False])
def test_the_same_target_is_the_same_root(shared: bool) -> None:
    """If that is asked for; else only where the same root ran before."""
    peers, plan = Peers(), planned(EMPTY, NEW, shared=shared)
    made = root(plan)
    assert peers.root(plan, EMPTY) is None
    peers.add(plan, EMPTY, made)
    assert (peers.root(plan, EMPTY) == made) is shared
    assert peers.root(planned(EMPTY, fresh("other")), EMPTY) is None


def test_who_shared_a_root_shares_the_next_one() -> None:
    peers, state = Peers(), state_of([ONE, TWO])
    plan = planned(state, NEW, shared=False)
    made = root(plan)
    peers.add(plan, state, made)
    assert peers.root(plan, state) == made
    assert state.root is not None
    other = replace(state, root=replace(state.root, id=501))
    assert peers.root(plan, other) is None
    assert peers.root(planned(other, NEW), other) is None  # asked for by this one alone


def test_a_root_is_joined_by_the_ids_of_its_programs() -> None:
    """Whatever else is known of them: a source, a size, when they were loaded."""
    peers, plan = Peers(), planned(EMPTY, NEW)
    made = root(plan)
    peers.add(plan, EMPTY, made)
    ran = replace(made.members[0], source=None, size=99, load_time=77, tag="x")
    wanted = make_plan(EMPTY, Chain((ran,)), request=Request(shared=True))
    assert peers.root(wanted, EMPTY) == made
    moved = make_plan(EMPTY, Chain((replace(ran, priority=1),)), request=Request(shared=True))
    assert peers.root(moved, EMPTY) is None
    # Not the one that it runs already.
    here = state_of([made.members[0]])
    assert here.root is not None
    here = replace(here, root=replace(here.root, id=made.id))
    assert peers.root(make_plan(here, here.chain, request=Request(shared=True)), here) is None
    peers.forget(made.id)
    assert peers.root(wanted, EMPTY) is None


def test_a_program_is_loaded_once() -> None:
    """Whatever runs beside it, but not for a chain that counts its packets."""
    peers, plan = Peers(), planned(EMPTY, NEW)
    peers.add(plan, EMPTY, root(plan))
    other = state_of([ONE])
    found = peers.program(planned(other, NEW), NEW)
    assert found
    assert (found.id, found.home) == (90, HOME)
    assert peers.program(planned(other, fresh("other")), fresh("other")) is None
    assert peers.program(planned(other, NEW, shared=False), NEW) is None
    assert peers.program(planned(other, NEW, rules=Rules(counted=1)), NEW) is None


def test_a_program_that_runs_is_known_by_what_it_was_loaded_from(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The kernel is asked once for each."""
    asked: list[int] = []
    recipe = Recipe("/new.o", "new", "abc")

    def is_loaded(number: int, wanted: Recipe) -> bool:
        asked.append(number)
        return wanted == recipe

    monkeypatch.setattr(image, "is_loaded", is_loaded)
    assert NEW.source is not None
    new = replace(NEW, source=replace(NEW.source, recipe=recipe))
    state = state_of([replace(new, id=17, source=None)])
    assert state.root is not None
    slots = tuple(replace(one, pin="/pin") for one in state.root.slots)
    state = replace(state, root=replace(state.root, slots=slots))
    peers = Peers()
    peers.seed(state, HOME)
    for _interface in range(3):
        found = peers.root(planned(EMPTY, new), EMPTY)
        assert found
        assert [one.id for one in found.members] == [17]
    assert asked == [17]
    assert new.source is not None
    changed = replace(new, source=replace(new.source, recipe=replace(recipe, digest="def")))
    assert peers.root(planned(EMPTY, changed), EMPTY) is None


def test_a_root_whose_programs_others_hold_is_not_joined() -> None:
    """The end of the holder would take the program out of one chain, and not of the other."""
    state = state_of([ONE])
    assert state.root is not None
    peers = Peers()
    slots = tuple(replace(one, pin=None) for one in state.root.slots)
    held = replace(state, root=replace(state.root, slots=slots))
    peers.seed(held, HOME)
    plan = make_plan(EMPTY, held.chain, request=Request(shared=True))
    assert peers.root(plan, EMPTY) is None


@pytest.mark.parametrize(
    ("members", "rules", "why"),
    [
        ([ONE], Rules(), ""),
        ([ONE], Rules(counted=1), "its packets are counted"),
        ([replace(ONE, devbound=True)], Rules(), "one asks the device"),
        ([replace(ONE, held=True)], Rules(), "one belongs to another process"),
        ([replace(ONE, array_id=7)], Rules(), "one belongs to another process"),
    ],
)
def test_why_a_root_is_not_shared(members: list[Member], rules: Rules, why: str) -> None:
    target = Chain(tuple(members), rules)
    plan = make_plan(EMPTY, target, request=Request(shared=True))
    assert unshared(plan, EMPTY).startswith(why)
    assert bool(unshared(plan, EMPTY)) is bool(why)
    peers = Peers()
    peers.add(plan, EMPTY, root(plan))
    assert (peers.root(plan, EMPTY) is None) is bool(why)


def test_the_home_of_a_root_that_several_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over netlink the number of the interface tells."""
    bpffs = Bpffs(str(tmp_path))
    for ifindex in (7, 8):
        home = tmp_path / f"xdp/xdpctl-4711-{ifindex}"
        home.mkdir(parents=True)
        (home / f"dispatch-{ifindex}-500").symlink_to("netlink")
    found = homes.of_root(bpffs, 500, 8)
    assert found
    assert found.directory.endswith("-8")
    assert homes.of_root(bpffs, 500, 9) is None
