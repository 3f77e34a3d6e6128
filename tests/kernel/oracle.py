"""A second opinion on the kernel's BPF state, by raw bpf(2) calls.

Nothing here uses libbpf or xdpctl: a mistake of either must not hide from the tests. The
attributes are packed by hand after `union bpf_attr` in include/uapi/linux/bpf.h; lengths are in
bytes, times in nanoseconds. Wherever a function takes an object, a plain int is the object's id
and an `Fd` a descriptor of it.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import importlib.util
import os
import platform
import re
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self, TypeVar

from tests.kernel import net, rtnl

_T = TypeVar("_T")

SYS_BPF = {"x86_64": 321, "aarch64": 280}

MAP_CREATE, MAP_LOOKUP_ELEM, MAP_UPDATE_ELEM, MAP_DELETE_ELEM = 0, 1, 2, 3
PROG_LOAD, OBJ_PIN, OBJ_GET, PROG_TEST_RUN = 5, 6, 7, 10
PROG_GET_NEXT_ID, MAP_GET_NEXT_ID, PROG_GET_FD_BY_ID, MAP_GET_FD_BY_ID = 11, 12, 13, 14
OBJ_GET_INFO_BY_FD, BTF_LOAD, BTF_GET_FD_BY_ID, BTF_GET_NEXT_ID = 15, 18, 19, 23
LINK_CREATE, LINK_UPDATE, LINK_GET_FD_BY_ID, LINK_GET_NEXT_ID = 28, 29, 30, 31
ENABLE_STATS, LINK_DETACH = 32, 34

PROG_TYPE_XDP, PROG_TYPE_EXT = 6, 28
LINK_TYPE_TRACING, LINK_TYPE_XDP = 2, 6
ATTACH_XDP = 37  # BPF_XDP, as an expected_attach_type and for LINK_CREATE on an interface
F_REPLACE = 1 << 2
F_XDP_HAS_FRAGS, F_XDP_DEV_BOUND_ONLY = 1 << 5, 1 << 6
XDP_FLAGS_SKB_MODE, XDP_FLAGS_DRV_MODE = 1 << 1, 1 << 2
XDP_ABORTED, XDP_DROP, XDP_PASS, XDP_TX, XDP_REDIRECT = range(5)
MAP_TYPE_ARRAY, MAP_TYPE_PROG_ARRAY = 2, 3
F_TEST_XDP_LIVE_FRAMES = 1 << 1
_MNT_DETACH = 2
PERCPU_MAPS = {5, 6, 10, 21}  # PERCPU_HASH, PERCPU_ARRAY, LRU_PERCPU_HASH, PERCPU_CGROUP_STORAGE

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def mount(kind: str, path: Path, options: str) -> None:
    """mount(2) of a virtual file system; a process of mount(8) is dear in an emulated guest."""
    words = kind.encode(), os.fsencode(path), kind.encode(), ctypes.c_ulong(0), options.encode()
    # Each mount of a bpffs makes the kernel start modprobe for bpf_preload (kernel/bpf/inode.c),
    # which Debian does not have: a tenth of a second in a guest. "" starts nothing.
    guest = not lacks("own_machine")
    with net.sysctl("kernel/modprobe", "\n") if guest else contextlib.nullcontext():
        if _libc.mount(*words):
            raise OSError(ctypes.get_errno(), f"mount {path}")


def unmount(path: Path) -> None:
    """umount2(2), lazily."""
    if _libc.umount2(os.fsencode(path), _MNT_DETACH):
        raise OSError(ctypes.get_errno(), f"umount {path}")


def bpf(cmd: int, attr: bytes | ctypes.Array[ctypes.c_char], what: str = "") -> int:
    """bpf(cmd, attr, size): the result, or OSError. A given array receives what is written."""
    blob = attr if isinstance(attr, ctypes.Array) else ctypes.create_string_buffer(attr, len(attr))
    number = SYS_BPF[platform.machine()]
    result: int = _libc.syscall(
        ctypes.c_long(number), ctypes.c_long(cmd), blob, ctypes.c_ulong(len(blob))
    )
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"bpf({what or cmd}): {os.strerror(code)}")
    return result


class Fd(int):
    """An open descriptor; ends with `close()` or a with statement, never with os.close."""

    opened: ClassVar[set[int]] = set()

    def __new__(cls, number: int) -> Self:
        cls.opened.add(number)
        return super().__new__(cls, number)

    def close(self) -> None:
        if int(self) in Fd.opened:
            Fd.opened.remove(int(self))
            os.close(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()


def close_all() -> None:
    """Close every descriptor of the oracle's: a failed test must not look like a leak as well."""
    while Fd.opened:
        with contextlib.suppress(OSError):
            os.close(Fd.opened.pop())


def _address(buffer: ctypes.Array[ctypes.c_char]) -> int:
    return ctypes.addressof(buffer)


def _buffer(data: bytes) -> ctypes.Array[ctypes.c_char]:
    return ctypes.create_string_buffer(data, max(len(data), 1))


# Ids


def _ids(cmd: int) -> list[int]:
    found: list[int] = []
    last = 0
    while True:
        attr = _buffer(struct.pack("=III", last, 0, 0))
        try:
            bpf(cmd, attr, "GET_NEXT_ID")
        except OSError as e:
            if e.errno == errno.ENOENT:
                return found
            raise
        last = struct.unpack_from("=I", attr.raw, 4)[0]
        found.append(last)


def prog_ids() -> list[int]:
    """Ids of all programs, ascending."""
    return _ids(PROG_GET_NEXT_ID)


def link_ids() -> list[int]:
    """Ids of all links, ascending."""
    return _ids(LINK_GET_NEXT_ID)


