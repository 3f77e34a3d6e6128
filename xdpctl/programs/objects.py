"""Users' object files: which programs are in them, and members that are to be loaded of them.

libbpf can crash on a corrupt object, so it sees users' bytes only in a child process.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..errors import BadObjectError, KernelError, NotFoundError, UsageError, meant
from ..host import files
from ..host.child import in_child
from ..host.text import Json
from ..kernel import libbpf, uapi
from ..kernel.btf import BTF_KIND_ARRAY, BTF_KIND_DATASEC, BTF_KIND_PTR
from ..kernel.object import Object
from ..model import chain
from ..model.source import Recipe, Source, Tuning
from . import clang
from .binding import asks_device, may_ask
from .clang import Build
from .loading import open_object
from .tails import FOREIGN
from .tuning import TUNING, tune
from .words import unusable

_NO_SECTION = ".text"
"""Where a compiler puts functions that are given no section."""


@dataclass(frozen=True)
class Candidate:
    """A program of an object file, as it is before loading; `size` in bytes.

    One that `asks_device` about packets is to be bound to it. A `strange` one has a run
    configuration with a member that nobody knows.
    """

    name: str
    section: str
    type: int
    attach_type: int
    frags: bool
    size: int
    asks_device: bool
    priority: int | None
    actions: int | None
    strange: bool

    @property
    def is_xdp(self) -> bool:
        return self.type == uapi.BPF_PROG_TYPE_XDP and self.attach_type not in FOREIGN


def read(path: str, most: int | None = None) -> bytes:
    """A file's bytes, or its first ones. Raises NotFoundError or BadObjectError."""
    limit = files.SOURCE if clang.is_source(path) else files.OBJECT
    try:
        return files.read(path, limit, most=most, number=libbpf.LIBBPF_ERRNO__LIBELF)
    except BadObjectError as error:
        cause = error.__cause__
        if isinstance(cause, OSError) and cause.errno == errno.EIO:
            _check_no_pin(path)  # what the pin of a program answers
        if isinstance(cause, files.NotRegularError) and not os.path.isdir(path):
            error.number = libbpf.LIBBPF_ERRNO__FORMAT  # it can be read, and has no object
        raise


def _check_no_pin(path: str) -> None:
    """Raise BadObjectError if something is pinned at a path, as far as this process may know."""
    try:
        fd = libbpf.get(path)
    except KernelError:
        return
    with libbpf.owned(fd):
        kind = os.readlink(f"/proc/self/fd/{fd}").rpartition(":")[2]
    kind = {"bpf-map": "map", "bpf-prog": "program", "bpf_link": "link"}.get(kind, kind)
    raise BadObjectError(
        f"{path} is no file",
        why=f"it is the pin of a {kind} in a BPF file system",
        hint="give the object file, or the C source, that the program is made of",
    )


def _check_elf(path: str, data: bytes) -> None:
    if not data.startswith(b"\x7fELF"):
        _check_no_pin(path)  # that of a map can be read, and shows what is in it
        raise BadObjectError(
            f"{path} is not an ELF object file",
            hint="compile it first: clang -O2 -g -target bpf -c prog.c -o prog.o; a source is "
            f"known by its name, which ends in {clang.SUFFIX}",
            number=libbpf.LIBBPF_ERRNO__FORMAT,
        )


