"""xdpctl.model.plan: from what runs to what shall run, on states made by hand."""

from __future__ import annotations

import itertools
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.unit.samples import chain_of, fresh, plan_of, running, state_of
from xdpctl.bpffs import homes
from xdpctl.bpffs.history import History
from xdpctl.bpffs.mount import Bpffs
from xdpctl.change.planning import default_kind
from xdpctl.errors import ChainFullError, HookBusyError, UnsupportedError, UsageError
from xdpctl.model.chain import Chain, Kind, Member, Rules
from xdpctl.model.generation import Generation
from xdpctl.model.kinds import AskedKind
from xdpctl.model.labels import Attach, Origin
from xdpctl.model.plan import Flip, make_plan
from xdpctl.model.record import Config
from xdpctl.model.request import AskedMode, Request
from xdpctl.model.source import Source
from xdpctl.model.state import Mode, State
from xdpctl.model.terms import Terms

ATTACHES: list[Attach] = ["link", "netlink"]
KINDS: list[Kind] = ["ext", "fused"]
EPERM, EBUSY, EEXIST, EINVAL = 1, 16, 17, 22
ONE, TWO, NEW = running("one", 1), running("two", 2), fresh("new")


def with_protocol(state: State, protocol: int) -> State:
    """The same, its dispatcher of another version of libxdp's protocol."""
    assert state.root is not None
    assert state.root.config is not None
    config = replace(state.root.config, protocol=protocol)
    return replace(state, root=replace(state.root, config=config))


def libxdps(protocol: int, mode: Mode = "native") -> State:
    """An interface that libxdp runs two programs on."""
    return with_protocol(state_of([ONE, TWO], owner="libxdp", link_id=0, mode=mode), protocol)


def others_chain() -> State:
    """A chain on a link that xdpctl did not pin here."""
    state = state_of([ONE])
    assert state.root is not None
    return replace(state, root=replace(state.root, owner="other", link_pin=None))


@pytest.mark.parametrize(
    ("current", "target", "flip"),
    [
        (None, [], "none"),
        (None, [NEW], "attach"),
        (None, [NEW, fresh("other")], "attach"),
        ([ONE], [ONE], "update"),
        ([ONE], [NEW, ONE], "update"),
        ([ONE, TWO], [TWO], "update"),
        ([ONE, TWO], [], "detach"),
        ([], [], "detach"),
        ([], [NEW], "update"),
        ([None], [], "detach"),
        ([None, TWO], [TWO], "update"),
    ],
)
def test_every_combination(
    current: list[Member | None] | None, target: list[Member], flip: Flip
) -> None:
    state = state_of(current)
    plan = plan_of(state, Chain(tuple(target)), None)
    assert plan.flip == flip
    assert plan.interface == "veth7"
    assert plan.current == state.chain
    assert list(plan.target.members) == target
    assert plan.mode == "native"


def test_who_joins_stays_and_leaves() -> None:
    leaving, vacant = running("gone", 3), None
    state = state_of([ONE, leaving, vacant, TWO])
    plan = plan_of(state, chain_of(TWO, NEW, ONE))
    assert plan.joining == (NEW,)
    assert plan.staying == (TWO, ONE)
    assert plan.leaving == (leaving,)
    assert plan_of(state, Chain()).leaving == (ONE, leaving, TWO)
    # A twin of the same name is another program.
    twin = fresh("one")
    replaced = plan_of(state_of([ONE]), chain_of(twin))
    assert (replaced.joining, replaced.leaving) == ((twin,), (ONE,))


def test_planning_changes_nothing() -> None:
    state = state_of([ONE, TWO])
    plan_of(state, chain_of(NEW))
    assert state == state_of([ONE, TWO])


# --- modes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "planned"),
    [(None, "native"), ("native", "native"), ("skb", "skb"), ("unspecified", "unspecified")],
)
def test_the_mode_of_a_first_root(asked: AskedMode | None, planned: AskedMode) -> None:
    assert plan_of(state_of(None), chain_of(NEW), asked).mode == planned


@pytest.mark.parametrize(
    ("mode", "asked"),
    [*itertools.product(["native", "skb"], [None, "unspecified", "native", "skb"])],
)
def test_the_mode_of_a_later_root(mode: Mode, asked: AskedMode | None) -> None:
    state = state_of([ONE], mode=mode)
    if asked in (None, "unspecified", mode):
        assert plan_of(state, chain_of(ONE, NEW), asked).mode == mode
        return
    with pytest.raises(UnsupportedError, match=f"veth7 runs its chain in {mode} mode") as caught:
        plan_of(state, chain_of(ONE, NEW), asked)
    assert f"-m {mode}" in caught.value.hint
    # Detaching asks for no mode.
    assert plan_of(state, Chain(), asked).flip == "detach"


