"""xdpctl.metrics and view.metrics: what is told, in which words, and counters that go on."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.unit.samples import DROP, INTERFACE, needs_root, running, state_of
from xdpctl import __version__
from xdpctl.bpffs.mount import Bpffs
from xdpctl.errors import VerifierError, XdpctlError
from xdpctl.host import hints
from xdpctl.host.interfaces import Failure, Interface
from xdpctl.metrics import looks, scrape
from xdpctl.metrics.carried import Carried
from xdpctl.metrics.families import SUFFIXES, Families, Family
from xdpctl.metrics.looks import Look
from xdpctl.metrics.scrape import Scrape
from xdpctl.model.terms import Pending
from xdpctl.roots.count_code import Counted
from xdpctl.traffic import monitor
from xdpctl.traffic.monitor import What
from xdpctl.view import metrics

COUNT, WALL = running("count", 11, actions=DROP), running("drop", 12, label="wall")
EVIL = 'a"b\\c\nd\x1b'


def counted(passed: int, *, ended: int = 0) -> Counted:
    """So many that were passed on, and past the end."""
    cells = ((0, 0, 0), (0, 0, 0), (0, passed, ended), *[(0, 0, 0)] * 3)
    return Counted(640, 2, cells, 100 * (passed + ended))


# --- the text -----------------------------------------------------------------------------------


def filled() -> list[Family]:
    """Every family, with samples of every kind of value."""
    families = Families()
    for family in vars(families).values():
        for value in (0, 7, 1795918534.25, 1e-07, 1 << 63):
            labels = [f"{EVIL}{value}{label}" for label in family.labels]
            family.samples[:] = family.samples if family.labels else []
            values: dict[str, tuple[float, ...]] = {"info": (1,), "summary": (value, 3)}
            family.add(labels, *values.get(family.kind, (value,)))
    return families.told()


def test_the_text_says_what_the_values_are() -> None:
    family = Family("xdpctl_x", "counter", "Help.", ("a", "b"), "bytes")
    family.add(["1", EVIL], 5)
    help_, unit = "# HELP xdpctl_x Help.\n# TYPE xdpctl_x counter\n", "# UNIT xdpctl_x bytes\n"
    sample = 'xdpctl_x_total{a="1",b="a\\"b\\\\c\\nd\x1b"} 5\n'
    assert metrics.text([family]) == f"{help_}{unit}{sample}# EOF\n"
    old = help_.replace("xdpctl_x ", "xdpctl_x_total ")
    assert metrics.text([family], openmetrics=False) == old + sample


def test_the_library_reads_what_is_written() -> None:
    parser = pytest.importorskip(
        "prometheus_client.openmetrics.parser", reason="missing: prometheus_client"
    )
    found = {one.name: one for one in parser.text_string_to_metric_families(metrics.text(filled()))}
    told = {family.name: family for family in filled()}
    assert found.keys() == told.keys()
    for name, one in found.items():
        family = told[name]
        assert (one.type, one.unit, one.documentation) == (family.kind, family.unit, family.help)
        wanted = [
            (name + suffix, dict(zip(family.labels, labels, strict=True)), value)
            for labels, values in family.samples
            for suffix, value in zip(SUFFIXES[family.kind], values, strict=True)
        ]
        assert [(each.name, each.labels, each.value) for each in one.samples] == wanted


def test_the_older_text_is_read_as_well() -> None:
    parser = pytest.importorskip("prometheus_client.parser", reason="missing: prometheus_client")
    text = metrics.text(filled(), openmetrics=False)
    found = [*parser.text_string_to_metric_families(text)]
    assert len(found) == len(filled())
    kinds = {"counter": "counter", "gauge": "gauge", "info": "gauge", "summary": "summary"}
    assert [one.type for one in found] == [kinds[family.kind] for family in filled()]
    assert sum(len(one.samples) for one in found) == text.count("\n") - 2 * len(found)


def test_names_are_as_prometheus_wants_them() -> None:
    families: list[Family] = [*vars(Families()).values()]
    assert len({family.name for family in families}) == len(families)
    for family in families:
        assert family.name.startswith("xdpctl_")
        assert family.help.endswith(".")
        # The library adds these itself; what is counted in a unit is called so.
        assert not family.name.endswith(("_total", "_info", "_count", "_sum"))
        assert family.name.endswith(f"_{family.unit}") or not family.unit
        assert (family.kind == "counter") <= bool(family.unit)


# --- counters that go on ------------------------------------------------------------------------


def packets(carried: Carried, *seen: tuple[int, str, int]) -> dict[str, int]:
    found = carried.totals((number, name, counted(passed)) for number, name, passed in seen)
    return {name: one.packets for name, one in found.items()}


def test_a_program_that_is_replaced_goes_on() -> None:
    carried = Carried()
    assert packets(carried, (11, "count", 5), (12, "wall", 3)) == {"count": 5, "wall": 3}
    assert packets(carried, (11, "count", 9), (12, "wall", 3)) == {"count": 9, "wall": 3}
    carried = Carried(json.loads(json.dumps(carried.data)))
    assert packets(carried, (13, "count", 0), (12, "wall", 4)) == {"count": 9, "wall": 4}
    assert packets(carried, (13, "count", 2), (12, "wall", 4)) == {"count": 11, "wall": 4}
    # It comes back, with a row that began anew.
    assert packets(carried, (11, "count", 1)) == {"count": 12}
    assert packets(carried, (11, "count", 1), (14, "wall", 1)) == {"count": 12, "wall": 5}


def test_counts_that_began_anew_are_added() -> None:
    carried = Carried()
    packets(carried, (11, "count", 50))
    assert packets(carried) == {}
    assert packets(carried, (11, "count", 4)) == {"count": 54}
    assert packets(carried, (11, "count", 3)) == {"count": 57}


def test_two_of_one_name_are_added_up() -> None:
    carried = Carried()
    assert packets(carried, (11, "pass", 5), (12, "pass", 6)) == {"pass": 11}
    assert packets(carried, (12, "pass", 8)) == {"pass": 13}


def test_what_was_counted_under_another_name_stays_there() -> None:
    carried = Carried()
    packets(carried, (11, "count", 5))
    assert packets(carried, (11, "wall", 7)) == {"wall": 2}
    assert packets(carried, (11, "count", 8)) == {"count": 6}
    assert packets(carried, (11, "wall", 8), (12, "count", 1)) == {"wall": 2, "count": 7}


def test_the_end_of_the_chain_is_of_all_that_there_were() -> None:
    carried = Carried()
    carried.totals([(11, "count", counted(0, ended=5))])
    carried.totals([(12, "other", counted(9, ended=1))])
    assert carried.at_end == 6


@pytest.mark.parametrize(
    "data",
    [
        None,
        7,
        [],
        {},
        {"past": 1, "last": {}},
        {"past": {"count": [1]}, "last": {}},
        {"past": {"count": ["1"] * 21}, "last": {}},
        {"past": {"count": [1 << 70] * 21}, "last": {}},
        {"past": {"count": [True] * 21}, "last": {}},
        {"past": {}, "last": {"x": ["count", [0] * 21]}},
        {"past": {}, "last": {"11": ["count"]}},
        {"past": {}, "last": {"11": [0, [0] * 21, 0]}},
    ],
)
def test_a_hint_that_is_none_counts_for_nothing(data: object) -> None:
    assert packets(Carried(data), (11, "count", 5)) == {"count": 5}


# --- what is told -------------------------------------------------------------------------------


Told = Callable[..., dict[str, Any]]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Told:
    """What is told of some looks: samples by name and labels."""
    monkeypatch.setenv("XDPCTL_RUN", str(tmp_path / "run"))

    def call(
        *found: Look | Failure,
        events: dict[What, int] | None = None,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> dict[str, Any]:
        def at(_looks: object, _interfaces: Iterable[Interface]) -> list[Look | Failure]:
            meanwhile()
            return [*found]

        monkeypatch.setattr(looks.Looks, "at", at)
        monkeypatch.setattr(scrape, "current", lambda: INTERFACE.netns)
        monkeypatch.setattr(Interface, "all", lambda: [INTERFACE])
        monkeypatch.setattr(monitor, "running", lambda: events)
        text = metrics.text(Scrape(Bpffs("/nowhere")).families().told())
        lines = [line for line in text.splitlines() if not line.startswith("#")]
        return {
            name: json.loads(value) for name, _, value in (one.rpartition(" ") for one in lines)
        }

    return call


ONE = '{interface="veth7"}'


def test_an_interface_that_runs_nothing(told: Told) -> None:
    assert told(Look(state_of(None))) == {
        f'xdpctl_build_info{{version="{__version__}"}}': 1,
        "xdpctl_scrape_success": 1,
        f"xdpctl_interface_readable{ONE}": 1,
        f"xdpctl_chain_programs{ONE}": 0,
        f"xdpctl_chain_vacant_slots{ONE}": 0,
        f"xdpctl_left_over_pins{ONE}": 0,
        f"xdpctl_chain_generation{ONE}": 0,
        f"xdpctl_change_unconfirmed{ONE}": 0,
        f"xdpctl_chain_counting{ONE}": 0,
        "xdpctl_monitor_running": 0,
    }


def test_a_chain(told: Told) -> None:
    state = state_of([COUNT, None, WALL], residue=("/left",))
    object.__setattr__(state, "pending", Pending(1, 0, 4711))
    counts = {11: counted(5), 12: counted(0, ended=5)}
    found = told(Look(state, 4, 1234.5, 1200, counts))
    program = 'interface="veth7",program='
    wall = f'interface="veth7",program="wall",slot="2",id="12",tag="{WALL.tag}",priority="50"'
    for name, value in {
        f"xdpctl_chain_programs{ONE}": 2,
        f"xdpctl_chain_vacant_slots{ONE}": 1,
        f"xdpctl_left_over_pins{ONE}": 1,
        f"xdpctl_chain_generation{ONE}": 4,
        f"xdpctl_change_unconfirmed{ONE}": 1,
        f"xdpctl_last_change_timestamp_seconds{ONE}": 1234.5,
        f"xdpctl_last_failure_timestamp_seconds{ONE}": 1200,
        f"xdpctl_chain_counting{ONE}": 1,
        f"xdpctl_chain_end_packets_total{ONE}": 5,
        f"xdpctl_program_info{{{wall}}}": 1,
        f'xdpctl_program_packets_total{{{program}"count",verdict="XDP_PASS"}}': 5,
        f'xdpctl_program_packets_total{{{program}"count",verdict="XDP_ABORTED"}}': 0,
        f'xdpctl_program_last_word_packets_total{{{program}"wall",verdict="XDP_PASS"}}': 0,
        f'xdpctl_program_bytes_total{{{program}"wall"}}': 500,
        f'xdpctl_program_run_time_seconds_sum{{{program}"wall"}}': 6.4e-07,
        f'xdpctl_program_run_time_seconds_count{{{program}"wall"}}': 2,
    }.items():
        assert found[name] == value, name
    assert not any('verdict="other"' in name for name in found)


def test_bytes_that_are_not_counted_are_not_told(told: Told) -> None:
    found = told(Look(state_of([COUNT]), 1, counts={11: replace(counted(5), total_bytes=0)}))
    assert not any("bytes" in name for name in found)


def test_an_interface_that_cannot_be_read_hides_no_other(told: Told) -> None:
    other = Interface("other", 8, "4711")
    found = told(Failure(other, XdpctlError("it broke")), Look(state_of(None)))
    assert found['xdpctl_interface_readable{interface="other"}'] == 0
    assert found[f"xdpctl_interface_readable{ONE}"] == 1
    assert sum('interface="other"' in name for name in found) == 1


def test_incidents_are_those_of_these_interfaces(
    told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = os.stat("/proc/thread-self/ns/net").st_ino
    one = What(monitor.EXCEPTION, INTERFACE.ifindex, here, 500, 0, 0, 0, 0)
    events = {
        one: 3,
        one._replace(program=501): 4,
        one._replace(netns=1): 100,
        one._replace(ifindex=99): 100,
        What(monitor.CPUMAP, 0, 0, 0, 0, 0, 5, 1): 2,
    }
    found = told(Look(state_of(None)), events=events)
    assert found["xdpctl_monitor_running"] == 1
    name = "xdpctl_incident_packets_total"
    assert {one: value for one, value in found.items() if one.startswith(name)} == {
        f'{name}{{interface="veth7",event="exception",reason="XDP_ABORTED"}}': 7,
        f'{name}{{interface="",event="cpumap_enqueue",reason="the CPU\'s queue is full"}}': 2,
    }


@needs_root
def test_the_hint_has_what_interfaces_that_are_there_counted(told: Told) -> None:
    hints.write("metrics-4711", {"8": {"past": {}, "last": {}}, "x": 1})
    told(Look(state_of([COUNT]), 1, counts={11: counted(5)}))
    found = hints.read("metrics-4711")
    assert found
    assert found.keys() == {"7"}
    state = state_of([running("count", 13)])
    again = told(Look(state, 2, counts={13: counted(1)}))
    name = 'xdpctl_program_packets_total{interface="veth7",program="count",verdict="XDP_PASS"}'
    assert again[name] == 6


@needs_root
def test_of_two_that_look_at_once_one_waits(told: Told, tmp_path: Path) -> None:
    """Else what the slower one has counted would seem to have begun anew."""
    locked: list[bool] = []

    def other() -> None:
        fd = os.open(tmp_path / "run", os.O_RDONLY)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            locked.append(False)
        except BlockingIOError:
            locked.append(True)
        finally:
            os.close(fd)

    told(Look(state_of([COUNT]), 1, counts={11: counted(5)}), meanwhile=other)
    assert locked == [True]


@needs_root
def test_a_failed_change_is_told(told: Told) -> None:
    from xdpctl.change import failures

    failures.note(INTERFACE, VerifierError("it was refused"))
    failures.note(Interface("other", 8, "other"), VerifierError("it was refused"))
    (when,) = failures.last(INTERFACE.netns, [INTERFACE.ifindex]).values()
    name = f"xdpctl_last_failure_timestamp_seconds{ONE}"
    assert told(Look(state_of(None), went_back=5))[name] == when
    assert told(Look(state_of(None), went_back=when + 5))[name] == when + 5