def map_ids() -> list[int]:
    """Ids of all maps, ascending."""
    return _ids(MAP_GET_NEXT_ID)


def btf_ids() -> list[int]:
    """Ids of all BTF objects, those of the kernel and its modules among them."""
    return _ids(BTF_GET_NEXT_ID)


def _fd(cmd: int, ident: int, what: str) -> Fd:
    return Fd(bpf(cmd, struct.pack("=III", ident, 0, 0), what))


def prog_fd(ident: int) -> Fd:
    """A descriptor of the program with this id."""
    return _fd(PROG_GET_FD_BY_ID, ident, "PROG_GET_FD_BY_ID")


def link_fd(ident: int) -> Fd:
    """A descriptor of the link with this id; it keeps the link alive."""
    return _fd(LINK_GET_FD_BY_ID, ident, "LINK_GET_FD_BY_ID")


def map_fd(ident: int) -> Fd:
    """A descriptor of the map with this id."""
    return _fd(MAP_GET_FD_BY_ID, ident, "MAP_GET_FD_BY_ID")


def btf_fd(ident: int) -> Fd:
    """A descriptor of the BTF object with this id."""
    return _fd(BTF_GET_FD_BY_ID, ident, "BTF_GET_FD_BY_ID")


@contextlib.contextmanager
def _opened(cmd: int, obj: int, what: str) -> Iterator[Fd]:
    """A descriptor of `obj`: itself if it is one, else one made from the id and closed after."""
    if isinstance(obj, Fd):
        yield obj
    else:
        with _fd(cmd, obj, what) as fd:
            yield fd


# Information


@dataclass(frozen=True)
class ProgInfo:
    """One program. `xlated_len` in bytes (8 an instruction); run_* need `enable_stats`."""

    id: int
    type: int
    tag: str  # 16 hex digits
    name: str  # 15 characters at most
    load_time: int  # ns since boot
    map_ids: tuple[int, ...]
    btf_id: int
    xlated_len: int
    jited_len: int
    run_time_ns: int
    run_cnt: int
    uid: int


@dataclass(frozen=True)
class LinkInfo:
    """One link: `ifindex` for XDP links (0: the device is gone), the last three for tracing."""

    id: int
    type: int
    prog_id: int
    ifindex: int | None = None
    attach_type: int | None = None
    target_obj_id: int | None = None
    target_btf_id: int | None = None

    @property
    def is_ext(self) -> bool:
        """Whether it hooks an EXT program (fentry and fexit have other attach types)."""
        return self.type == LINK_TYPE_TRACING and self.attach_type == 0


@dataclass(frozen=True)
class MapInfo:
    """One map; sizes in bytes."""

    id: int
    type: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int
    name: str
    btf_id: int


def _info(fd: int, size: int, preset: bytes = b"") -> bytes:
    """OBJ_GET_INFO_BY_FD into `size` bytes, which begin as `preset`."""
    out = ctypes.create_string_buffer(preset, size)
    bpf(OBJ_GET_INFO_BY_FD, struct.pack("=IIQ", fd, size, _address(out)), "OBJ_GET_INFO_BY_FD")
    return out.raw


def _text(raw: bytes) -> str:
    return raw.split(b"\0", 1)[0].decode()


def prog(obj: int) -> ProgInfo:
    """What the kernel says about a program."""
    with _opened(PROG_GET_FD_BY_ID, obj, "PROG_GET_FD_BY_ID") as fd:
        first = _info(fd, 256)
        (count,) = struct.unpack_from("=I", first, 52)
        ids = (ctypes.c_uint32 * max(count, 1))()
        if count:
            # Only these two fields are read by the kernel: it then fills in the array.
            _info(fd, 256, bytes(52) + struct.pack("=IQ", count, ctypes.addressof(ids)))
    kind, ident = struct.unpack_from("=II", first, 0)
    jited, xlated = struct.unpack_from("=II", first, 16)
    load_time, uid = struct.unpack_from("=QI", first, 40)
    run_time, run_cnt = struct.unpack_from("=QQ", first, 192)
    return ProgInfo(
        id=ident,
        type=kind,
        tag=first[8:16].hex(),
        name=_text(first[64:80]),
        load_time=load_time,
        map_ids=tuple(ids[:count]),
        btf_id=struct.unpack_from("=I", first, 128)[0],
        xlated_len=xlated,
        jited_len=jited,
        run_time_ns=run_time,
        run_cnt=run_cnt,
        uid=uid,
    )


def link(obj: int) -> LinkInfo:
    """What the kernel says about a link."""
    with _opened(LINK_GET_FD_BY_ID, obj, "LINK_GET_FD_BY_ID") as fd:
        raw = _info(fd, 128)
    kind, ident, prog_id = struct.unpack_from("=III", raw, 0)
    if kind == LINK_TYPE_XDP:
        return LinkInfo(ident, kind, prog_id, ifindex=struct.unpack_from("=I", raw, 16)[0])
    if kind == LINK_TYPE_TRACING:
        return LinkInfo(ident, kind, prog_id, None, *struct.unpack_from("=III", raw, 16))
    return LinkInfo(ident, kind, prog_id)


def map(obj: int) -> MapInfo:  # named after prog() and link(); use it as oracle.map
    """What the kernel says about a map."""
    with _opened(MAP_GET_FD_BY_ID, obj, "MAP_GET_FD_BY_ID") as fd:
        raw = _info(fd, 128)
    kind, ident, key, value, entries, flags = struct.unpack_from("=6I", raw, 0)
    (btf_id,) = struct.unpack_from("=I", raw, 64)
    return MapInfo(ident, kind, key, value, entries, flags, _text(raw[24:40]), btf_id)


