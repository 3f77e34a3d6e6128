"""tests/image finds Debian's mirrors by what they say of themselves, whatever runs here."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.unit.samples import ROOT

MAIN, SECURITY = "http://one.invalid/debian/", "http://two.invalid/security/"
STABLE = f"""Debian|Debian|main|{MAIN}
Debian|Debian|contrib|{MAIN}
Debian|Debian-Security|main|{SECURITY}
Debian|Debian Backports|main|http://three.invalid/
other|other|main|http://four.invalid/
||main|http://five.invalid/
"""
SID = f"Debian|Debian|main|{MAIN}\nDebian|Debian|main|{MAIN}\n"
KEYS = "[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]"


def image(tmp_path: Path, targets: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run tests/image with an apt-get that knows these targets."""
    apt = tmp_path / "apt-get"
    apt.write_text(f"#!/bin/sh\ncase $1 in indextargets) cat <<'END'\n{targets}END\nesac\n")
    apt.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    return subprocess.run(
        [ROOT / "tests/image", *words], capture_output=True, text=True, env=environment
    )


@pytest.mark.parametrize(
    ("targets", "mirrors"),
    [(STABLE, f"main {MAIN}\nsecurity {SECURITY}\n"), (SID, f"main {MAIN}\n")],
)
def test_mirrors(tmp_path: Path, targets: str, mirrors: str) -> None:
    assert image(tmp_path, targets, "mirrors").stdout == mirrors


def test_the_lines_of_suites(tmp_path: Path) -> None:
    suites = ("bookworm", "bookworm-security", "trixie-backports", "sid")
    lines = image(tmp_path, STABLE, "sources", *suites).stdout.splitlines()
    assert lines == [
        f"deb {KEYS} {SECURITY if 'security' in suite else MAIN} {suite} main" for suite in suites
    ]


def test_without_a_mirror_of_security_its_suites_are_left_out(tmp_path: Path) -> None:
    done = image(tmp_path, SID, "sources", "bookworm", "bookworm-security")
    assert done.stdout == f"deb {KEYS} {MAIN} bookworm main\n"


@pytest.mark.parametrize("targets", ["", "other|other|main|http://four.invalid/\n"])
def test_no_mirror_at_all(tmp_path: Path, targets: str) -> None:
    done = image(tmp_path, targets, "sources", "sid")
    assert done.returncode == 1
    assert "names no mirror of Debian" in done.stderr
    assert done.stdout == ""