# --- link or netlink ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "planned"), [(None, "link"), *zip(ATTACHES, ATTACHES, strict=True)]
)
def test_what_attaches_a_first_root(asked: Attach | None, planned: Attach) -> None:
    assert plan_of(state_of(None), chain_of(NEW), attach=asked).attach == planned


@pytest.mark.parametrize("there", ATTACHES)
@pytest.mark.parametrize("asked", [None, *ATTACHES])
def test_what_attaches_a_later_root(there: Attach, asked: Attach | None) -> None:
    state = state_of([ONE], link_id=77 if there == "link" else 0)
    if asked in (None, there):
        assert plan_of(state, chain_of(ONE, NEW), attach=asked).attach == there
        return
    with pytest.raises(UnsupportedError, match=f"veth7 is attached by {there}") as caught:
        plan_of(state, chain_of(ONE, NEW), attach=asked)
    assert f"--attach {there}" in caught.value.hint
    # Detaching goes the way that it came.
    assert plan_of(state, Chain(), attach=asked).attach == there


def test_who_lost_its_owner_leaves() -> None:
    state = state_of([ONE, TWO], origins={1: Origin(90, 4711, "app")}, orphans={1})
    plan = plan_of(state, state.chain)
    assert (plan.staying, plan.flip) == ((ONE,), "update")
    alone = state_of([ONE], origins={0: Origin(90, 4711, "app")}, orphans={0})
    assert plan_of(alone, alone.chain).flip == "detach"


# --- kinds of root ------------------------------------------------------------------------------


@pytest.mark.parametrize("refused", [0, EPERM])
@pytest.mark.parametrize(
    ("asked", "auto", "planned"),
    [
        (None, True, ("ext", "fused")),
        ("auto", True, ("ext", "fused")),
        ("ext", False, ("ext", "ext")),
        ("fused", False, ("fused", "fused")),
    ],
)
def test_the_kind_of_a_first_root(
    asked: AskedKind | None, auto: bool, planned: tuple[Kind, Kind], refused: int
) -> None:
    """With `auto` what the kernel allows; the reason is kept, unless the kind was asked for."""
    plan = plan_of(state_of(None), chain_of(NEW), kind=asked, refused=refused)
    assert (plan.kind, plan.auto) == (planned[bool(refused)], auto)
    assert plan.why == (refused if auto else 0)


