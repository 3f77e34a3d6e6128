"""debian/: what is said twice, there and elsewhere, is the same."""

from __future__ import annotations

import re
import tomllib

import xdpctl
from tests.unit.docs.pages import TIMER, UNITS, read

PROJECT = tomllib.loads(read("pyproject.toml"))


def test_the_package_has_the_version() -> None:
    assert re.findall(r"^xdpctl \((.+?)\)", read("debian/changelog"), re.MULTILINE)[0] == (
        xdpctl.__version__
    )


def test_the_units_are_installed_where_they_are_looked_for() -> None:
    shared = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["shared-data"]
    for path in (*UNITS, TIMER):
        assert shared[path] == f"lib/{path.replace('systemd/', 'systemd/system/')}"
        name, _dot, kind = path.removeprefix("systemd/").rpartition(".")
        rules = read("debian/rules")
        assert f"--name={name}\n" in rules
        (moved,) = re.findall(r"^\tfor unit in (.*); do", rules, re.MULTILINE)
        assert f"{name.removeprefix('xdpctl-')}.{kind}" in moved.split()


def test_it_is_built_with_what_debian_has() -> None:
    """Debian 12 has hatchling 1.12."""
    assert PROJECT["build-system"]["requires"] == ["hatchling>=1.12"]


def test_each_override_of_lintian_has_a_reason() -> None:
    lines = read("debian/xdpctl.lintian-overrides").splitlines()
    for before, line in zip(["", *lines], lines, strict=False):
        if not line.startswith("#"):
            assert before.startswith("# "), line
