"""Who else uses a map that a load found pinned: facts of the kernel, whoever pinned it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from ..bpffs.mount import Bpffs
from ..errors import KernelError
from ..host.interfaces import Interface
from ..kernel import libbpf, records
from ..model.record import FUSED
from ..model.source import ReusedMap, SharedMap
from .members import config_of
from .reading import View, observe


def sharers(bpffs: Bpffs, interface: Interface, reused: Sequence[ReusedMap]) -> Iterator[SharedMap]:
    """The programs of other interfaces that use these maps, as far as this namespace shows them.

    Raises KernelError, and what `observe` raises.
    """
    wanted = {one.map_id for one in reused}
    users = {info.id: info for info in _programs() if wanted.intersection(info.map_ids)}
    view = View()
    targets = {link.target for link in view.links if link.is_ext and link.prog_id in users}
    for other in Interface.all():
        root, _mode = view.programs.get(other.ifindex, (0, 0))
        if not root or other.ifindex == interface.ifindex:
            continue
        if root not in users and root not in targets and not _calls(root, users):
            continue
        for member in observe(other, bpffs, view=view).chain.members:
            for one in reused:
                if member.id in users and one.map_id in users[member.id].map_ids:
                    told = one.program, one.name, one.map_id, one.pin
                    yield SharedMap(*told, member.id, member.known_as, other.name)


def _programs() -> Iterator[records.ProgInfo]:
    for number in libbpf.prog_ids():
        with contextlib.suppress(KernelError), libbpf.owned(libbpf.prog_fd(number)) as fd:
            yield libbpf.prog_info(fd)


def _calls(root: int, users: dict[int, records.ProgInfo]) -> bool:
    """Whether a fused root has one of some programs, which it may call through an array."""
    with contextlib.suppress(KernelError), libbpf.owned(libbpf.prog_fd(root)) as fd:
        info = libbpf.prog_info(fd)
        config = config_of(info) if info.name == FUSED else None
        return config is not None and not users.keys().isdisjoint(config.programs)
    return False