@pytest.mark.parametrize("there", KINDS)
@pytest.mark.parametrize("asked", [None, "auto", *KINDS])
@pytest.mark.parametrize("refused", [0, EPERM])
def test_the_kind_of_a_later_root(there: Kind, asked: AskedKind | None, refused: int) -> None:
    """The one that is there, unless another is asked for; its reason stays with it."""
    state = state_of([ONE], kind=there, why=95 if there == "fused" else 0)
    plan = plan_of(state, chain_of(ONE, NEW), kind=asked, refused=refused)
    assert plan.flip == "update"
    if asked is None:
        assert (plan.kind, plan.auto, plan.why) == (there, False, 95 if there == "fused" else 0)
    elif asked == "auto":
        assert (plan.kind, plan.auto, plan.why) == ("fused" if refused else "ext", True, refused)
    else:
        assert (plan.kind, plan.auto, plan.why) == (asked, False, 0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("asked", [None, 1, 2, 3])
@pytest.mark.parametrize("there", [0, 1, 9, None])
def test_as_many_programs_as_a_root_has_slots(
    kind: Kind, asked: int | None, there: int | None
) -> None:
    """Libxdp's protocol has ten on a dispatcher, and is nothing to a fused root."""
    most = 10 if asked and kind == "ext" else 200
    count = most if there is None else there
    old = [running(f"p{number}", number + 1) for number in range(count)]
    state = state_of(old or None, kind=kind)
    full = Chain().with_added([*old, *(fresh(f"n{number}") for number in range(most - count))])
    assert plan_of(state, full, kind=kind, protocol=asked).kind == kind
    more = full.with_added([fresh("a"), fresh("b")])
    with pytest.raises(ChainFullError, match=f"would have {most + 2} programs") as caught:
        plan_of(state, more, kind=kind, protocol=asked)
    error = caught.value
    assert error.exit_code == 10
    what = f"a dispatcher of libxdp's protocol {asked}" if most == 10 else "a root"
    assert error.why == f"{what} has {most} slots, and {count} programs are there"
    assert "xdpctl unload" in error.hint
    # What more there is to be had.
    assert ("leave out --protocol: then there are 200 slots" in error.hint) == (most == 10)


@pytest.mark.parametrize("there", [1, 2, 3])
def test_a_chain_that_grows_beyond_its_protocol_comes_back_to_it(there: int) -> None:
    """Whatever it is while it has more than ten programs; one that was asked for goes before."""
    members = [running(f"p{number}", number + 1) for number in range(11)]
    ten = with_protocol(state_of(members[:10]), there)
    assert plan_of(ten, Chain(tuple(members))).protocol == there
    eleven = with_protocol(state_of(members), there)
    assert eleven.root is not None
    assert eleven.root.config is not None
    assert (eleven.root.kind, eleven.root.config.libxdp) == ("ext", 0)
    for target in (members, members[1:], members[:1]):
        plan = plan_of(eleven, Chain(tuple(target)))
        assert (plan.kind, plan.protocol) == ("ext", there)
    assert plan_of(eleven, Chain(tuple(members[1:])), protocol=1).protocol == 1
    with pytest.raises(ChainFullError):
        plan_of(eleven, eleven.chain, protocol=there)


@pytest.mark.parametrize("there", KINDS)
@pytest.mark.parametrize("asked", [None, "auto", *KINDS])
def test_a_long_chain_may_be_of_either_kind(there: Kind, asked: AskedKind | None) -> None:
    members = [running(f"p{number}", number + 1) for number in range(11)]
    state = state_of(members, kind=there)
    for refused in (0, EPERM):
        plan = plan_of(state, state.chain, kind=asked, refused=refused)
        wanted = ("fused" if refused else "ext") if asked == "auto" else asked or there
        assert plan.kind == wanted


def test_the_kind_that_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    assert default_kind() is None
    for value in ("", "ext", "fused", "auto"):
        monkeypatch.setenv("XDPCTL_ROOT", value)
        assert default_kind() == (value or None)
    for value in ("Fused", "fuse", " ext", "link"):
        monkeypatch.setenv("XDPCTL_ROOT", value)
        with pytest.raises(UsageError, match=f"XDPCTL_ROOT={value} names no kind") as caught:
            default_kind()
        assert "ext, fused or auto" in caught.value.hint


# --- modes that cannot be had -------------------------------------------------------------------


def test_a_card_takes_one_program_and_no_chain() -> None:
    """Nor does anything else that is asked for of a root make a dispatcher there."""
    for kind in (None, "ext", "fused", "auto"):
        for refused in (0, EPERM):
            plan = plan_of(state_of(None), chain_of(NEW), "hw", kind=kind, refused=refused)
            assert (plan.flip, plan.mode, plan.kind) == ("attach", "hw", "bare")
            assert (plan.attach, plan.auto, plan.why, plan.gives_back) == ("link", False, 0, False)
    assert [member.actions for member in plan.target.members] == [0]
    with pytest.raises(UsageError, match="several programs"):
        plan_of(state_of(None), chain_of(NEW, NEW), "hw")
    for state in (state_of([ONE]), state_of([ONE], kind="fused"), libxdps(2)):
        with pytest.raises(UnsupportedError, match="veth7 runs a chain") as caught:
            plan_of(state, state.chain.with_added([NEW]), "hw")
        assert (caught.value.number, "without -m hw" in caught.value.hint) == (EINVAL, True)


# --- a program that is the root itself ----------------------------------------------------------


def bare(mode: Mode = "native", *, pinned: bool = False) -> State:
    state = state_of([ONE], kind="bare", mode=mode, link_id=77 * pinned)
    assert state.root is not None
    pin = state.root.link_pin if pinned else None
    return replace(state, root=replace(state.root, link_pin=pin))


def test_one_program_without_a_dispatcher() -> None:
    plan = plan_of(state_of(None), chain_of(NEW), "skb", "netlink", kind="bare")
    assert (plan.flip, plan.mode, plan.attach, plan.kind) == ("attach", "skb", "netlink", "bare")
    with pytest.raises(UnsupportedError, match="veth7 runs a chain") as caught:
        plan_of(state_of([ONE]), chain_of(ONE, NEW), kind="bare")
    assert (caught.value.number, caught.value.hint) == (EBUSY, "unload everything first")
    with pytest.raises(UnsupportedError, match="a process cannot hold"):
        plan_of(state_of(None), chain_of(replace(NEW, held=True)), kind="bare")


@pytest.mark.parametrize("mode", ["native", "skb", "hw"])
@pytest.mark.parametrize("asked", [None, "native", "skb", "hw"])
def test_nothing_joins_or_changes_a_program_that_is_the_root(mode: Mode, asked: AskedMode) -> None:
    for kind in (None, "ext", "bare"):
        for target in (chain_of(ONE, NEW), chain_of(ONE), Chain((ONE,), Rules(1))):
            with pytest.raises(UnsupportedError, match="has the XDP hook of veth7 to it") as caught:
                plan_of(bare(mode), target, asked, kind=kind)
            again = EEXIST if mode == "hw" else EINVAL
            assert caught.value.number == (again if asked == "hw" else EBUSY)
            assert "xdpctl unload veth7 -i 500" in caught.value.hint
            assert ("card" in caught.value.why) == (mode == "hw")
            assert ("xdpctl adopt" in caught.value.hint) == (mode != "hw")


@pytest.mark.parametrize("mode", ["native", "skb", "hw"])
def test_a_program_that_is_the_root_is_taken_off(mode: Mode) -> None:
    plan = plan_of(bare(mode), Chain())
    assert (plan.flip, plan.mode, plan.kind, plan.leaving) == ("detach", mode, "bare", (ONE,))


def test_a_program_that_is_the_root_is_adopted_where_it_could_come_back() -> None:
    plan = plan_of(bare(), chain_of(NEW), adopts=True)
    assert (plan.flip, plan.adopts, plan.kind, plan.leaving) == ("update", True, "ext", ())
    back = plan_of(state_of([TWO], link_id=0), chain_of(ONE), kind="bare")
    assert (back.flip, back.kind, back.gives_back) == ("update", "bare", True)
    for state in (bare("hw"), bare(pinned=True)):
        with pytest.raises(UnsupportedError, match="to itself") as caught:
            plan_of(state, chain_of(NEW), adopts=True)
        assert "adopt" not in caught.value.hint


# --- the hook of somebody else ------------------------------------------------------------------


_BUSY = r"another tool's program .* hook of veth7$|^veth7 runs a chain whose pins are not in this"


def busy(state: State, target: Chain, **asked: Any) -> HookBusyError:
    with pytest.raises(HookBusyError, match=_BUSY) as caught:
        plan_of(state, target, **asked)
    assert caught.value.exit_code == 8
    return caught.value


@pytest.mark.parametrize("mode", ["native", "skb"])
def test_another_program_over_netlink(mode: Mode) -> None:
    error = busy(state_of([], owner="other", link_id=0, mode=mode), chain_of(NEW))
    assert "program 500 (firewall), attached over netlink" in error.why
    assert "xdpctl adopt veth7 FILE;" in error.hint
    # Plain "xdp off" would leave a program in generic mode where it is.
    word = {"native": "xdpdrv", "skb": "xdpgeneric"}[mode]
    assert f"ip link set dev veth7 {word} off" in error.hint
    assert "bpftool" not in error.hint


def test_another_program_by_link() -> None:
    error = busy(state_of([], owner="other", link_id=77), chain_of(NEW))
    assert "program 500 (firewall), attached by bpf_link 77" in error.why
    assert "xdpctl adopt veth7 FILE --force" in error.hint
    # What netlink cannot take off is not to be tried with netlink.
    assert "ip link" not in error.hint


def test_another_chain_by_link() -> None:
    """One whose link is pinned elsewhere, or held by a process: there is nothing to adopt."""
    state = others_chain()
    for target in (Chain(), chain_of(NEW)):
        error = busy(state, target)
        assert "bpftool link show id 77" in error.hint
        assert "adopt" not in error.hint
    busy(state, chain_of(NEW), adopts=True)


def test_a_busy_hook_comes_before_its_mode() -> None:
    busy(state_of([], owner="other", mode="skb"), chain_of(NEW), mode="native")


# --- joining libxdp -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "flip"),
    [(Chain(), "detach"), (chain_of(ONE), "update"), (chain_of(ONE, NEW), "update")],
    ids=["unload", "swap", "load"],
)
@pytest.mark.parametrize("mode", ["native", "skb"])
def test_a_dispatcher_of_libxdps_is_a_chain_like_any_other(
    target: Chain, flip: Flip, mode: Mode
) -> None:
    """Over netlink and in its mode, whatever a first root would have."""
    plan = plan_of(libxdps(2, mode=mode), target)
    assert (plan.flip, plan.attach, plan.mode, plan.kind) == (flip, "netlink", mode, "ext")
    assert (plan.current, plan.protocol, plan.adopts) == (chain_of(ONE, TWO), 2, False)


