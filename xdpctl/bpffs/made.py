"""What a load pins at paths of its user's choice, and how it is taken back."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Sequence

from ..errors import KernelError
from ..kernel import libbpf
from ..kernel.maps import Map
from ..kernel.program import Program
from ..model.labels import Made


def unmake(made: Sequence[Made], programs: Collection[int] = ()) -> None:
    """Remove the pins and directories of a load that did not come to its end, the last first.

    A map that a program has found there meanwhile stays; the load's own `programs` do not count.
    """
    used = _used_maps(programs) if made else set()
    for map_id, path in reversed(made):
        with contextlib.suppress(OSError):
            if map_id is None:
                os.rmdir(path)
                continue
            with Map.pinned(path) as pinned:
                found = pinned.info.id
            if found == map_id and found not in used:
                os.unlink(path)


def _used_maps(besides: Collection[int]) -> set[int]:
    used: set[int] = set()
    for number in set(libbpf.prog_ids()).difference(besides):
        with contextlib.suppress(KernelError), Program.by_id(number) as program:
            used.update(program.info.map_ids)
    return used
