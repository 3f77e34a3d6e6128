"""docs/platforms.md and README's table are written from docs/platforms.json, by runs."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.environments.rows import KERNEL_TESTS, ROWS
from tests.kernel import platforms
from tests.unit.docs.pages import read, script
from tests.unit.samples import ROOT


@pytest.fixture(scope="module")
def page() -> ModuleType:
    return script("docs/platforms.py")


@pytest.fixture(scope="module")
def data() -> dict[str, Any]:
    return dict(json.loads(read("docs/platforms.json")))


REPORT = """<testsuites><testsuite timestamp="2026-11-29T02:00:00">
<properties><property name="kernel" value="{kernel}"/><property name="machine" value="x86_64"/>
<property name="where" value="{where}"/><property name="system" value="{system}"/>
<property name="cards" value=""/></properties>
<testcase name="a"><properties><property name="feature" value="frags"/>
<property name="feature" value="link"/></properties></testcase>
<testcase name="b"><properties><property name="feature" value="frags"/></properties>
<skipped message="missing: frags"/></testcase>
<testcase name="c"><properties><property name="feature" value="trace"/></properties>
<skipped message="missing: ext"/></testcase>
<testcase name="d"><properties><property name="feature" value="monitor"/></properties>
<failure message="wrong"/></testcase><testcase name="e"/>
</testsuite></testsuites>"""


def reported(path: Path, kernel: str, where: str = "guest", system: str = "Debian 12") -> Path:
    path.write_text(REPORT.format(kernel=kernel, where=where, system=system))
    return path


def test_the_pages_are_written_from_the_data(page: ModuleType, data: dict[str, Any]) -> None:
    assert read("docs/platforms.md") == page.page(data), "run docs/platforms.py"
    assert read("README.md") == page.in_readme(read("README.md"), data), "run docs/platforms.py"


def test_each_feature_has_tests_that_show_it(page: ModuleType) -> None:
    assert list(page.FEATURES) == list(platforms.FEATURES)
    assert set(page.SHORT) <= set(page.FEATURES)
    for name, form in platforms.FEATURES.items():
        assert bool(form) != (name in platforms.NEEDED), name
        for file in re.findall(r"test_\w+", form)[:1]:
            assert (ROOT / f"tests/kernel/{file}.py").exists(), name


def test_a_report_becomes_a_platform(page: ModuleType, tmp_path: Path) -> None:
    path = reported(tmp_path / "6.12.xml", "6.12.117+deb12-amd64")
    name, found = page.report(path)
    assert name == "Debian 12, guest, 6.12, x86_64"
    assert found["date"] == "2026-11-29"
    told = {one: page.cell(found["features"].get(one)) for one in page.FEATURES}
    assert {one for one, said in told.items() if said == "yes"} == {"frags", "link"}
    assert told["trace"] == "no"
    assert told["monitor"] == "fails"
    assert told["EXT root"] == "not run"


def test_a_later_report_takes_the_place_of_an_earlier_one(page: ModuleType, tmp_path: Path) -> None:
    first = page.gathered({}, [reported(tmp_path / "1.xml", "6.12.1-amd64")])
    path = tmp_path / "2.xml"
    path.write_text(reported(path, "6.12.2-amd64").read_text().replace("frags", "netlink"))
    second = page.gathered(first, [path])
    (one,) = second["platforms"].values()
    assert one["kernel"] == "6.12.2-amd64"
    assert set(one["features"]) == {"link", "netlink", "monitor", "trace"}


CARD_REPORT = """<testsuites><testsuite timestamp="2026-11-29T02:00:00">
<properties><property name="kernel" value="6.12.117+deb12-amd64"/>
<property name="machine" value="x86_64"/><property name="where" value="guest"/>
<property name="system" value="Debian 12"/><property name="cards" value="virtio igb"/></properties>
<testcase name="a"><properties><property name="card" value="virtio: MTU: swap"/>
<property name="card" value="virtio: MTU: runs on"/></properties></testcase>
<testcase name="b"><properties><property name="feature" value="frags"/>
<property name="card" value="virtio: mode: native"/></properties></testcase>
</testsuite></testsuites>"""


def test_cards_are_no_platform(page: ModuleType, tmp_path: Path) -> None:
    """The guest with cards has a kernel that has a row already, of the tests without cards."""
    plain, path = reported(tmp_path / "6.12.xml", "6.12.117+deb12-amd64"), tmp_path / "cards.xml"
    path.write_text(CARD_REPORT)
    both = page.gathered({}, [plain, path])
    assert both["platforms"] == page.gathered({}, [plain])["platforms"]
    assert both["cards"]["virtio"]["seen"] == {"MTU": "swap", "mode": "native"}
    (row,) = [line for line in page.page(both).splitlines() if line.startswith("| virtio |")]
    assert "| native | not run |" in row
    path.write_text(CARD_REPORT.replace('name="b">', 'name="b"><failure message="wrong"/>'))
    assert page.gathered({}, [path])["cards"] == {}


def test_cards_tell_what_the_table_has(page: ModuleType) -> None:
    text = read("tests/kernel/test_drivers.py")
    told = re.findall(r'tell\([\w"]+, "([\w ]+)"', text) + re.findall(r'runs_on\("([^"]+)"\)', text)
    assert {*told, "rings", "queues"} == {*page.CARDS}


def test_platforms_with_the_same_features_share_a_row(page: ModuleType, tmp_path: Path) -> None:
    paths = [reported(tmp_path / f"{one}.xml", f"{one}.3-amd64") for one in ("6.12", "6.1", "7.3")]
    paths += [
        reported(tmp_path / f"{number}.xml", "6.18.4-x", "own", f"Debian {number}")
        for number in ("12", "13")
    ]
    rows = page.grouped(page.gathered({}, paths)["platforms"].values())
    assert [row[:2] for row in rows] == [
        ["Debian 12, x86_64", "6.1, 6.12, 7.3"],
        ["Debian 12, 13, x86_64", "own (6.18)"],
    ]


def test_a_report_of_something_else_is_no_platform(page: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "unit.xml"
    path.write_text('<testsuites><testsuite><testcase name="a"/></testsuite></testsuites>')
    assert page.gathered({}, [path]) == {"platforms": {}, "cards": {}, "versions": {}}


def test_the_bounds_are_the_oldest_versions_that_tests_ran_with(data: dict[str, Any]) -> None:
    project = tomllib.loads(read("pyproject.toml"))["project"]
    ran = [one["versions"] for one in data["versions"].values() if one["versions"]]

    def oldest(name: str) -> list[int]:
        return min([int(part) for part in one[name].split(".")] for one in ran)

    for bound in [*project["dependencies"], f"python{project['requires-python']}"]:
        name, _, version = bound.partition(">=")
        numbers = [int(part) for part in version.split(".")]
        assert oldest(name)[: len(numbers)] == numbers, bound


def test_no_environment_of_the_table_failed(data: dict[str, Any]) -> None:
    for name, one in data["versions"].items():
        assert not one["not_had"], name
        assert {step["result"] for step in one["steps"].values()} == {"passed"}, name


def test_the_environments_run_tests_that_are_there() -> None:
    assert [name for name in KERNEL_TESTS if not (ROOT / f"tests/kernel/{name}.py").exists()] == []
    assert len({row.name for row in ROWS}) == len(ROWS)
