"""Fixtures for tests that need no kernel and no root."""

from __future__ import annotations

import ctypes
import faulthandler
import functools
import itertools
import os
import subprocess
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pluggy
import pytest

if TYPE_CHECKING:
    from tests.registry import Liar


@functools.cache
def _has_clang() -> bool:
    command = ["clang", "-target", "bpf", "-x", "c", "-c", "-o", "-", "/dev/null"]
    try:
        return subprocess.run(command, capture_output=True).returncode == 0
    except OSError:
        return False


def _excused(report: pytest.TestReport) -> pytest.TestReport:
    """Without clang, a test that fails and names it is skipped."""
    if report.failed and "clang" in report.longreprtext and not _has_clang():
        report.outcome = "skipped"
        report.longrepr = (report.nodeid.partition("::")[0], 0, "Skipped: missing: clang")
    return report


def pytest_configure() -> None:
    try:
        ctypes.CDLL("libbpf.so.1")
    except OSError:
        pytest.exit("missing: libbpf.so.1, without which xdpctl does not run", returncode=5)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport() -> Generator[None, pluggy.Result[pytest.TestReport], None]:
    outcome = yield
    outcome.force_result(_excused(outcome.get_result()))


_numbers = itertools.count()


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """None of the machine's own settings, and a cache of the test's own; returns its path.

    Nothing is there yet: most tests need none, and a directory for each takes a while.
    """
    for name in (
        *("LIBXDP_BPFFS", "LIBXDP_BPFFS_AUTOMOUNT", "XDPCTL_ROOT"),
        *("COLUMNS", "NO_COLOR", "FORCE_COLOR"),
    ):
        monkeypatch.delenv(name, raising=False)
    path = tmp_path_factory.getbasetemp() / f"cache-{next(_numbers)}"
    monkeypatch.setenv("XDPCTL_CACHE", str(path))
    monkeypatch.setenv("XDPCTL_RUN", "/dev/null")
    return path


@pytest.fixture
def nothing_is_left() -> Iterator[None]:
    """No descriptor and no child outlives a test; a former test's may end with it."""
    before = set(os.listdir("/proc/self/fd"))
    yield
    assert set(os.listdir("/proc/self/fd")) <= before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


@pytest.fixture
def quiet_crashes() -> Iterator[None]:
    """Python's own report of a fatal signal is of no interest where one is wanted."""
    enabled = faulthandler.is_enabled()
    faulthandler.disable()
    yield
    if enabled:
        faulthandler.enable(sys.__stderr__ or 2)


@pytest.fixture
def liar(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Liar]:
    """A registry that says what it is told to, and nothing of this machine's own set-up."""
    monkeypatch.setenv("XDPCTL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("XDPCTL_REGISTRY_TIMEOUT", "60")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # nobody listens there
    for name in ("REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR", "DOCKER_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    # Not before pytest_configure has looked for libbpf.
    from tests.registry import Liar

    found = Liar()
    yield found
    found.close()