@pytest.mark.parametrize("asked", [None, 1, 2, 3])
@pytest.mark.parametrize("there", [1, 2, 3])
def test_the_protocol_that_is_there_stays_unless_another_is_asked_for(
    there: int, asked: int | None
) -> None:
    for state in (libxdps(there), with_protocol(state_of([ONE, TWO]), there)):
        assert plan_of(state, chain_of(ONE, TWO, NEW), protocol=asked).protocol == (asked or there)


@pytest.mark.parametrize("asked", [None, 1, 2, 3])
@pytest.mark.parametrize("state", [state_of(None), state_of([ONE], kind="fused")])
def test_the_protocol_of_a_first_dispatcher(state: State, asked: int | None) -> None:
    """Also of one in the place of a fused root, which has none."""
    assert plan_of(state, chain_of(NEW), kind="ext", protocol=asked).protocol == (asked or 2)


def test_libxdps_dispatcher_does_not_come_to_a_link() -> None:
    with pytest.raises(UnsupportedError, match="veth7 is attached by netlink"):
        plan_of(libxdps(2), chain_of(ONE, TWO, NEW), attach="link")


# --- adopting -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("link_id", "attach"), [(0, "netlink"), (77, "link")])
@pytest.mark.parametrize("mode", ["native", "skb"])
def test_a_program_that_is_adopted_makes_room_for_a_root(
    link_id: int, attach: Attach, mode: Mode
) -> None:
    """Attached as the program is; what else it is like is as for a first root."""
    state = state_of([], owner="other", link_id=link_id, mode=mode)
    plan = plan_of(state, chain_of(NEW), adopts=True)
    assert (plan.flip, plan.attach, plan.mode) == ("update", attach, mode)
    assert (plan.kind, plan.auto, plan.protocol) == ("ext", True, 2)
    assert plan.adopts
    assert (plan.joining, plan.leaving) == ((NEW,), ())
    refused = plan_of(state, chain_of(NEW), adopts=True, refused=EPERM)
    assert (refused.kind, refused.why) == ("fused", EPERM)
    assert plan_of(state, chain_of(NEW), adopts=True, kind="fused", protocol=3).kind == "fused"


