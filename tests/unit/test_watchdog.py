"""xdpctl.change.watchdog: who waits for whom, with real processes on plain directories."""

from __future__ import annotations

import os
import select
import time
from pathlib import Path

import pytest

from tests.unit.samples import INTERFACE
from xdpctl.bpffs import homes
from xdpctl.bpffs.directory import InterfacePins
from xdpctl.bpffs.history import History
from xdpctl.bpffs.mount import Bpffs
from xdpctl.change.watchdog import Watchdog
from xdpctl.model.terms import Pending, now


@pytest.fixture
def paths(tmp_path: Path) -> InterfacePins:
    return homes.of(Bpffs(str(tmp_path)), INTERFACE)


@pytest.mark.usefixtures("nothing_is_left")
@pytest.mark.parametrize("recorded", [False, True])
def test_it_is_dismissed_under_the_lock(paths: InterfacePins, recorded: bool) -> None:
    """The command waits for it to end and keeps the lock, also where a record cannot be removed."""
    began = time.monotonic()
    with paths.locked():
        dog = Watchdog(paths.bpffs, INTERFACE, paths, lambda *_: False)
        confirm = History(paths).confirm
        if recorded:
            os.symlink(str(Pending(1, now() + 3600 * 10**9, dog.pid)), confirm)
        process = os.pidfd_open(dog.pid)
        dog.dismiss()
        assert select.select([process], [], [], 10)[0], "it goes on"
        os.close(process)
        if recorded:
            os.unlink(confirm)
    assert time.monotonic() - began < paths.bpffs.patience.seconds / 2
