"""Loading a program of a user's object file: maps shared or new, EXT or of its own; and refusals.

libbpf can crash on a corrupt object, so it sees users' bytes only in a child process.
"""

from __future__ import annotations

import errno
import os
import re
from dataclasses import field, replace
from typing import Self

from ..errors import KernelError, UnsupportedError
from ..host.child import in_child
from ..host.text import Json
from ..kernel import abi, asm, elf, libbpf, uapi
from ..kernel.btf import BTF_KIND_FUNC, Btf
from ..kernel.maps import Map
from ..kernel.object import Object, ObjectMap, ObjectProgram
from ..kernel.program import LOG_SIZE, Program
from ..model.source import Image, Source
from ..supply import policy
from ..value import Value
from . import image, sharing, tails
from .binding import Device
from .refusal import ARRAY, CALLING, FILLING, explained
from .sharing import PINNED, SHARING, Names, share_maps, use_pins
from .tails import Arrays, Replaced
from .tuning import tune

MAY_BE_LEGACY = rb"maps(?<!\.maps)[\0/]"
"""The name of a section of legacy maps. Beside .maps it may share that text among the names of
sections, but then it is in BTF as well."""


class Loaded(Value):
    """A program in the kernel, attached nowhere yet, its image bound to it.

    `arrays` has the descriptors of its program arrays, by name; `maps` those of the maps that want
    to be pinned and have no pin yet, by path; `callees` those of the object's other programs that
    it puts into no array itself, by name. `empty` has the names of arrays that have nothing in them
    and are in use, each with the programs of the object that could go there. `replaced` is what
    loading has changed in arrays of others, each with the program that was there, if any.
    `pinned` has the maps that were pinned already: each one's name, id and path.
    """

    program: Program
    arrays: dict[str, Map]
    maps: dict[str, Map]
    callees: dict[str, Program] = field(default_factory=dict)
    empty: dict[str, list[str]] = field(default_factory=dict)
    replaced: list[tuple[Replaced, Program | None]] = field(default_factory=list)
    pinned: list[tuple[str, int, str]] = field(default_factory=list)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    @property
    def is_plain(self) -> bool:
        """Whether the program is all that there is to it, and all that loading it has changed."""
        beside = (self.arrays, self.maps, self.callees, self.empty, self.replaced, self.pinned)
        return not any(beside)

    def close(self) -> None:
        """Let all of it go; may be called again."""
        self.program.close()
        for named in (self.arrays, self.maps, self.callees):
            for one in named.values():
                one.close()
        for _place, before in self.replaced:
            if before is not None:
                before.close()

    def put_back(self) -> None:
        """Have arrays of others as they were before the load."""
        for one, before in self.replaced:
            tails.put_back(self.arrays[one.array].fd, one.place, before.fd if before else None)


def open_object(path: str, data: bytes, pin_path: str | None = None) -> Object:
    """In the child: have libbpf read an object. Raises KernelError."""
    if elf.is_swapped(data):
        # libbpf 1.6 opens it, to write it out again; it has no program that could run here.
        raise KernelError("bpf_object__open_mem", libbpf.LIBBPF_ERRNO__ENDIAN, "byte order")
    if re.search(MAY_BE_LEGACY, data):
        from . import legacy_maps

        data = legacy_maps.translated(data)
    # libbpf names internal maps after the object: the file's name up to its first dot.
    name = os.path.basename(path).split(".")[0]
    options = abi.ObjectOpenOpts(
        object_name=os.fsencode(name), pin_root_path=os.fsencode(pin_path) if pin_path else None
    )
    return Object.parsed(data, options)


def load(
    source: Source,
    frags: bool,
    target: tuple[int, str] | None = None,
    *,
    apart: bool = False,
    device: Device | None = None,
) -> Loaded:
    """Load a program as EXT for a function of a root; without a `target` as one of its own.

    For a `device` it is bound to that; on a card its maps are made there as well. An EXT program is
    bound to what its target is bound to, by the kernel.

    What loading itself would change in maps of others makes it fail if it is to stay `apart`: it
    puts callees into program arrays, which would be those in use.

    Raises VerifierError, UnsupportedError, RightsError, UntrustedError or BadObjectError.
    """
    check_vetted(source)
    if source.image:
        return _load_image(source, source.image, target, device)
    try:
        told = in_child(source.path, lambda: loaded(source, frags, target, apart, device))
    except KernelError as error:
        raise explained(source, error, target, device) from error
    return received(*told)


def check_vetted(source: Source) -> None:
    policy.check_vetted(f"{source.program} of {source.path}", source.vetted)


