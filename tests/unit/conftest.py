"""Fixtures for tests that need no kernel and no root."""

from __future__ import annotations

import faulthandler
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """None of the machine's own settings, and a cache of the test's own; returns its path."""
    for name in (
        *("LIBXDP_BPFFS", "LIBXDP_BPFFS_AUTOMOUNT", "XDPCTL_ROOT"),
        *("COLUMNS", "NO_COLOR", "FORCE_COLOR"),
    ):
        monkeypatch.delenv(name, raising=False)
    path = tmp_path / "cache"
    monkeypatch.setenv("XDPCTL_CACHE", str(path))
    return path


@pytest.fixture
def nothing_is_left() -> Iterator[None]:
    """No descriptor and no child outlives a test."""
    before = sorted(os.listdir("/proc/self/fd"))
    yield
    assert sorted(os.listdir("/proc/self/fd")) == before
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