def member(
    path: str,
    data: bytes | None = None,
    *,
    section: str | None = None,
    program: str | None = None,
    priority: int | None = None,
    actions: int | None = None,
    pin_path: str | None = None,
    first_of_several: bool = False,
    build: Build = Build(),  # noqa: B008 - a tuple
    tuning: Tuning = Tuning(),  # noqa: B008 - a tuple
) -> chain.Member:
    """A member to be, from an object file or a C source, or an object's bytes.

    Its run configuration holds unless an argument does. With `first_of_several` it is the first
    program that may be meant, as xdp-loader takes it.

    Raises NotFoundError, BadObjectError, UsageError; for a source also what compiling it raises.
    """
    compiled = data is None and clang.is_source(path)
    file = os.path.abspath(path) if data is None else files.STANDARD_INPUT
    if data is None:
        data = read(path)
    if compiled:
        if build.is_bcc(data):
            from . import bcc

            if section is not None:
                raise UsageError(
                    f"no section {section} in {path}",
                    why="programs in BCC's dialect have no sections",
                    hint="name one with -n PROGRAM",
                )
            if any(tuning):
                raise UsageError(
                    f"nothing of {path} can be set",
                    why="BCC makes maps and values as it compiles",
                    hint="-D NAME=VALUE defines a macro for it",
                )
            name, code, tables = bcc.compiled(path, data, build.flags, program)
            # What a text includes, and how BCC compiles it, is not in it: no digest.
            recipe = Recipe(file, name, "", flags=clang.absolute(build.flags), bcc=build.bcc)
            source = Source(path, b"", name, image=code._replace(recipe=recipe), tables=tables)
            return of_image(source, priority, actions)
        data = clang.compiled(path, build.flags)
    _check_elf(path, data)
    candidates, pins = _inspect(path, data, tuning)
    found = _choose(path, candidates, section, program, first_of_several)
    recipe = Recipe(
        file,
        found.name,
        hashlib.sha256(data).hexdigest(),
        pin_path if pins else None,
        clang.absolute(build.flags) if compiled else (),
        build.bcc if compiled else None,
        tuple(sorted(tuning.constants)),
        tuple(sorted(tuning.entries)),
        tuple(sorted((one.where, one.program) for one in tuning.tails)),
    )
    return chain.Member(
        name=found.name,
        priority=_first(priority, found.priority, chain.DEFAULT_PRIORITY),
        actions=_first(actions, found.actions, chain.DEFAULT_ACTIONS),
        frags=found.frags,
        size=found.size,
        devbound=found.asks_device,
        source=Source(path, data, found.name, pin_path, tuning=tuning, pins=pins, recipe=recipe),
    )


def candidates(path: str) -> list[Candidate]:
    """The programs that can be chosen of an object file; none of a C source, which is not compiled.

    Raises NotFoundError or BadObjectError.
    """
    if clang.is_source(path):
        return []
    data = read(path)
    _check_elf(path, data)
    return [found for found in _inspect(path, data, Tuning())[0] if _may_be_meant(found)]


def _may_be_meant(found: Candidate) -> bool:
    return found.is_xdp or found.type == uapi.BPF_PROG_TYPE_UNSPEC


def of_image(source: Source, priority: int | None, actions: int | None) -> chain.Member:
    """A member to be, from code that was compiled in memory."""
    assert source.image is not None
    return chain.Member(
        name=source.program,
        priority=_first(priority, chain.DEFAULT_PRIORITY),
        actions=_first(actions, chain.DEFAULT_ACTIONS),
        frags=source.image.frags,
        size=len(source.image.code),
        source=source,
    )


def check_pinning(members: Sequence[chain.Member], pin_path: str | None) -> None:
    """Raise UsageError if a directory is named for pins, and none of the members makes one."""
    sources = [one.source for one in members if one.source]
    if pin_path is not None and not any(source.pins for source in sources):
        raise UsageError(
            f"nothing is to be pinned in {pin_path}",
            why=f"no map of {', '.join(source.path for source in sources)} asks for it",
            hint="a map asks for it with __uint(pinning, LIBBPF_PIN_BY_NAME); or leave out -p",
        )


@contextlib.contextmanager
def letting_go(members: Sequence[chain.Member], *, tried: bool = False) -> Iterator[None]:
    """At the end of the block nothing of members that were to be loaded is open any more.

    What compiling them has pinned stays, unless the block fails or they were only `tried`.
    """
    try:
        yield
        for one in members if not tried else ():
            if one.source and one.source.tables is not None:
                one.source.tables.taken()
    finally:
        for one in members:
            if one.source and one.source.tables is not None:
                one.source.tables.close()


def _first(*values: int | None) -> int:
    return next(value for value in values if value is not None)


