"""A root's record of its chain, and its members, as the kernel has them."""

from __future__ import annotations

from ..errors import unless_short
from ..kernel import libbpf, maps, records, uapi
from ..kernel.btf import Btf
from ..kernel.maps import Map
from ..model.chain import DEFAULT_PRIORITY, Member
from ..model.record import ENTRY, FUSED, FUSED_RECORD, WIDE, Config
from ..model.state import Slot


def config_of(info: records.ProgInfo) -> Config | None:
    """A root's record of its chain; None for any other program."""
    if info.name == FUSED:
        from ..kernel.program import kept_record

        kept = kept_record(info, FUSED_RECORD)
        return Config.unpack_fused(kept) if kept is not None else None
    unpack = {ENTRY: Config.unpack, WIDE: Config.unpack_wide}.get(info.name)
    # Anybody may call a program so. Without BTF there are no functions that a link could replace.
    if unpack is None or len(info.map_ids) != 1 or not info.btf_id:
        return None
    with Map.by_id(info.map_ids[0]) as found:
        record = maps.record(found.fd, found.info, uapi.BPF_F_RDONLY_PROG)
    return unpack(record) if record is not None else None


def itself(root: records.ProgInfo) -> Slot:
    """What stands for the slot of a program that is the root itself."""
    member = Member(
        root.name,
        actions=0,
        id=root.id,
        tag=root.tag,
        size=root.size,
        load_time=root.load_time,
    )
    return Slot(0, root.name, 0, member, link_id=0, pin=None)


def member_of(config: Config, slot: int, program_id: int, array_id: int = 0) -> Member:
    with libbpf.owned(libbpf.prog_fd(program_id)) as fd:
        info = libbpf.prog_info(fd)
        return Member(
            name=_full_name(fd, info),
            priority=config.priorities[slot] if config.priorities else DEFAULT_PRIORITY,
            actions=config.actions[slot],
            frags=bool(config.flags[slot] & uapi.BPF_F_XDP_HAS_FRAGS),
            id=info.id,
            tag=info.tag,
            size=info.size,
            load_time=info.load_time,
            array_id=array_id,
            devbound=bool(config.flags[slot] & uapi.BPF_F_XDP_DEV_BOUND_ONLY),
        )


def _full_name(fd: int, info: records.ProgInfo) -> str:
    """A program's name as its author wrote it: the kernel keeps 15 characters, BTF all of them."""
    if len(info.name) == 15 and info.btf_id:
        with unless_short(), Btf.from_kernel(info.btf_id) as btf:
            function = libbpf.prog_main_function(fd)
            name = btf.name(function) if function else ""
            if name.startswith(info.name):
                return name
    return info.name