def links() -> list[LinkInfo]:
    """All links; one that is being made or goes away meanwhile is left out."""
    found = []
    for ident in link_ids():
        with contextlib.suppress(FileNotFoundError, BlockingIOError):
            found.append(link(ident))
    return found


def links_onto(prog_id: int) -> list[LinkInfo]:
    """The EXT links whose target is this program."""
    return [one for one in links() if one.is_ext and one.target_obj_id == prog_id]


def ext_chain(root_id: int) -> dict[int, int]:
    """{BTF id of the function that is replaced: id of the EXT program} of a root."""
    return {one.target_btf_id or 0: one.prog_id for one in links_onto(root_id)}


def fused_chain(root: ProgInfo) -> list[int]:
    """The ids of the programs that a fused root was made of, in the order in which they run.

    By its record: the last map of the program, a head of 16 bytes with the count at 6, then 20
    bytes a slot that begin with the program's id and end with a program array's. A slot with an
    array runs its program for as long as that is there.
    """
    record = map_lookup(root.map_ids[-1], bytes(4))
    (count,) = struct.unpack_from("=H", record, 6)
    found = []
    for slot in range(count):
        program, *_words, array = struct.unpack_from("=5I", record, 16 + 20 * slot)
        if array:
            # Kept by its array alone, which is better not opened: closing one that its process has
            # just left makes the kernel empty it once more.
            try:
                prog_fd(program).close()
            except FileNotFoundError:
                continue
        found.append(program)
    return found


def xdp_links(ifindex: int) -> list[LinkInfo]:
    """XDP links on an interface (of any network namespace: ifindexes repeat).

    On a machine that others use, those of the program that the interface runs.
    """
    found = [one for one in links() if one.type == LINK_TYPE_XDP and one.ifindex == ifindex]
    if found and lacks("own_machine"):
        running = xdp_prog_id(ifindex)[0]
        found = [one for one in found if one.prog_id == running]
    return found


def xdp_prog_id(ifindex: int) -> tuple[int, str]:
    """(program id, mode) on an interface of the current namespace, (0, "") with none.

    Modes: native, skb, hw.
    """
    number, attached = rtnl.xdp(ifindex)
    modes = {1: "native", 2: "skb", 3: "hw"}
    return (number, modes[attached]) if number else (0, "")


# Pins


def pin(obj: Fd, path: str | Path) -> None:
    """OBJ_PIN."""
    name = _buffer(os.fsencode(path) + b"\0")
    bpf(OBJ_PIN, struct.pack("=QII", _address(name), obj, 0), f"OBJ_PIN {path}")


def pin_get(path: str | Path) -> Fd:
    """OBJ_GET."""
    name = _buffer(os.fsencode(path) + b"\0")
    return Fd(bpf(OBJ_GET, struct.pack("=QII", _address(name), 0, 0), f"OBJ_GET {path}"))


def pinned_link(path: str | Path) -> LinkInfo:
    """The link behind a pin (a pin of another kind of object is read wrongly: know your pins)."""
    with pin_get(path) as fd:
        return link(fd)


def pinned_prog(path: str | Path) -> ProgInfo:
    """The program behind a pin."""
    with pin_get(path) as fd:
        return prog(fd)


def pinned_map(path: str | Path) -> MapInfo:
    """The map behind a pin."""
    with pin_get(path) as fd:
        return map(fd)


# Maps


@functools.cache
def possible_cpus() -> int:
    """How many values a per-CPU map hands out for one key."""
    last = Path("/sys/devices/system/cpu/possible").read_text().strip().split(",")[-1]
    return int(last.split("-")[-1]) + 1


def map_create(
    kind: int, key_size: int, value_size: int, max_entries: int, name: str = "", flags: int = 0
) -> Fd:
    """MAP_CREATE."""
    head = struct.pack("=7I", kind, key_size, value_size, max_entries, flags, 0, 0)
    return Fd(bpf(MAP_CREATE, head + name.encode()[:15].ljust(16, b"\0"), "MAP_CREATE"))


def _lookup(obj: int, key: bytes) -> tuple[MapInfo, bytes]:
    with _opened(MAP_GET_FD_BY_ID, obj, "MAP_GET_FD_BY_ID") as fd:
        info = map(fd)
        size = info.value_size
        if info.type in PERCPU_MAPS:
            size = (size + 7) // 8 * 8 * possible_cpus()
        k, value = _buffer(key), ctypes.create_string_buffer(max(size, 4))
        attr = struct.pack("=IIQQQ", fd, 0, _address(k), _address(value), 0)
        bpf(MAP_LOOKUP_ELEM, attr, "MAP_LOOKUP_ELEM")
    return info, value.raw[:size]


def map_lookup(obj: int, key: bytes) -> bytes:
    """The value of a key; of a per-CPU map all CPUs' values, each padded to 8 bytes."""
    return _lookup(obj, key)[1]


def map_lookup_sum(obj: int, key: bytes) -> int:
    """The value as a little number in host order, added up over the CPUs if there are several."""
    info, raw = _lookup(obj, key)
    stride = (info.value_size + 7) // 8 * 8 if info.type in PERCPU_MAPS else len(raw)
    return sum(
        int.from_bytes(raw[at : at + info.value_size], "little")
        for at in range(0, len(raw), stride)
    )


def array_counter(obj: int, index: int = 0) -> int:
    """Element `index` of an array of u64, the sum over the CPUs for a per-CPU array."""
    return map_lookup_sum(obj, struct.pack("=I", index))