def loaded(
    source: Source, frags: bool, target: tuple[int, str] | None, apart: bool, device: Device | None
) -> tuple[Json, list[int]]:
    """In the child: a program in the one way or the other."""
    try:
        return _load(source, frags, target, apart=apart, device=device)
    except KernelError as error:
        if not target or error.call in (SHARING, PINNED, FILLING) or error.errno != errno.EINVAL:
            raise
        return _load(source, frags, target, error, apart=apart, device=device)


def received(answer: Json, handed: list[int]) -> Loaded:
    """What the child has loaded: its words, and its descriptors in the order of `_load`."""
    fds = iter(handed)
    program = Program(next(fds))
    arrays, maps = ({name: Map(next(fds)) for name in answer[kind]} for kind in ("arrays", "maps"))
    callees = {name: Program(next(fds)) for name in answer["callees"]}
    replaced = [Replaced(*one) for one in answer["replaced"]]
    before = [(one, Program(next(fds)) if one.program else None) for one in replaced]
    pinned = [(str(name), int(number), str(path)) for name, number, path in answer["pinned"]]
    return Loaded(program, arrays, maps, callees, answer["empty"], before, pinned)


def _load(
    source: Source,
    frags: bool,
    target: tuple[int, str] | None,
    fault: KernelError | None = None,
    *,
    apart: bool = False,
    device: Device | None = None,
) -> tuple[Json, list[int]]:
    """In the child: have libbpf load a program; its program arrays and maps, and descriptors.

    If a first way ended by a `fault`, the program may lack BTF, or have what does not fit the
    function that it is to replace, as older compilers write it. The kernel looks at that before the
    code. So it is verified by itself, and its image is loaded with BTF of ours.
    """
    parsed = open_object(source.named or source.path, source.data, source.pin_path)
    tuned = tune(parsed, source.tuning)
    attach_type = 0 if target else uapi.BPF_XDP
    log = libbpf.log_buffer(LOG_SIZE)
    arrays = Arrays(parsed)
    chosen = _choose(parsed, source, attach_type, callees=bool(arrays.found))
    as_ext = target is not None and not fault
    kind = uapi.BPF_PROG_TYPE_EXT if as_ext else uapi.BPF_PROG_TYPE_XDP
    chosen.set_type(kind)
    chosen.set_attach_type(attach_type)
    chosen.set_log(log)
    if target and as_ext:
        chosen.set_target(*target)
    if device and device.card:
        chosen.offload_to(device.ifindex)
        for found in parsed.maps:
            found.offload_to(device.ifindex)
    elif device and not as_ext:
        chosen.bind_to(device.ifindex)
    maps = _unpinned(parsed, source, fills=apart and bool(arrays.found))
    if source.maps_of:
        shared = share_maps(parsed, source, lambda: _by_reference(source, frags, device))
        maps = {
            path: found for path, found in maps.items() if source.replaces and found not in shared
        }
        wrong = [name for found, name in tuned.items() if found in shared]
        if wrong:
            why = "\n".join(f"{name} stays what it is in the map that is shared" for name in wrong)
            raise KernelError(SHARING, errno.EINVAL, why)
    pinned = use_pins(parsed)
    others = sharing.reused_arrays(parsed)
    arrays.look()
    try:
        parsed.load()
    except KernelError as error:
        if others and error.errno == errno.EINVAL and _loads_alone(source, frags, target, device):
            raise KernelError(ARRAY, errno.EPROTOTYPE, others) from error
        raise KernelError(
            "verifier" if log.value else error.call,
            error.errno or errno.EINVAL,
            log.value.decode(errors="replace") or error.log + sharing.without_entries(parsed),
        ) from error
    try:
        filled = arrays.fill(chosen, source.tuning.tails)
        code = image.capture(parsed, chosen, frags, source.recipe)
        fds = [_kept(source, chosen, code, target, fault, device)]
    except BaseException:
        arrays.put_back()
        raise
    for named in (arrays.found, maps, filled.kept):
        fds += [one.fd for one in named.values()]
    fds += arrays.holding(filled.replaced)
    answer: Json = {
        "arrays": list(arrays.found),
        "maps": list(maps),
        "callees": list(filled.kept),
        "empty": filled.empty,
        "replaced": filled.replaced,
        "pinned": pinned,
    }
    return answer, fds


def _kept(
    source: Source,
    chosen: ObjectProgram,
    code: Image | None,
    target: tuple[int, str] | None,
    fault: KernelError | None,
    device: Device | None,
) -> int:
    """In the child: the program's descriptor, with its image bound to it or loaded of that."""
    if target and fault:
        if code is None:
            raise fault
        return _load_anew(source.program, code, target).handed_over()
    if code and not (device and device.card):  # the image is for a root of another kind
        image.bound(code, Program(chosen.fd))
    return chosen.fd


