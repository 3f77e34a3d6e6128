"""Loading a program of a user's object file: maps shared or new, EXT or of its own; and refusals.

libbpf can crash on a corrupt object, so it sees users' bytes only in a child process.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from typing import Any

from ..errors import KernelError, UnsupportedError
from ..host.child import in_child
from ..kernel import abi, asm, libbpf, uapi
from ..kernel.btf import BTF_KIND_FUNC, Btf
from ..kernel.object import Object, ObjectMap, ObjectProgram
from ..kernel.program import LOG_SIZE, Program
from ..model.source import Image, Source
from . import image, sharing
from .binding import Device, not_bound
from .sharing import PINNED, SHARING, Names, share_maps, use_pins
from .tuning import tune
from .words import libbpf_words, refused

_CALLING, _FILLING = "making tail calls", "filling program arrays"
_ARRAY = "sharing a program array"
_NO_OFFLOAD = (
    "the driver takes no programs for its card, as most do, or none such: cards take no fragments, "
    "and of maps plain arrays and hashes alone"
)


@dataclass(frozen=True)
class Loaded:
    """A program in the kernel, attached nowhere yet, its image bound to it.

    `arrays` has the descriptors of its program arrays, by name; `maps` those of the maps that want
    to be pinned and have no pin yet, by path.
    """

    fd: int
    arrays: dict[str, int]
    maps: dict[str, int]


def open_object(path: str, data: bytes, pin_path: str | None = None) -> Object:
    """In the child: have libbpf read an object."""
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

    Raises VerifierError, UnsupportedError, RightsError or BadObjectError.
    """
    if source.image:
        return _load_image(source, source.image, target, device)

    def work() -> tuple[Any, list[int]]:
        try:
            return _load(source, frags, target, apart=apart, device=device)
        except KernelError as error:
            if (
                not target
                or error.call in (SHARING, PINNED, _FILLING)
                or error.errno != errno.EINVAL
            ):
                raise
            return _load(source, frags, target, error, apart=apart, device=device)

    try:
        answer, fds = in_child(source.path, work)
    except KernelError as error:
        what = f"{source.program} of {source.path}"
        if error.call == _FILLING:
            raise UnsupportedError(
                f"{what} cannot be tried",
                why="it has program arrays and shares maps with others: loading it fills the "
                "arrays, and its callees would work on the maps that are in use",
                hint="it can be tried with maps of its own: load -p pins them elsewhere",
            ) from error
        if error.call == PINNED:
            raise UnsupportedError(
                f"{what} cannot use a map that is pinned",
                why=error.log,
                hint="remove the pin, which leaves the map to those who use it, or "
                + (
                    "--maps MAP=new takes one that is not pinned"
                    if source.replaces
                    else "-p DIR pins its maps elsewhere (in the file of apply: pin-path)"
                ),
            ) from error
        if error.call == SHARING:
            raise UnsupportedError(
                f"{what} cannot share the maps of program {source.maps_of}",
                why=error.log,
                hint=_sharing_hint(source),
            ) from error
        if error.call == _ARRAY:
            raise UnsupportedError(
                f"{what} cannot call through the program array {error.log}",
                why="the programs that use it were loaded in another way, and the kernel wants "
                "all of them alike: the expected attach type (some loaders in Go and Rust name "
                "none), whether they take fragments, and whether they are machine code",
                hint="-p DIR, or --maps MAP=new, gives it an array of its own; with programs that "
                "name no attach type --root ext goes together, with others --root fused",
            ) from error
        if error.call == _CALLING:
            raise UnsupportedError(
                f"{what} cannot replace a function of a dispatcher",
                why="it makes tail calls, and here EXT and XDP programs have no program array in "
                "common",
                hint="use --root fused, or a kernel that has the fix of Linux 6.2",
            ) from error
        by_driver = error.call != "verifier" and error.errno in (errno.EINVAL, errno.EOPNOTSUPP)
        if device and device.card and error.errno and by_driver:
            raise UnsupportedError(
                f"{what} cannot be offloaded",
                why=f"{_NO_OFFLOAD} ({errno.errorcode[error.errno]})",
                hint="-m native runs it in the driver, -m skb on any interface",
                details=libbpf_words(error),
                number=error.errno,
            ) from error
        unbound = not_bound(what, device, error)
        raise unbound or refused(what, error, ext=bool(target)) from error
    count = len(answer["arrays"])
    arrays = dict(zip(answer["arrays"], fds[1 : 1 + count], strict=True))
    return Loaded(fds[0], arrays, dict(zip(answer["maps"], fds[1 + count :], strict=True)))