def settle_counter(obj: int, expected: int, timeout: float = 20.0, index: int = 0) -> int:
    """`array_counter`, once it is `expected` or `timeout` is over: packets are on their way."""
    end = time.monotonic() + timeout
    while (seen := array_counter(obj, index)) != expected and time.monotonic() < end:
        time.sleep(0.01)
    return seen


def map_update(obj: int, key: bytes, value: bytes) -> None:
    """MAP_UPDATE_ELEM, whether the key exists or not."""
    k, v = _buffer(key), _buffer(value)
    with _opened(MAP_GET_FD_BY_ID, obj, "MAP_GET_FD_BY_ID") as fd:
        attr = struct.pack("=IIQQQ", fd, 0, _address(k), _address(v), 0)
        bpf(MAP_UPDATE_ELEM, attr, "MAP_UPDATE_ELEM")


def prog_map(prog_id: int, name: str = "packets") -> int:
    """The id of the program's map with this name."""
    return next(i for i in prog(prog_id).map_ids if map(i).name == name)


def packets(prog_id: int, index: int = 0) -> int:
    """What a program of tests/bpf has counted in its map "packets"."""
    return array_counter(prog_map(prog_id), index)


# Instructions and BTF, by hand


def insn(op: int, dst: int = 0, src: int = 0, off: int = 0, imm: int = 0) -> bytes:
    """One instruction of 8 bytes."""
    return struct.pack("=BBhi", op, src << 4 | dst, off, imm)


EXIT = insn(0x95)


def mov(dst: int, imm: int) -> bytes:
    """dst = imm, 64 bits."""
    return insn(0xB7, dst, imm=imm)


def returning(code: int) -> bytes:
    """A program that answers `code`."""
    return mov(0, code) + EXIT


def counting(fd: int, code: int = XDP_PASS) -> bytes:
    """A program that adds 1 to element 0 of an array map of u64 and answers `code`."""
    return b"".join(
        [
            insn(0x62, 10, off=-4),  # *(u32 *)(r10 - 4) = 0
            insn(0xBF, 2, 10),  # r2 = r10
            insn(0x07, 2, imm=-4),  # r2 += -4
            insn(0x18, 1, 1, imm=fd),  # r1 = map
            insn(0),
            insn(0x85, imm=1),  # call bpf_map_lookup_elem
            insn(0x15, 0, off=2),  # if r0 == 0 goto +2
            mov(1, 1),
            insn(0xDB, 0, 1),  # lock *(u64 *)(r0 + 0) += r1
            returning(code),
        ]
    )


# sizes of what follows the 12 bytes of a type, as (fixed, a member); kinds not named: (0, 0)
_BTF_TAIL = {
    1: (4, 0),
    3: (12, 0),
    4: (0, 12),
    5: (0, 12),
    6: (0, 8),
    13: (0, 8),
    14: (4, 0),
    15: (0, 12),
    17: (4, 0),
    19: (0, 12),
}
_KIND_FUNC = 12


def btf_raw(btf_id: int) -> bytes:
    """The BTF blob with this id."""
    with btf_fd(btf_id) as fd:
        (size,) = struct.unpack_from("=I", _info(fd, 32), 8)
        blob = ctypes.create_string_buffer(size)
        _info(fd, 32, struct.pack("=QI", _address(blob), size))
    return blob.raw


def parse_funcs(blob: bytes) -> dict[str, int]:
    """{function name: type id} of a BTF blob."""
    magic, _, _, header, type_off, type_len, str_off, _ = struct.unpack_from("=HBBIIIII", blob)
    if magic != 0xEB9F:
        raise ValueError(f"not BTF: magic {magic:#x}")
    at, end, strings = header + type_off, header + type_off + type_len, header + str_off
    found, ident = {}, 0
    while at < end:
        ident += 1
        name, info, _ = struct.unpack_from("=III", blob, at)
        kind, members = info >> 24 & 0x1F, info & 0xFFFF
        fixed, each = _BTF_TAIL.get(kind, (0, 0))
        at += 12 + fixed + each * members
        if kind == _KIND_FUNC:
            start = strings + name
            found[blob[start : blob.index(b"\0", start)].decode()] = ident
    return found


def btf_funcs(btf_id: int) -> dict[str, int]:
    """{function name: type id} of a BTF object."""
    return parse_funcs(btf_raw(btf_id))


def btf_func_id(prog_id: int, name: str) -> int:
    """The BTF id of a function of a loaded program; KeyError when it has no such function."""
    return btf_funcs(prog(prog_id).btf_id)[name]


