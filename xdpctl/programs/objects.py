"""Users' object files: which programs are in them, and members that are to be loaded of them.

libbpf can crash on a corrupt object, so it sees users' bytes only in a child process.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace

from ..errors import BadObjectError, KernelError, UsageError
from ..host.child import in_child
from ..host.text import Json
from ..kernel import libbpf
from ..kernel.btf import BTF_KIND_ARRAY, BTF_KIND_DATASEC, BTF_KIND_PTR
from ..kernel.elf import functions
from ..kernel.object import Object
from ..model import chain
from ..model.source import Recipe, Source, Tuning
from ..supply.reference import Labels, is_image
from . import clang, given
from .binding import asks_device, may_ask
from .choice import NO_SECTION, Candidate, Looked, check_labels, choose, may_be_meant, meant_by
from .clang import Build
from .given import Given, check_no_pin
from .loading import open_object
from .tuning import TUNING, tune


def _check_elf(path: str, data: bytes) -> None:
    if not data.startswith(b"\x7fELF"):
        check_no_pin(path)  # that of a map can be read, and shows what is in it
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
    keys: Sequence[str] = (),
) -> chain.Member:
    """A member to be, from an object file or a C source, an image, or an object's bytes.

    Its run configuration holds unless an argument does. With `first_of_several` it is the first
    program that may be meant, as xdp-loader takes it. If there are files with `keys`, it has to be
    signed by one of them.

    Raises NotFoundError, BadObjectError, UsageError, UntrustedError; for a source also what
    compiling it raises, for an image what fetching it raises.
    """
    what = given.given(path, data, keys)
    path, data = what.path, what.data
    if what.is_source:
        if build.is_bcc(data):
            if section is not None:
                raise UsageError(
                    f"no section {section} in {path}",
                    why="programs in BCC's dialect have no sections",
                    hint="name one with -n PROGRAM",
                )
            return _of_bcc(what, program, priority, actions, build, tuning)
        data = clang.compiled(path, build.flags)
    _check_elf(path, data)
    looked = _inspect(path, what.named, data, tuning)
    if section is None and program is None:
        program = meant_by(what.labels)
    check_labels(what.image, what.labels, looked)
    found = choose(path, looked, section, program, first_of_several)
    recipe = Recipe(
        what.file,
        found.name,
        hashlib.sha256(data).hexdigest(),
        pin_path if looked.pins else None,
        clang.absolute(build.flags) if what.is_source else (),
        build.bcc if what.is_source else None,
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
        source=Source(
            path,
            data,
            found.name,
            pin_path,
            tuning=tuning,
            pins=looked.pins,
            recipe=recipe,
            named=what.named,
            vetted=True,
        ),
        image=what.image,
    )


def _of_bcc(
    what: Given,
    program: str | None,
    priority: int | None,
    actions: int | None,
    build: Build,
    tuning: Tuning,
) -> chain.Member:
    """A member to be, from a source in BCC's dialect."""
    from . import bcc

    if any(tuning):
        raise UsageError(
            f"nothing of {what.path} can be set",
            why="BCC makes maps and values as it compiles",
            hint="-D NAME=VALUE defines a macro for it",
        )
    name, code, tables = bcc.compiled(what.path, what.data, build.flags, program)
    # What a text includes, and how BCC compiles it, is not in it: no digest.
    recipe = Recipe(what.file, name, "", flags=clang.absolute(build.flags), bcc=build.bcc)
    image = replace(code, recipe=recipe)
    source = Source(what.path, b"", name, image=image, tables=tables, vetted=True)
    return of_image(source, priority, actions)


def candidates(path: str) -> list[Candidate]:
    """The programs that can be chosen of an object file; none of a C source, which is not compiled.

    Nor of an image, which is not fetched. Raises NotFoundError, BadObjectError, UntrustedError.
    """
    if clang.is_source(path) or is_image(path):
        return []
    what = given.given(path)
    _check_elf(path, what.data)
    found = _inspect(path, what.named, what.data, Tuning()).programs
    return [one for one in found if may_be_meant(one)]


def labels(path: str) -> tuple[str, bytes, Labels]:
    """An object file for an image: what it is called, its bytes, and what an image says of it.

    Raises NotFoundError, BadObjectError, and UsageError for what is no object file.
    """
    if clang.is_source(path) or is_image(path):
        raise UsageError(
            f"{path} is no object file",
            hint="compile it first: clang -O2 -g -target bpf -c prog.c -o prog.o",
        )
    data = given.read(path)  # nothing is loaded, and who signs it does so when it is pushed
    _check_elf(path, data)
    found = _inspect(path, path, data, Tuning())
    programs = {one.name: "xdp" for one in found.programs if one.is_xdp}
    if not programs:
        raise BadObjectError(f"no XDP program in {path}", hint="see xdpctl help load")
    # Names with a dot are of global variables, which have no map of their own in the source.
    maps = {name: kind for name, kind in found.maps.items() if "." not in name}
    return os.path.basename(path), data, Labels(os.path.basename(path), programs, maps)


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


# --- in the child -------------------------------------------------------------------------------


def _inspect(path: str, named: str, data: bytes, tuning: Tuning) -> Looked:
    """What is in an object file; libbpf calls it `named`."""

    def work() -> tuple[Json, list[int]]:
        parsed = open_object(named, data)
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
        maps = {one.raw_name.decode(errors="replace"): one.kind for one in parsed.maps}
        bare = all(one["section"] == NO_SECTION for one in found)
        plain = functions(data, NO_SECTION.encode()) if bare else []
        return {"programs": found, "pins": pins, "maps": maps, "plain": plain}, []

    try:
        answer, _fds = in_child(path, work)
    except KernelError as error:
        if error.call == TUNING:
            raise UsageError(f"{path} cannot be set so", why=error.log) from error
        from .words import unusable

        raise unusable(path, error) from error
    candidates = [Candidate(**values) for values in answer["programs"]]
    for found in candidates:
        _check_config(path, found)
    return Looked(candidates, bool(answer["pins"]), answer["maps"], list(answer["plain"]))


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