def _load(
    source: Source,
    frags: bool,
    target: tuple[int, str] | None,
    fault: KernelError | None = None,
    *,
    apart: bool = False,
    device: Device | None = None,
) -> tuple[Any, list[int]]:
    """In the child: have libbpf load a program; its program arrays and maps, and descriptors.

    If a first way ended by a `fault`, the program may lack BTF, or have what does not fit the
    function that it is to replace, as older compilers write it. The kernel looks at that before the
    code. So it is verified by itself, and its image is loaded with BTF of ours.
    """
    parsed = open_object(source.path, source.data, source.pin_path)
    tuned = tune(parsed, source.tuning)
    attach_type = 0 if target else uapi.BPF_XDP
    log = libbpf.log_buffer(LOG_SIZE)
    arrays = {
        found.name: found for found in parsed.maps if found.type == uapi.BPF_MAP_TYPE_PROG_ARRAY
    }
    chosen = _choose(parsed, source, attach_type, callees=bool(arrays))
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
    maps = _unpinned(parsed, source, fills=apart and bool(arrays))
    if source.maps_of:
        shared = share_maps(parsed, source, lambda: _by_reference(source, frags, device))
        maps = {
            path: found for path, found in maps.items() if source.replaces and found not in shared
        }
        wrong = [name for found, name in tuned.items() if found in shared]
        if wrong:
            why = "\n".join(f"{name} stays what it is in the map that is shared" for name in wrong)
            raise KernelError(SHARING, errno.EINVAL, why)
    use_pins(parsed)
    others = sharing.reused_arrays(parsed)
    try:
        parsed.load()
    except KernelError as error:
        if others and error.errno == errno.EINVAL and _loads_alone(source, frags, target, device):
            raise KernelError(_ARRAY, errno.EPROTOTYPE, others) from error
        raise KernelError(
            "verifier" if log.value else error.call,
            error.errno or errno.EINVAL,
            log.value.decode(errors="replace") or error.log + sharing.without_entries(parsed),
        ) from error
    program_fd = chosen.fd
    code = image.capture(parsed, chosen, frags)
    if target and fault:
        if code is None:
            raise fault
        program_fd = _load_anew(source.program, code, target).handed_over()
    elif code and not (device and device.card):  # the image is for a root of another kind
        image.bound(code, Program(program_fd))
    handles = [*arrays.values(), *maps.values()]
    fds = [program_fd, *(one.fd for one in handles)]
    return {"arrays": list(arrays), "maps": list(maps)}, fds


def _choose(parsed: Object, source: Source, attach_type: int, *, callees: bool) -> ObjectProgram:
    """In the child: the program that is meant; of the others only `callees` are loaded."""
    chosen = ObjectProgram(0)
    for program in parsed.programs:
        if program.name == source.program:
            chosen = program
            # A section that starts with ? asks to be left out unless it is named.
            program.autoload(True)
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
        raise KernelError(_FILLING, errno.EINVAL)
    for found in maps.values():
        found.leave_unpinned()
    return maps


def _loads_alone(
    source: Source, frags: bool, target: tuple[int, str] | None, device: Device | None
) -> bool:
    """In the child: whether a program can be loaded with maps of its own."""
    alone = source._replace(maps_of=0, pin_path=None, maps=())
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
    alone = source._replace(maps_of=0, pin_path=None, maps=())
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
            raise KernelError(_CALLING, errno.EINVAL) from error
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
        raise refused(what, error, ext=bool(target)) from error
    tables = (source.tables or {}).items()
    return Loaded(loaded.handed_over(), {table: os.dup(number) for table, number in tables}, {})


def _sharing_hint(source: Source) -> str:
    if source.replaces:
        return (
            '--maps new (in the file of apply: maps = "new") gives the new program maps of its '
            "own, MAP=new a single one"
        )
    force = "" if source.forced else ", or --force to leave out maps that it lacks"
    return f"give the object file that the running program was loaded from{force}"