@pytest.mark.parametrize("state", [state_of(None), state_of([ONE])])
def test_where_there_is_nothing_to_adopt_nothing_is_adopted(state: State) -> None:
    assert not plan_of(state, state.chain.with_added([NEW]), adopts=True).adopts


# --- programs that are bound to their device ----------------------------------------------------

BOUND = replace(TWO, devbound=True)


@pytest.mark.parametrize("kind", ["ext", "fused"])
def test_the_root_is_bound_for_as_long_as_a_program_is(kind: Kind) -> None:
    """Its record is of a protocol with a word for that, unless another is asked for."""
    state = state_of([ONE, BOUND])
    for target, protocol in ((chain_of(ONE, BOUND), 3), (chain_of(BOUND), 3), (chain_of(ONE), 2)):
        plan = plan_of(state, target, kind=kind)
        assert (plan.target, plan.protocol) == (target, protocol)
        config = Config.of(target.members, plan.protocol)
        assert config.devbound is (BOUND in target.members)
    assert plan_of(state, chain_of(BOUND), protocol=2).protocol == 2


@pytest.mark.parametrize(
    ("target", "asked", "why", "hint"),
    [
        (chain_of(BOUND), {"mode": "skb"}, "generic mode", "-m native"),
        (chain_of(BOUND), {"mode": "hw"}, "a card", "-m native"),
        (chain_of(BOUND), {"protocol": 1}, "protocol 1 has no word", "or take 3"),
        (chain_of(replace(BOUND, held=True)), {"kind": "fused"}, "holds two", "--root ext"),
        (chain_of(ONE, replace(BOUND, array_id=3)), {"kind": "fused"}, "holds two", "--root ext"),
    ],
)
def test_what_no_bound_root_can_be(
    target: Chain, asked: dict[str, Any], why: str, hint: str
) -> None:
    with pytest.raises(UnsupportedError, match="two cannot ask veth7 about packets") as caught:
        plan_of(state_of(None), target, **asked)
    assert why in caught.value.why
    assert hint in caught.value.hint