def btf_build(funcs: Sequence[str]) -> bytes:
    """BTF with global functions `int NAME(struct xdp_md *ctx)`: ids from 5 on, in order."""
    strings, offsets = b"\0", {}
    for name in ("int", "xdp_md", "ctx", *funcs):
        offsets[name] = len(strings)
        strings += name.encode() + b"\0"
    types = struct.pack("=IIII", offsets["int"], 1 << 24, 4, 1 << 24 | 32)  # 1: a signed int
    types += struct.pack("=III", offsets["xdp_md"], 4 << 24, 24)  # 2: the context, members unsaid
    types += struct.pack("=III", 0, 2 << 24, 2)  # 3: a pointer to it
    types += struct.pack("=IIIII", 0, 13 << 24 | 1, 1, offsets["ctx"], 3)  # 4: the prototype
    for name in funcs:
        types += struct.pack("=III", offsets[name], _KIND_FUNC << 24 | 1, 4)
    head = struct.pack("=HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(strings))
    return head + types + strings


def btf_load(blob: bytes) -> Fd:
    """BTF_LOAD."""
    data, log = _buffer(blob), ctypes.create_string_buffer(1 << 16)
    attr = struct.pack("=QQIII", _address(data), _address(log), len(blob), len(log), 1)
    try:
        return Fd(bpf(BTF_LOAD, attr, "BTF_LOAD"))
    except OSError as e:
        raise OSError(e.errno, f"{e.strerror}\n{_text(log.raw)}") from None


# Programs and links


def prog_load_raw(
    kind: int,
    insns: bytes,
    *,
    name: str = "",
    expected_attach_type: int = 0,
    attach_prog_fd: int = 0,
    attach_btf_id: int = 0,
    prog_btf_fd: int = 0,
    func_info: Sequence[tuple[int, int]] = (),
    flags: int = 0,
    ifindex: int = 0,
) -> Fd:
    """PROG_LOAD, licence GPL; `func_info` is (instruction number, BTF id) for each function.

    The verifier's log is in the message of the OSError.
    """
    code, licence = _buffer(insns), _buffer(b"GPL\0")
    records = _buffer(b"".join(struct.pack("=II", *one) for one in func_info))

    def attempt(log: ctypes.Array[ctypes.c_char] | None) -> int:
        attr = struct.pack(
            "=IIQQIIQII16sIIIIQIIQIII",
            kind,
            len(insns) // 8,
            _address(code),
            _address(licence),
            1 if log else 0,
            len(log) if log else 0,
            _address(log) if log else 0,
            0,  # kern_version
            flags,
            name.encode()[:15],
            ifindex,
            expected_attach_type,
            prog_btf_fd,
            8 if func_info else 0,
            _address(records) if func_info else 0,
            len(func_info),
            0,  # line_info_rec_size
            0,  # line_info
            0,  # line_info_cnt
            attach_btf_id,
            attach_prog_fd,
        )
        return bpf(PROG_LOAD, attr, f"PROG_LOAD {name}")

    try:
        return Fd(attempt(None))
    except OSError as e:
        log = ctypes.create_string_buffer(1 << 18)
        with contextlib.suppress(OSError):
            return Fd(attempt(log))
        raise OSError(e.errno, f"{e.strerror}\n{_text(log.raw)}") from None


def xdp_load(
    insns: bytes, *, name: str = "raw", expected_attach_type: int = ATTACH_XDP, flags: int = 0
) -> Fd:
    """A plain XDP program without BTF."""
    return prog_load_raw(
        PROG_TYPE_XDP, insns, name=name, expected_attach_type=expected_attach_type, flags=flags
    )


def root_load(
    slots: int = 1,
    *,
    expected_attach_type: int = ATTACH_XDP,
    name: str = "raw_root",
    flags: int = 0,
    stub: int = 31,
    changes: bool = False,
) -> Fd:
    """A root by hand: slots `prog0` … in a row; goes on after a stub's answer or XDP_PASS.

    With `changes` a stub calls bpf_xdp_adjust_tail, so that what takes its place may change packets
    and make tail calls.
    """
    main = insn(0xBF, 6, 1)  # r6 = r1
    names = [name, *(f"prog{i}" for i in range(slots))]
    body = (mov(2, 0) + insn(0x85, imm=65) if changes else b"") + returning(stub)
    each = 4
    size = 1 + each * slots + 2  # instructions of the main function
    records = [(0, 5)]
    for i in range(slots):
        at = 1 + each * i
        start = size + len(body) // 8 * i
        main += insn(0xBF, 1, 6)  # r1 = r6
        main += insn(0x85, 0, 1, imm=start - (at + 2))  # call prog<i>
        main += insn(0x15, 0, off=1, imm=stub)  # if r0 == stub goto +1, the next slot
        main += insn(0x55, 0, off=size - 1 - (at + 4), imm=XDP_PASS)  # if r0 != PASS goto exit
        records.append((start, 6 + i))
    main += returning(XDP_PASS)
    with btf_load(btf_build(names)) as btf:
        return prog_load_raw(
            PROG_TYPE_XDP,
            main + body * slots,
            name=name,
            expected_attach_type=expected_attach_type,
            prog_btf_fd=btf,
            func_info=records,
            flags=flags,
        )


def ext_load(insns: bytes, root: int, func: str, *, name: str = "raw_ext") -> Fd:
    """An EXT program for function `func` of a root, with the root's own BTF as its BTF."""
    with _opened(PROG_GET_FD_BY_ID, root, "PROG_GET_FD_BY_ID") as fd:
        info = prog(fd)
        func_id = btf_func_id(info.id, func)
        with btf_fd(info.btf_id) as btf:
            return prog_load_raw(
                PROG_TYPE_EXT,
                insns,
                name=name,
                attach_prog_fd=fd,
                attach_btf_id=func_id,
                prog_btf_fd=btf,
                func_info=[(0, func_id)],
            )


def link_create(
    program: int, target: int, attach_type: int = 0, flags: int = 0, target_btf_id: int = 0
) -> Fd:
    """LINK_CREATE; `program` a descriptor, `target` a descriptor (EXT) or an ifindex (XDP)."""
    attr = struct.pack("=5I", program, target, attach_type, flags, target_btf_id)
    # The bytes after it are zero to the kernel: XDP links want nothing there.
    return Fd(bpf(LINK_CREATE, attr, "LINK_CREATE"))


def xdp_attach(program: int, ifindex: int, flags: int = 0) -> Fd:
    """An XDP link on an interface; flags XDP_FLAGS_*_MODE."""
    return link_create(program, ifindex, ATTACH_XDP, flags)


def is_bound(obj: int, other: int) -> bool:
    """Whether a program is bound to its device: what is goes onto no `other` one (an ifindex).

    The kernel tells it in no other way. Of EXT programs the root counts: one that is bound goes
    onto none that is not.
    """
    with _opened(PROG_GET_FD_BY_ID, obj, "PROG_GET_FD_BY_ID") as fd:
        try:
            if prog(fd).type != PROG_TYPE_EXT:
                xdp_attach(fd, other, XDP_FLAGS_DRV_MODE).close()
                return False
            with root_load(changes=True) as root:
                func_id = btf_func_id(prog(root).id, "prog0")
                link_create(fd, root, target_btf_id=func_id).close()
        except OSError as e:
            if e.errno != errno.EINVAL:
                raise
            return True
    return False


def link_update(link_obj: int, new: int, old: int | None = None) -> None:
    """LINK_UPDATE by descriptors, with BPF_F_REPLACE when `old` is named."""
    flags = 0 if old is None else F_REPLACE
    bpf(LINK_UPDATE, struct.pack("=4I", link_obj, new, flags, old or 0), "LINK_UPDATE")


def link_detach(link_obj: int) -> None:
    """LINK_DETACH by descriptor."""
    bpf(LINK_DETACH, struct.pack("=I", link_obj), "LINK_DETACH")


def enable_stats() -> Fd:
    """Count runs and run times of programs while the descriptor is open."""
    return Fd(bpf(ENABLE_STATS, struct.pack("=I", 0), "ENABLE_STATS"))


def run(program: int, packet: bytes, repeat: int = 1) -> tuple[int, bytes]:
    """PROG_TEST_RUN: (return code as u32, the packet after it)."""
    data, out = _buffer(packet), ctypes.create_string_buffer(len(packet) + 256)
    with _opened(PROG_GET_FD_BY_ID, program, "PROG_GET_FD_BY_ID") as fd:
        head = (fd, 0, len(packet), len(out), _address(data), _address(out), repeat, 0)
        attr = _buffer(struct.pack("=IIIIQQII", *head))
        bpf(PROG_TEST_RUN, attr, "PROG_TEST_RUN")
    retval, _, size = struct.unpack_from("=III", attr.raw, 4)
    return retval, out.raw[:size]


def run_in(program: int, packet: bytes, ifindex: int, repeat: int = 1, flags: int = 0) -> None:
    """The same as if come in on an interface (from v5.14 on)."""
    data, context = _buffer(packet), _buffer(struct.pack("=6I", 0, len(packet), 0, ifindex, 0, 0))
    with _opened(PROG_GET_FD_BY_ID, program, "PROG_GET_FD_BY_ID") as fd:
        head = (fd, 0, len(packet), 0, _address(data), 0, repeat, 0)
        tail = (24, 0, _address(context), 0, flags, 0, 0)
        attr = _buffer(struct.pack("=IIIIQQIIIIQQIII4x", *head, *tail))
        bpf(PROG_TEST_RUN, attr, "PROG_TEST_RUN")


def run_live(program: int, packet: bytes, ifindex: int, repeat: int) -> None:
    """The same with packets that go where the verdict sends them, as if come in on an interface.

    They are redirected 64 at a time, where single frames over a veth come alone. Linux kernel
    commit b530e9e1063e "bpf: Add "live packet" mode for XDP in BPF_PROG_RUN" (in v5.18).
    """
    run_in(program, packet, ifindex, repeat, F_TEST_XDP_LIVE_FRAMES)


# A foreign process's ways


@dataclass
class Held:
    """An EXT program and its unpinned link, kept alive by the descriptors in here alone."""

    prog: Fd
    link: Fd
    counter: Fd | None
    prog_id: int
    link_id: int
    map_id: int | None
    func_id: int

    def close(self) -> None:
        """Let go, as a process does that ends."""
        for fd in (self.link, self.prog, self.counter):
            if fd is not None:
                fd.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()


def hold_unpinned(
    root: int, func: str, *, count: bool = False, code: int = XDP_PASS, name: str = "foreign"
) -> Held:
    """Load an EXT program that answers `code` onto a root's function and hold it unpinned.

    With `count` it counts its packets in element 0 of an array map (`Held.map_id`).
    """
    counter = map_create(MAP_TYPE_ARRAY, 4, 8, 1, "packets") if count else None
    code_bytes = returning(code) if counter is None else counting(counter, code)
    program = ext_load(code_bytes, root, func, name=name)
    with _opened(PROG_GET_FD_BY_ID, root, "PROG_GET_FD_BY_ID") as fd:
        func_id = btf_func_id(prog(fd).id, func)
        held = link_create(program, fd, target_btf_id=func_id)
    return Held(
        program,
        held,
        counter,
        prog(program).id,
        link(held).id,
        None if counter is None else map(counter).id,
        func_id,
    )


# What is there, and what is left over


@dataclass(frozen=True)
class Snapshot:
    """Ids of all programs, links and maps, and all paths below the bpffs mounts looked at.

    On a machine that others use, not of all but of those that are found from here.
    """

    progs: frozenset[int]
    links: frozenset[int]
    maps: frozenset[int]
    pins: frozenset[str]
    mounts: tuple[str, ...] = field(default=(), compare=False)

    def added(self, before: Snapshot) -> bool:
        """Whether anything is here that was not there before."""
        return bool(
            self.progs - before.progs
            or self.links - before.links
            or self.maps - before.maps
            or self.pins - before.pins
        )

    def diff(self, other: Snapshot) -> str:
        """What turned this snapshot into `other`, a line each; what is alive is described."""
        lines = [f"+ {_describe('prog', i)}" for i in sorted(other.progs - self.progs)]
        lines += [f"+ {_describe('link', i)}" for i in sorted(other.links - self.links)]
        lines += [f"+ {_describe('map', i)}" for i in sorted(other.maps - self.maps)]
        lines += [f"+ pin {path}" for path in sorted(other.pins - self.pins)]
        lines += [f"- prog {i}" for i in sorted(self.progs - other.progs)]
        lines += [f"- link {i}" for i in sorted(self.links - other.links)]
        lines += [f"- map {i}" for i in sorted(self.maps - other.maps)]
        lines += [f"- pin {path}" for path in sorted(self.pins - other.pins)]
        return "\n".join(lines)


def _describe(kind: str, ident: int) -> str:
    try:
        if kind == "prog":
            return f"prog {ident} {prog(ident)}"
        return f"{kind} {ident} {link(ident) if kind == 'link' else map(ident)}"
    except OSError:
        return f"{kind} {ident} (gone since)"


def snapshot(*mounts: str | Path) -> Snapshot:
    """The state now; `mounts` are the bpffs mounts to walk, /sys/fs/bpf when none is named.

    libxdp's lock directory, which the first command makes and which stays, is not counted.
    """
    tops = tuple(str(one) for one in mounts) or ("/sys/fs/bpf",)
    pins = {
        os.path.join(top, name)
        for mount in tops
        for top, directories, files in os.walk(mount)
        for name in (*directories, *files)
    }.difference(os.path.join(mount, "xdp") for mount in tops)
    if lacks("own_machine"):
        progs, links, maps = _found_from_here(pins)
    else:
        progs, links, maps = set(prog_ids()), set(link_ids()), set(map_ids())
    return Snapshot(frozenset(progs), frozenset(links), frozenset(maps), frozenset(pins), tops)


def _found_from_here(pins: set[str]) -> tuple[set[int], set[int], set[int]]:
    """Programs, links and maps that processes, pins and interfaces of this session hold.

    Its processes are those of its mount namespace, its interfaces those of the network namespaces
    that one can name (tests/alone).
    """
    held: dict[str, set[int]] = {"prog": set(), "link": set(), "map": set()}

    def note(info: Path) -> None:
        for kind, number in re.findall(r"^(prog|link|map)_id:\s*(\d+)", info.read_text(), re.M):
            held[kind].add(int(number))

    mounts = os.readlink("/proc/self/ns/mnt")
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if os.readlink(process / "ns/mnt") == mounts:
                for one in (process / "fdinfo").iterdir():
                    with contextlib.suppress(OSError):
                        note(one)
    for path in pins:
        with contextlib.suppress(OSError), pin_get(path) as fd:
            note(Path(f"/proc/self/fdinfo/{fd}"))
    named = Path("/run/netns").iterdir() if Path("/run/netns").exists() else ()
    for words in ([], *(["-n", one.name] for one in named)):
        out = subprocess.run(["ip", *words, "-j", "-d", "link", "show"], capture_output=True)
        held["prog"] |= {int(one) for one in re.findall(rb'"prog":\{"id":(\d+)', out.stdout)}
    for number in held["link"]:
        with contextlib.suppress(OSError):
            held["prog"].add(link(number).prog_id)
    for number in held["prog"]:
        with contextlib.suppress(OSError):
            held["map"].update(prog(number).map_ids)
    return held["prog"], held["link"], held["map"]


def count_btf(now: Snapshot) -> int:
    """How many BTF objects there are, or on a machine that others use, those of a snapshot."""
    if not lacks("own_machine"):
        return len(btf_ids())
    found = set()
    for number in now.progs:
        with contextlib.suppress(OSError):
            found.add(prog(number).btf_id)
    return len(found)


def settle(before: Snapshot, timeout: float = 30.0) -> Snapshot:
    """Poll until nothing is there that was not before, or `timeout` seconds are over.

    Returns the last state seen. The kernel frees links, programs and maps only after RCU grace
    periods and from work queues: so `before` may have had some that were on their way out.
    """
    end = time.monotonic() + timeout
    while True:
        now = snapshot(*before.mounts)
        if not now.added(before) or time.monotonic() > end:
            return now
        time.sleep(0.02)


def steady(look: Callable[[], _T], times: int = 6) -> _T:
    """What a look gives, once it has given the same so many times in a row."""
    last, same = look(), 1
    while same < times:
        time.sleep(0.05)
        now = look()
        last, same = now, same + 1 if now == last else 1
    return last


# Capabilities


def _probe_ext() -> None:
    with root_load() as root, hold_unpinned(root, "prog0"):
        pass


def _probe_shared_arrays() -> None:
    """Whether an EXT program may call through a program array that an XDP program calls through.

    Of the same attach type: newer kernels look at that, too.
    """
    array = map_create(MAP_TYPE_PROG_ARRAY, 4, 4, 1, "calls")
    with array, root_load(changes=True) as root:
        call = insn(0x18, 2, 1, imm=array) + insn(0) + mov(3, 0) + insn(0x85, imm=12)
        with xdp_load(call + returning(XDP_PASS), expected_attach_type=0):
            ext_load(call + returning(XDP_PASS), root, "prog0").close()


def _probe_link_target() -> None:
    # Linux kernel commit 441e8c66b23e "bpf: Return target info when a tracing bpf_link is queried"
    with root_load() as root, hold_unpinned(root, "prog0") as held:
        if link(held.link_id).target_obj_id != prog(root).id:
            raise OSError(errno.EOPNOTSUPP, "link info does not tell the target of an EXT link")


def _probe_frags() -> None:
    xdp_load(returning(XDP_PASS), flags=F_XDP_HAS_FRAGS).close()


def _probe_bound() -> None:
    subprocess.run(["ip", "link", "add", "xpv0", "type", "veth", "peer", "xpv1"], check=True)
    try:
        prog_load_raw(
            PROG_TYPE_XDP,
            returning(XDP_PASS),
            expected_attach_type=ATTACH_XDP,
            flags=F_XDP_DEV_BOUND_ONLY,
            ifindex=socket.if_nametoindex("xpv0"),
        ).close()
    finally:
        subprocess.run(["ip", "link", "del", "xpv0"], check=True)


def _probe_xdp_link() -> None:
    with xdp_load(returning(XDP_PASS)) as fd:
        xdp_attach(fd, socket.if_nametoindex("lo"), XDP_FLAGS_SKB_MODE).close()


def _probe_stats() -> None:
    enable_stats().close()


def _probe_bpf_loop() -> None:
    # Without a callback it is refused in any case; only an old kernel says why like this.
    try:
        xdp_load(insn(0x85, imm=181) + EXIT).close()
    except OSError as e:
        if "invalid func" in str(e) or "unknown func" in str(e):
            raise


def _probe_eight_frames() -> None:
    # Until Linux 6.18 at least, nine functions that call each other in a row are one too many.
    step = insn(0x85, src=1, imm=1) + EXIT
    try:
        xdp_load(step * 8 + returning(XDP_PASS)).close()
    except OSError:
        return
    raise OSError(errno.ERANGE, "nine functions may call each other in a row")


def _probe_live_frames() -> None:
    with xdp_load(returning(XDP_PASS)) as fd:
        run_live(prog(fd).id, bytes(64), socket.if_nametoindex("lo"), 1)


def _probe_veth() -> None:
    subprocess.run(["ip", "link", "add", "xpv0", "type", "veth", "peer", "xpv1"], check=True)
    subprocess.run(["ip", "link", "del", "xpv0"], check=True)


def _probe_all_namespaces() -> None:
    # A namespace is found by its processes, and only the first pid namespace shows all of them.
    if os.stat("/proc/self/ns/pid").st_ino != 0xEFFFFFFC:
        raise OSError(errno.EPERM, "not in the initial pid namespace: some may be hidden")
    for process in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            os.stat(f"/proc/{process}/ns/net")


def _probe_atomics() -> None:
    # Linux kernel commit 5ca419f2864a "bpf: Add BPF_FETCH field / create atomic_fetch_add".
    start = insn(0xB7, dst=1) + insn(0x7B, dst=10, src=1, off=-8)
    fetch_add = insn(0xDB, dst=10, src=1, off=-8, imm=1)
    xdp_load(start + fetch_add + returning(XDP_PASS)).close()


def _probe_context() -> None:
    with xdp_load(returning(XDP_PASS)) as fd:
        run_in(prog(fd).id, bytes(64), socket.if_nametoindex("lo"))


def _probe_bcc() -> None:
    """What BCC needs; a trial of it takes a quarter of a minute in a guest."""
    headers = os.environ.get("BCC_KERNEL_SOURCE") or f"/lib/modules/{platform.release()}/build"
    if not importlib.util.find_spec("bcc"):
        raise OSError(errno.ENOENT, "python3-bpfcc is not installed")
    if not os.path.exists(f"{headers}/include/generated"):
        raise OSError(errno.ENOENT, f"no headers in {headers}")


def _probe_device(kind: str) -> None:
    """Whether a device of a kind can be made, on top of a veth if it is one that stands on another.

    The kernel loads the module that it is in, if there is one.
    """
    made = (
        f"link add link xpv0 name xpu0 type {kind}"
        if kind in STACKED
        else f"link add xpu0 type {kind}"
    )
    subprocess.run(["ip", "link", "add", "xpv0", "type", "veth", "peer", "xpv1"], check=True)
    try:
        done = subprocess.run(["ip", *made.split()], capture_output=True, text=True)
        if done.returncode:
            raise OSError(errno.EOPNOTSUPP, done.stderr.strip())
        subprocess.run(["ip", "link", "del", "xpu0"], check=True)
    finally:
        subprocess.run(["ip", "link", "del", "xpv0"], check=True)


def _probe_own_machine() -> None:
    if not Path("/run/xdpctl-vm").exists():
        raise OSError(errno.EBUSY, "not a guest of tests/vm: others use this kernel, too")


def _probe_no_guest() -> None:
    if Path("/run/xdpctl-vm").exists():
        raise OSError(errno.ETIME, "a guest of tests/vm, in which it takes too long")


STACKED = ("macvlan", "vlan id 5")
PROBES = {
    "all_namespaces": _probe_all_namespaces,
    "atomics": _probe_atomics,
    "bcc": _probe_bcc,
    "bond": lambda: _probe_device("bond"),
    "bound": _probe_bound,
    "bpf_loop": _probe_bpf_loop,
    "context": _probe_context,
    "eight_frames": _probe_eight_frames,
    "ext": _probe_ext,
    "frags": _probe_frags,
    "link_target": _probe_link_target,
    "live_frames": _probe_live_frames,
    "macvlan": lambda: _probe_device("macvlan"),
    "no_guest": _probe_no_guest,
    "own_machine": _probe_own_machine,
    "shared_arrays": _probe_shared_arrays,
    "stats": _probe_stats,
    "team": lambda: _probe_device("team"),
    "veth": _probe_veth,
    "vlan": lambda: _probe_device("vlan id 5"),
    "xdp_link": _probe_xdp_link,
}


@functools.cache
def lacks(capability: str) -> str:
    """Why this kernel, or this user, cannot do `capability`; "" when it can."""
    try:
        PROBES[capability]()
    except (OSError, subprocess.CalledProcessError) as e:
        return str(e).split("\n", 1)[0]
    return ""
