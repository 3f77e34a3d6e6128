"""The slots of a root as they are read, by the kind of root."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Container, Iterator
from dataclasses import replace

from ..bpffs import pin
from ..bpffs.directory import CALLED, InterfacePins
from ..bpffs.mount import Bpffs
from ..errors import KernelError
from ..kernel import libbpf, records
from ..kernel.btf import BTF_KIND_FUNC, Btf
from ..model.chain import Kind
from ..model.labels import Origin
from ..model.record import ENTRY, Config
from ..model.state import Slot
from ..value import Value
from .elsewhere import links_elsewhere
from .members import itself, member_of


class Seen(Value):
    """A root that is read, whose pins are in `home`; `links` gives all links of the kernel."""

    info: records.ProgInfo
    config: Config | None
    home: InterfacePins
    bpffs: Bpffs
    links: Callable[[], list[records.LinkInfo]]
    ours: bool

    def slots(self, kind: Kind) -> tuple[Slot, ...]:
        """Its slots, with what their users said of the programs."""
        labels = self.home.labels(self.info.id)
        return tuple(
            replace(slot, member=replace(slot.member, **vars(labels[slot.number])))
            if slot.member and slot.number in labels
            else slot
            for slot in _SLOTS[kind](self)
        )


def _bare(root: Seen) -> Iterator[Slot]:
    if root.ours:
        yield itself(root.info)


def _fused(root: Seen) -> Iterator[Slot]:
    """The record of a fused root names its programs."""
    config = root.config
    assert config is not None
    kept = root.home.kept_maps() if any(config.arrays) else {}
    for number, (program, array) in enumerate(zip(config.programs, config.arrays, strict=True)):
        path = root.home.program(root.info.id, number)
        member = None
        ours = root.home.beside_pin("map", program, CALLED) in kept
        if array and (ours or os.path.lexists(path)):
            array = 0  # xdpctl holds it, as it does a program whose code is in the root
        # A held member's program is there as long as its process: only its array keeps it. The
        # array itself is better not opened: whoever closes one that its process has just left
        # starts the kernel's emptying of it once more, which can leak it (seen on 6.18).
        with libbpf.absent_is_fine():
            member = member_of(config, number, program, array)
        yield Slot(
            number=number,
            function=f"prog{number}",
            function_btf_id=0,
            member=member,
            link_id=0,
            pin=path if member and not array and os.path.lexists(path) else None,
            array_id=array,
            lost=0 if member or array else program,
        )


def _ext(root: Seen) -> Iterator[Slot]:
    """Links hook programs onto the functions of a dispatcher."""
    config = root.config
    assert config is not None
    count = len(config.actions)
    with Btf.from_kernel(root.info.btf_id) as btf:
        functions = {
            name: btf.find(name, BTF_KIND_FUNC)
            for name in (ENTRY, *(f"prog{number}" for number in range(count)))
        }
    borrowed = root.home.borrowed(root.info.id)
    for number in range(count):
        path = root.home.link(root.info.id, number)
        pinned = pin.pinned_link(path)
        # A lone program may replace the entry; libxdp's pin calls it prog0 all the same.
        names = [f"prog{number}", *([ENTRY] if count == 1 else [])]
        wanted = {functions[name]: name for name in names}
        link = _hooked(root, wanted, pinned)
        function = wanted[link.function] if link else names[0]
        if link is None and pinned and not pinned.target:
            link = pinned  # a kernel that does not tell targets: the pin's path has to do
        origin = borrowed.get(number)
        ours = path if link and pinned and pinned.id == link.id else None
        yield Slot(
            number=number,
            function=function,
            function_btf_id=functions[f"prog{number}"],
            member=member_of(config, number, link.prog_id) if link else None,
            link_id=link.id if link else 0,
            pin=ours,
            origin=origin,
            orphan=bool(link and ours and origin and _orphaned(root, link, origin, ours)),
        )


def _hooked(
    root: Seen, functions: Container[int], pinned: records.LinkInfo | None
) -> records.LinkInfo | None:
    """The link onto a function: the pinned one if it is that, else wherever it is held."""

    def fits(link: records.LinkInfo) -> bool:
        return link.is_ext and link.target == root.info.id and link.function in functions

    if pinned and fits(pinned):
        return pinned
    if pinned and not pinned.target:
        return None
    return next(filter(fits, root.links()), None)


def _orphaned(root: Seen, link: records.LinkInfo, origin: Origin, ours: str) -> bool:
    """Whether nobody but our own pin holds a borrowed program any more."""
    try:
        with libbpf.owned(libbpf.link_fd(origin.link_id)) as fd:
            return libbpf.link_info(fd).prog_id != link.prog_id
    except KernelError as error:
        if error.errno != errno.ENOENT:
            raise
    held = any(other.id == link.id for _path, other in links_elsewhere(root.bpffs))
    # The owner may just have taken the link over, which ends with the removal of our pin.
    return not held and os.path.lexists(ours)


_SLOTS: dict[Kind, Callable[[Seen], Iterator[Slot]]] = {"bare": _bare, "ext": _ext, "fused": _fused}