def test_a_chain_in_generic_mode_takes_no_bound_program() -> None:
    with pytest.raises(UnsupportedError, match="two cannot ask") as caught:
        plan_of(state_of([ONE], mode="skb"), chain_of(ONE, BOUND))
    assert "unload everything first" in caught.value.hint


# --- what has to fit a record -------------------------------------------------------------------

LONG = tuple(f"{number:02}" + "x" * 62 for number in range(62))


@pytest.mark.parametrize(
    "member",
    [
        replace(fresh("a"), before=LONG),
        replace(fresh("a"), before=LONG[:31], after=LONG[31:]),
        fresh("n" * 4000),
        fresh("ж" * 2000),
        replace(fresh("a"), source=Source("a.o", b"", "a", "/sys/fs/bpf/" + "d" * 3800)),
    ],
    ids=["before", "both", "name", "bytes", "path"],
)
def test_what_no_record_holds_is_refused(member: Member) -> None:
    """Before it is loaded: the chain could never be changed again."""
    with pytest.raises(UsageError, match="too long"):
        plan_of(state_of(None), chain_of(member))


def test_what_runs_already_may_be_changed(tmp_path: Path) -> None:
    """Whatever names an earlier version took: its record goes without them."""
    old = replace(running("a", 9), before=LONG)
    state = state_of([old])
    plan_of(state, chain_of(old, fresh("b")))
    plan = plan_of(state, Chain())
    home = homes.of(Bpffs(str(tmp_path)), state.interface)
    os.makedirs(home.directory)
    History(home).record(Generation.of(1, state, plan, None, Terms("unload")))
    (one,) = History(home).recorded()
    assert [member.name for member in one.chain.members] == ["a"]
    assert one.chain.members[0].before == ()


def test_many_members_with_names_as_long_as_can_be(tmp_path: Path) -> None:
    members = [replace(running("n" * 63, 9 + at), label=one) for at, one in enumerate(LONG)]
    members[0] = replace(members[0], before=LONG[1:50])
    state = state_of(members)
    plan = plan_of(state_of(None), chain_of(*members))
    home = homes.of(Bpffs(str(tmp_path)), state.interface)
    os.makedirs(home.directory)
    History(home).record(
        Generation.of(1, state, replace(plan, current=plan.target), None, Terms("x"))
    )
    (one,) = History(home).recorded()
    assert [member.label for member in one.chain.members] == list(LONG)
    assert one.chain.members[0].before == LONG[1:50]


def test_an_empty_root_is_one_more_chain() -> None:
    """Whatever is there and whatever is wanted, members or none: the flip follows from both."""
    states = {
        "attach": state_of(None),
        "update": state_of([ONE]),
        "empty": state_of([]),
    }
    kept, gone = Chain(kept=True), Chain()
    assert states["empty"].chain == kept
    assert states["update"].chain.kept is False
    assert state_of([None]).chain.kept is False
    for flip, state in states.items():
        wanted = "attach" if flip == "attach" else "update"
        assert plan_of(state, kept).flip == wanted
        assert plan_of(state, kept).is_same == (flip == "empty")
        assert plan_of(state, chain_of(NEW)).flip == wanted
        assert plan_of(state, gone).flip == ("none" if flip == "attach" else "detach")
    assert not plan_of(states["empty"], gone).is_same


def test_a_chain_is_ready_as_it_is() -> None:
    asked = Request(unless_same=True)
    for members in ([ONE], []):
        state = state_of(members)
        assert make_plan(state, state.chain, request=asked).flip == "none"
        assert make_plan(state, chain_of(NEW), request=asked).flip == "update"
    assert make_plan(state_of(None), Chain(kept=True), request=asked).flip == "attach"
    with pytest.raises(HookBusyError):
        make_plan(others_chain(), others_chain().chain, request=asked)


def test_a_card_has_no_empty_root() -> None:
    with pytest.raises(UsageError, match="root of its own"):
        plan_of(state_of(None), Chain(kept=True), mode="hw")
