"""xdpctl.change.sweep: which interfaces it goes to, what it tells, and what does not stop it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from tests.unit.samples import HOME, running, state_of
from xdpctl.bpffs import homes
from xdpctl.bpffs.directory import InterfacePins
from xdpctl.bpffs.mount import Bpffs
from xdpctl.change import sweep
from xdpctl.change.report import Report
from xdpctl.change.sweep import Event
from xdpctl.errors import (
    BpffsError,
    HookBusyError,
    Interrupted,
    KernelError,
    UnsupportedError,
    VanishedError,
)
from xdpctl.host import interfaces
from xdpctl.host.interfaces import Interface
from xdpctl.kernel import netlink, records
from xdpctl.model.labels import Origin
from xdpctl.model.plan import make_plan
from xdpctl.model.state import State
from xdpctl.observe.reading import View, Views

ETH0, ETH1 = Interface("eth0", 2, "1"), Interface("eth1", 3, "1")
VETH0, VETH1 = Interface("veth0", 2, "22"), Interface("veth1", 5, "22")
APP = Origin(90, 4711, "app")


class World:
    """Two network namespaces, the first of which is the current one."""

    def __init__(self) -> None:
        self.here = "1"
        self.interfaces = {"1": [ETH0, ETH1], "22": [VETH0, VETH1]}
        self.programs: dict[str, dict[int, tuple[int, int]]] = {"1": {}, "22": {}}
        self.entered: list[str] = []

    def visible(self, _refused: list[str] | None = None) -> Iterator[tuple[str, str]]:
        for name in self.interfaces:
            yield name, f"/{name}"

    @contextlib.contextmanager
    def enter(self, path: str) -> Iterator[None]:
        self.entered.append(path)
        before, self.here = self.here, path[1:]
        try:
            yield
        finally:
            self.here = before


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made = World()
    monkeypatch.setattr(interfaces, "current", lambda: made.here)
    monkeypatch.setattr(interfaces, "visible", made.visible)
    monkeypatch.setattr(interfaces, "entered", made.enter)
    monkeypatch.setattr(Interface, "all", lambda: made.interfaces[made.here])
    monkeypatch.setattr(netlink, "xdp_programs", lambda: made.programs[made.here])
    return made


@pytest.fixture
def bpffs(tmp_path: Path) -> Bpffs:
    (tmp_path / "xdp").mkdir()
    return Bpffs(str(tmp_path))


def home_of(bpffs: Bpffs, interface: Interface, root_id: int, ifindex: int = 0) -> InterfacePins:
    """Pins of an interface, with the record of a root that is attached over netlink."""
    home = homes.of(bpffs, interface)
    home = home.with_ifindex(ifindex or home.ifindex)
    os.makedirs(home.directory, exist_ok=True)
    home.make_dispatch(root_id, "netlink")
    return home


def fill(bpffs: Bpffs) -> None:
    """Every interface has pins where they belong."""
    for number, interface in enumerate((ETH0, ETH1, VETH0, VETH1)):
        home_of(bpffs, interface, 500 + number)


# --- which interfaces ---------------------------------------------------------------------------


def found(bpffs: Bpffs, world: World) -> list[Interface]:
    each = []
    for one in homes.interfaces_of(bpffs):
        assert one.netns == world.here
        each.append(one)
    assert world.here == "1"
    return each


def test_where_nothing_is_kept_nobody_looks(bpffs: Bpffs, world: World) -> None:
    assert found(bpffs, world) == []
    assert world.entered == []


def test_interfaces_are_found_in_every_namespace(bpffs: Bpffs, world: World) -> None:
    home_of(bpffs, ETH1, 500)
    assert found(bpffs, world) == [ETH1]
    assert world.entered == []
    home_of(bpffs, VETH0, 600)
    home_of(bpffs, Interface("gone", 77, "333"), 700)
    assert found(bpffs, world) == [ETH1, VETH0]
    assert world.entered == ["/22"]


@pytest.mark.parametrize("moved_to", [ETH0, VETH1])
@pytest.mark.parametrize("recorded", [0, 9], ids=["old number", "third number"])
def test_an_interface_that_moved_is_found_by_its_root(
    bpffs: Bpffs, world: World, moved_to: Interface, recorded: int
) -> None:
    """Before any command has changed its chain there."""
    home_of(bpffs, Interface("before", 7, "333"), 500, recorded)
    world.programs[moved_to.netns] = {moved_to.ifindex: (500, 1), 99: (0, 0)}
    assert found(bpffs, world) == [moved_to]


def test_an_interface_whose_place_another_one_has(bpffs: Bpffs, world: World) -> None:
    """Each is come to once: the one by its own place, the other by the root that it runs."""
    home_of(bpffs, ETH0, 500)
    os.rename(homes.of(bpffs, ETH0).directory, f"{bpffs.xdp}/xdpctl-moved-500")
    home_of(bpffs, ETH0, 600)
    world.programs = {"1": {2: (600, 1)}, "22": {2: (500, 1), 5: (0, 0)}}
    assert found(bpffs, world) == [ETH0, VETH0]


# --- clean --------------------------------------------------------------------------------------


def repairing(
    monkeypatch: pytest.MonkeyPatch, outcomes: Mapping[str, Exception | tuple[str, ...]]
) -> list[str]:
    """What comes of the repair of each interface; returns the names of those that it came to."""
    came: list[str] = []

    def repaired(_bpffs: Bpffs, state: State, _dry_run: bool) -> tuple[str, ...]:
        came.append(state.interface.name)
        outcome = outcomes.get(state.interface.name, ())
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr(sweep, "_repaired", repaired)
    monkeypatch.setattr(sweep, "_overdue", lambda *_: None)
    monkeypatch.setattr(
        sweep, "observe", lambda one, *_, **_view: replace(state_of(None), interface=one)
    )
    return came


def drained(events: Iterator[Event]) -> tuple[list[Event], Exception | None]:
    """Everything that is told, and what it ended with."""
    told: list[Event] = []
    try:
        for event in events:
            told.append(event)
    except (HookBusyError, KernelError, Interrupted, UnsupportedError) as error:
        return told, error
    return told, None


@pytest.mark.parametrize("error", [HookBusyError("busy"), KernelError("bpf_obj_get", 12)])
def test_what_fails_on_one_does_not_stop_the_rest(
    error: Exception, bpffs: Bpffs, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first error is raised at the end; an interface that went is none."""
    gone = home_of(bpffs, Interface("gone", 77, "333"), 700)
    fill(bpffs)
    monkeypatch.setattr(sweep, "may_run_elsewhere", lambda *_: False)
    outcomes = {"eth0": error, "eth1": VanishedError("gone"), "veth0": UnsupportedError("no")}
    came = repairing(monkeypatch, {**outcomes, "veth1": ("/left",)})
    told, ended = drained(sweep.clean(bpffs, None, dry_run=False))
    assert came == ["eth0", "eth1", "veth0", "veth1"]
    assert told == [
        Event("veth1@22", "removed /left", "left by an interrupted command"),
        Event("-", f"removed {gone.directory}", "its interface is gone"),
    ]
    assert ended is error