def _choose(
    path: str,
    candidates: list[Candidate],
    section: str | None,
    program: str | None,
    first_of_several: bool,
) -> Candidate:
    """The program that is meant."""
    listing = ", ".join(f"{found.name} (section {found.section})" for found in candidates)
    if section is None and program is None:
        fitting = [found for found in candidates if found.is_xdp]
        untyped = [found for found in candidates if found.type == uapi.BPF_PROG_TYPE_UNSPEC]
        plain = [found.name for found in untyped if found.section == _NO_SECTION]
        if first_of_several:
            fitting = [found for found in candidates if found in (*fitting, *untyped)]
        elif not fitting and len(untyped) == 1 and not plain:
            fitting = untyped  # its section tells libbpf nothing, and it is all that can be meant
        if not fitting:
            raise BadObjectError(
                f"no XDP program in {path}",
                why=f"it has {listing}" if listing else "it has no program at all",
                hint=f'{plain[0]} has no section of its own: write SEC("xdp") before it'
                if len(plain) == len(candidates) > 0
                else 'an XDP program stands in a section named "xdp" or "xdp.frags"; one of '
                "several in other sections has to be named with -n PROGRAM",
                number=errno.EINVAL if candidates else errno.ENOENT,
            )
    else:
        fitting = [
            found for found in candidates if found.name == program or found.section == section
        ]
        if not fitting:
            what = f"program {program}" if program else f"section {section}"
            names = [found.name if program else found.section for found in candidates]
            raise NotFoundError(
                f"no {what} in {path}",
                why=f"it has {listing or 'no program'}",
                hint=meant(program or section or "", names),
            )
    if len(fitting) > 1 and not first_of_several:
        raise UsageError(
            f"{path} has several XDP programs",
            why=", ".join(f"{found.name} (section {found.section})" for found in fitting),
            hint="name one with -n PROGRAM",
        )
    found = fitting[0]
    # A section that libbpf does not know gives no type; who names such a program means XDP.
    if found.type != uapi.BPF_PROG_TYPE_UNSPEC and not found.is_xdp:
        kind = FOREIGN.get(found.attach_type)
        raise BadObjectError(
            f"{found.name} in {path} is not a program for an interface's XDP hook",
            why=f"its section is {found.section}"
            + (f": it is meant for a {kind} entry" if kind else ""),
        )
    return found


# --- in the child -------------------------------------------------------------------------------


def _inspect(path: str, data: bytes, tuning: Tuning) -> tuple[list[Candidate], bool]:
    """The programs of an object file, and whether it has maps that ask to be pinned."""

    def work() -> tuple[Json, list[int]]:
        parsed = open_object(path, data)
        tune(parsed, tuning)
        pins = any(one.pin_path for one in parsed.maps)
        asks = asks_device(parsed)
        found = []
        for program in parsed.programs:
            name, section = program.name, program.section
            config = _run_config(parsed, name)
            found.append(
                {
                    "name": name,
                    "section": section,
                    "type": program.type,
                    "attach_type": program.attach_type,
                    # libbpf turns this section into the program's flag only as it loads it.
                    "frags": section.removeprefix("?").split("/")[0] == "xdp.frags",
                    "size": program.size,
                    "asks_device": asks and may_ask(program),
                    **config,
                }
            )
        return {"programs": found, "pins": pins}, []

    try:
        answer, _fds = in_child(path, work)
    except KernelError as error:
        if error.call == TUNING:
            raise UsageError(f"{path} cannot be set so", why=error.log) from error
        raise unusable(path, error) from error
    candidates = [Candidate(**values) for values in answer["programs"]]
    for found in candidates:
        _check_config(path, found)
    return candidates, bool(answer["pins"])


def _run_config(parsed: Object, function: str) -> dict[str, int | bool | None]:
    """Priority and actions from the BTF section .xdp_run_config (libxdp's protocol).

    The section's variable _<function> is a struct; each member points to an array whose number of
    elements is the value. With a member that is unknown it is `strange`, an error for the caller.
    """
    config: dict[str, int | bool | None] = {"priority": None, "actions": None, "strange": False}
    btf = parsed.btf
    if btf is None:
        return config
    section_id = btf.find(".xdp_run_config", BTF_KIND_DATASEC)
    if not section_id:
        return config
    section = btf.type(section_id)
    for variable, _offset, _size in btf.records(section, section.vlen, 3):
        if btf.name(variable) != f"_{function}":
            continue
        struct = btf.type(btf.type(variable).size_or_type)
        for name_offset, type_id, _bits in btf.records(struct, struct.vlen, 3):
            pointer = btf.type(type_id)
            array = btf.type(pointer.size_or_type)
            if pointer.kind != BTF_KIND_PTR or array.kind != BTF_KIND_ARRAY:
                config["strange"] = True
                return config
            ((_element, _index, value),) = btf.records(array, 1, 3)
            name = btf.string(name_offset)
            if name == "priority":
                config["priority"] = value
            elif name in chain.ACTIONS:
                # What is not named stays as it is by default: to go on at XDP_PASS.
                mask = chain.DEFAULT_ACTIONS if config["actions"] is None else config["actions"]
                bit = 1 << chain.ACTIONS.index(name)
                config["actions"] = mask | bit if value else mask & ~bit
            else:
                config["strange"] = True
                return config
    return config


def _check_config(path: str, found: Candidate) -> None:
    if found.strange:
        raise BadObjectError(
            f"the run configuration of {found.name} in {path} has an unknown member",
            hint=f"it may hold priority and {', '.join(chain.ACTIONS)}",
            number=errno.EOPNOTSUPP,
        )