def _choose(parsed: Object, source: Source, attach_type: int, *, callees: bool) -> ObjectProgram:
    """In the child: the program that is meant; of the others only `callees` are loaded."""
    chosen = ObjectProgram(0)
    named = {one.program for one in source.tuning.tails}
    for program in parsed.programs:
        if program.name == source.program:
            chosen = program
            # A section that starts with ? asks to be left out unless it is named.
            program.autoload(True)
        elif program.name in named:
            program.autoload(True)
            program.set_type(uapi.BPF_PROG_TYPE_XDP)
            program.set_attach_type(attach_type)
        elif callees and program.type == uapi.BPF_PROG_TYPE_XDP:
            # A callee of tail calls: the kernel wants the attach type of its caller.
            program.set_attach_type(attach_type)
        else:
            program.autoload(False)
    return chosen


def _unpinned(parsed: Object, source: Source, *, fills: bool) -> dict[str, ObjectMap]:
    """In the child: the maps that want to be pinned and have no pin yet, by path.

    libbpf shares what is pinned already; new pins are the transaction's to make. Raises KernelError
    if loading `fills` program arrays that are shared.
    """
    if source.pin_path is None:
        for found in parsed.maps:
            found.leave_unpinned()  # or libbpf would take its own default
    wanted = {path: found for found in parsed.maps if (path := found.pin_path)}
    maps = {path: found for path, found in wanted.items() if not os.path.lexists(path)}
    if fills and (source.maps_of or len(wanted) > len(maps)):
        raise KernelError(FILLING, errno.EINVAL)
    for found in maps.values():
        found.leave_unpinned()
    return maps


def _loads_alone(
    source: Source, frags: bool, target: tuple[int, str] | None, device: Device | None
) -> bool:
    """In the child: whether a program can be loaded with maps of its own."""
    alone = replace(source, maps_of=0, pin_path=None, maps=())
    try:
        _answer, fds = _load(alone, frags, target, device=device)
    except KernelError:
        return False
    for fd in fds:
        os.close(fd)
    return True


def _by_reference(source: Source, frags: bool, device: Device | None) -> Names:
    """In the child: the names of a running program's maps, by the order of their first use.

    That tells maps apart that are called alike as far as the kernel keeps their names, if the file
    has the code of the running program: it is loaded with maps of its own to see that.
    """
    alone = replace(source, maps_of=0, pin_path=None, maps=())
    _answer, fds = _load(alone, frags, None, device=device)
    ours = libbpf.prog_info(fds[0])
    code = image.of(ours)
    for fd in fds:
        os.close(fd)
    with Program.by_id(source.maps_of) as running:
        theirs = running.info
    if code is None or ours.tag != theirs.tag:
        return {}
    named = dict(code.names)
    pairs = zip(theirs.map_ids, ours.map_ids, strict=False)
    return {there: named[here] for there, here in pairs if here in named}


def _load_anew(name: str, code: Image, target: tuple[int, str]) -> Program:
    """Load a program's image as EXT for a function of a root."""
    try:
        return _load_ext(name, code, target)
    except KernelError as error:
        # Linux kernel commit 1c123c567fb1 "bpf: Resolve fext program type when checking map
        # compatibility" (in v6.2).
        if error.errno == errno.EINVAL and asm.makes_tail_calls(code.code):
            raise KernelError(CALLING, errno.EINVAL) from error
        raise


def _load_ext(name: str, code: Image, target: tuple[int, str]) -> Program:
    root_fd, function = target
    with Btf.from_kernel(libbpf.prog_info(root_fd).btf_id) as btf:
        number = btf.find(function, BTF_KIND_FUNC)
    return image.load_ext(code, name, root_fd, number)


def _load_image(
    source: Source, code: Image, target: tuple[int, str] | None, device: Device | None
) -> Loaded:
    """Load a program that was compiled in memory."""
    name, what = source.program, f"{source.program} of {source.path}"
    if device and device.card:
        raise UnsupportedError(
            f"{what} cannot be offloaded",
            why="BCC has made its maps already, and not on the card",
            hint="use an object file, or C that is not in BCC's dialect",
        )
    if source.maps_of:
        raise UnsupportedError(
            f"{what} cannot share the maps of program {source.maps_of}",
            why="BCC gives its programs maps of their own",
            hint='--maps new (in the file of apply: maps = "new") leaves them to it',
        )
    try:
        loaded = _load_ext(name, code, target) if target else image.load_xdp(code, name)
    except KernelError as error:
        from .words import refused

        raise refused(what, error, ext=bool(target)) from error
    tables = {table: Map(os.dup(number)) for table, number in (source.tables or {}).items()}
    empty: dict[str, list[str]] = {
        name: [] for name, one in tables.items() if tails.is_empty(one.fd)
    }
    return Loaded(loaded, tables, {}, empty=empty)
