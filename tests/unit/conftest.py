"""Fixtures for tests that need no kernel and no root."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """None of the machine's own settings, and a cache of the test's own; returns its path."""
    for name in ("LIBXDP_BPFFS", "LIBXDP_BPFFS_AUTOMOUNT", "COLUMNS", "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    path = tmp_path / "cache"
    monkeypatch.setenv("XDPCTL_CACHE", str(path))
    return path