def test_a_signal_stops_it_at_once(
    bpffs: Bpffs, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    came = repairing(monkeypatch, {"eth0": HookBusyError("busy"), "eth1": Interrupted(15)})
    told, ended = drained(sweep.clean(bpffs, [ETH0, ETH1, VETH0], dry_run=False))
    assert (came, told) == (["eth0", "eth1"], [])
    assert isinstance(ended, Interrupted)


@pytest.mark.parametrize("dry_run", [False, True])
def test_what_belongs_to_nothing_is_removed(
    dry_run: bool, bpffs: Bpffs, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless its root runs, or may run where one cannot look."""
    gone = home_of(bpffs, Interface("gone", 77, "333"), 700)
    hidden = home_of(bpffs, Interface("hidden", 78, "333"), 701)
    here = home_of(bpffs, Interface("renamed", 79, "333"), 702)
    monkeypatch.setattr(sweep, "may_run_elsewhere", lambda _bpffs, root, _home: root in (701, 702))
    monkeypatch.setattr(sweep, "_repaired", lambda *_: ())
    told, ended = drained(sweep.clean(bpffs, None, dry_run))
    assert told == [Event("-", f"removed {gone.directory}", "its interface is gone")]
    assert ended is None
    there = {one for one in (gone, hidden, here) if os.path.exists(one.directory)}
    assert there == ({gone, hidden, here} if dry_run else {hidden, here})
    assert os.path.exists(gone.dispatch(700)) is dry_run
    assert os.path.exists(hidden.dispatch(701))


# --- tend ---------------------------------------------------------------------------------------


def tending(
    monkeypatch: pytest.MonkeyPatch, states: Mapping[str, State | Exception]
) -> Callable[[Bpffs], tuple[list[Event], Exception | None]]:
    """Tend with states by interface; a change is made by name alone, and cleaning does nothing."""

    def observe(interface: Interface, _bpffs: Bpffs, **_view: object) -> State:
        state = states[interface.name]
        if isinstance(state, Exception):
            raise state
        return replace(state, interface=interface)

    def transact(_bpffs: Bpffs, interface: Interface, target: Callable[[State], object]) -> Report:
        state = observe(interface, _bpffs)
        assert target(state) == state.chain
        return Report(make_plan(state, state.chain), state)

    monkeypatch.setattr(sweep, "observe", observe)
    monkeypatch.setattr(sweep, "transact", transact)
    monkeypatch.setattr(sweep, "clean", lambda *_, **__: iter(()))
    return lambda bpffs: drained(sweep.tend(bpffs))


def test_gaps_are_closed_and_told(
    bpffs: Bpffs, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = running("one", 11), running("two", 12)
    fill(bpffs)
    tend = tending(
        monkeypatch,
        {
            "eth0": state_of([one, None], origins={0: APP}),
            "eth1": state_of([one, two], origins={1: APP}),
            "veth0": state_of([one, two], origins={1: APP}, orphans={1}),
            "veth1": state_of([one, None], owner="libxdp", link_id=0),  # theirs to keep
        },
    )
    assert tend(bpffs) == (
        [
            Event("eth0", "closed slot 1", "it was vacant"),
            Event("veth0@22", "took out two (id 12)", "link 90 of 4711 (app) is gone"),
        ],
        None,
    )


def test_what_fails_is_an_event(
    bpffs: Bpffs, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(bpffs)
    tend = tending(
        monkeypatch,
        {
            "eth0": HookBusyError("busy", why="so it is"),
            "eth1": VanishedError("gone"),
            "veth0": KernelError("bpf_obj_get", 12),
            "veth1": State(VETH1, None, (), HOME.home),
        },
    )

    def clean(*_arguments: object, **_named: object) -> Iterator[Event]:
        yield Event("veth1", "removed /left", "left")
        raise BpffsError("full", why="no room")

    monkeypatch.setattr(sweep, "clean", clean)
    why = "bpf_obj_get: Cannot allocate memory (ENOMEM)"
    assert tend(bpffs) == (
        [
            Event("eth0", "busy", "so it is"),
            Event("veth0@22", "a kernel call failed: bpf_obj_get", why),
            Event("veth1", "removed /left", "left"),
            Event("-", "full", "no room"),
        ],
        None,
    )


def test_a_signal_ends_the_tending(
    bpffs: Bpffs, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(bpffs)
    tend = tending(monkeypatch, {"eth0": Interrupted(15), "eth1": HookBusyError("busy")})
    told, ended = tend(bpffs)
    assert (told, isinstance(ended, Interrupted)) == ([], True)


def test_a_look_reads_the_kernel_once(
    bpffs: Bpffs, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many chains there are: a dump of programs a namespace, one of links."""
    world.interfaces = {
        netns: [Interface(f"veth{number}", number, netns) for number in range(1, 101)]
        for netns in ("1", "22")
    }
    for one in (*world.interfaces["1"], *world.interfaces["22"]):
        os.makedirs(homes.of(bpffs, one).directory)
        os.symlink("x", f"{homes.of(bpffs, one).directory}/label-1-1")
    dumps = list[str]()

    def programs() -> dict[int, tuple[int, int]]:
        dumps.append(world.here)
        return {}

    def links() -> Iterator[records.LinkInfo]:
        dumps.append("links")
        return iter(())

    def observe(interface: Interface, _bpffs: Bpffs, *, view: View | None = None) -> State:
        assert view
        assert view.links == []
        return replace(state_of(None), interface=interface)

    monkeypatch.setattr(View, "__init__", lambda view: setattr(view, "programs", programs()))
    monkeypatch.setattr("xdpctl.kernel.libbpf.links", links)
    monkeypatch.setattr(sweep, "observe", observe)
    views = Views()
    assert list(sweep.tend(bpffs, views)) == []
    assert sorted(dumps) == ["1", "22", "links"]


# --- what is not xdpctl's -----------------------------------------------------------------------


def dangling(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to("nowhere")


def directory(path: Path) -> None:
    (path / "inner").mkdir(parents=True)


LO = Interface("lo", 1, interfaces.current())
MINE, GONE = f"xdpctl-{LO.netns}-1", "xdpctl-77-77"
PLACES = [
    *("{home}", "{home}/root_link", "{home}/dispatch-1-40", "{home}/label-40-0", "{home}/was-3"),
    *("{home}/confirm", "{home}/rules-40", "{home}/made-40-0", "{home}/counter-9-entry"),
    *("dispatch-1-40", "dispatch-1-40/prog0-link", "{home}/kept-3-9", "{home}/borrowed-40-1"),
]


@pytest.mark.parametrize("make", [dangling, directory])
@pytest.mark.parametrize("home", [MINE, GONE])
def test_what_stands_in_the_place_of_something_is_passed_by(
    tmp_path: Path, make: Callable[[Path], None], home: str
) -> None:
    """It neither stops the command nor keeps it from what is another interface's, nor loops."""
    for number, place in enumerate(PLACES):
        bpffs = Bpffs(str(tmp_path / f"{number}"))
        xdp = Path(bpffs.xdp)
        xdp.mkdir(parents=True, mode=0o700)
        stray = xdp / place.format(home=home)
        make(stray)
        if place.startswith("dispatch"):
            (xdp / home).mkdir(exist_ok=True)
            (xdp / home / "dispatch-1-40").symlink_to("link")
        (xdp / "xdpctl-88-88").mkdir()
        (xdp / "xdpctl-88-88/label-1-1").symlink_to("of nobody")
        for _time in range(2):
            events, error = drained(sweep.clean(bpffs, None, False))
        assert error is None
        assert not (xdp / "xdpctl-88-88").exists(), place
        told = [event.what for event in events if event.what.startswith("passed by")]
        assert len(told) <= int(os.path.lexists(stray)), (place, events)
        assert all(event.what.startswith("passed by") for event in events), (place, events)
        if make is directory and place != "{home}" and place != "dispatch-1-40":
            assert told, place
