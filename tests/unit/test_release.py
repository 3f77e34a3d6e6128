"""The version has one source, and a release is looked into before it is tagged."""

from __future__ import annotations

import importlib.util
import re
import tomllib
from types import ModuleType

import pytest
from click.testing import CliRunner

import xdpctl
from tests.unit.samples import ROOT
from xdpctl.cli.group import cli


@pytest.fixture(scope="module")
def release() -> ModuleType:
    loader = importlib.machinery.SourceFileLoader("release", str(ROOT / "tests/release"))
    spec = importlib.util.spec_from_loader("release", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


CHANGES = """# Change log

## Unreleased

- later

## 1.2.3 (2026-11-30)

- a change

## 1.2 (2026-11-01)
"""
TRACKED = ["README.md", "xdpctl/__init__.py", "xdpctl/cli/load.py", "xdpctl/py.typed"]


def archives(release: ModuleType) -> tuple[list[str], list[str]]:
    """The names in a source archive and a wheel of version 1.2.3 with nothing wrong."""
    source = [f"xdpctl-1.2.3/{name}" for name in [*TRACKED, "PKG-INFO"]]
    wheel = [
        *TRACKED[1:],
        *(f"xdpctl/{name}" for name in release.BUILT),
        *(f"xdpctl-1.2.3.data/data/{name}" for name in release.shared()),
        "xdpctl-1.2.3.dist-info/METADATA",
    ]
    return source, wheel


def test_the_version_stands_in_one_place(release: ModuleType) -> None:
    source = (ROOT / "xdpctl/__init__.py").read_text(encoding="utf-8")
    assert release.version_in(source) == xdpctl.__version__
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert "version" not in project["project"]
    assert project["tool"]["hatch"]["version"]["path"] == "xdpctl/__init__.py"


def test_no_other_file_says_the_version() -> None:
    places = (
        "*.md",
        "*.toml",
        "docs/*.*",
        "man/*.*",
        "completion/*",
        "systemd/*",
        "xdpctl/**/*.py",
    )
    said = {
        str(path.relative_to(ROOT))
        for place in places
        for path in ROOT.glob(place)
        if xdpctl.__version__ in path.read_text(encoding="utf-8")
    }
    # The page shows what the command said when it was written.
    assert said <= {"xdpctl/__init__.py", "CHANGELOG.md", "docs/first-day.md"}


def test_the_command_and_the_metadata_say_the_same_version() -> None:
    said = CliRunner().invoke(cli, ["--version"]).output
    assert said == f"xdpctl {xdpctl.__version__}\n"
    try:
        installed = importlib.metadata.version("xdpctl")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("missing: xdpctl, installed")
    assert installed == xdpctl.__version__, "install it again: tests/setup demo"


def test_the_change_log_begins_with_what_is_not_released_and_goes_back() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    first, *versions = re.findall(r"^## (.+)$", text, flags=re.MULTILINE)
    assert first == "Unreleased"
    numbers = []
    for heading in versions:
        found = re.fullmatch(r"(\d+)\.(\d+)\.(\d+) \(\d{4}-\d\d-\d\d\)", heading)
        assert found, heading
        numbers.append(tuple(map(int, found.groups())))
    assert numbers == sorted(numbers, reverse=True)
    # The next one is not begun before the last one has its section.
    assert xdpctl.__version__ in [".".join(map(str, one)) for one in numbers]


@pytest.mark.parametrize(
    ("version", "notes"), [("1.2.3", "- a change"), ("1.2", ""), ("1.2.4", ""), ("1", "")]
)
def test_a_version_has_notes_or_not(release: ModuleType, version: str, notes: str) -> None:
    assert release.notes_for(version, CHANGES) == notes


def test_what_a_release_has_to_contain(release: ModuleType) -> None:
    source, wheel = archives(release)
    assert release.complaints("1.2.3", TRACKED, source, wheel) == []


def test_what_is_missing_in_a_release_is_named(release: ModuleType) -> None:
    source, wheel = archives(release)
    for name in TRACKED:
        rest = [one for one in source if not one.endswith(f"/{name}")]
        assert release.complaints("1.2.3", TRACKED, rest, wheel) == [
            f"the source archive lacks {name}"
        ]
    for name in wheel[:-1]:
        rest = [one for one in wheel if one != name]
        assert release.complaints("1.2.3", TRACKED, source, rest) == [f"the wheel lacks {name}"]


def test_what_does_not_belong_into_a_release_is_named(release: ModuleType) -> None:
    source, wheel = archives(release)
    more = [*source, "xdpctl-1.2.3/build/secret"]
    assert release.complaints("1.2.3", TRACKED, more, wheel) == [
        "the source archive has build/secret, which is not in the repository"
    ]
    assert release.complaints("1.2.3", TRACKED, source, [*wheel, "tests/unit/test_a.py"]) == [
        "the wheel has tests/unit/test_a.py"
    ]


def test_the_wheel_carries_a_dispatcher_for_each_protocol(release: ModuleType) -> None:
    from xdpctl.model.record import PROTOCOLS
    from xdpctl.roots.dispatcher import general

    objects = {name for name in release.BUILT if name.endswith(".o")}
    assert objects == {f"bpf/{general(one)}" for one in PROTOCOLS}
