"""The EXT kind of root: the rootlet dispatcher, compiled for the shape of a chain and loaded.

`build` makes a root for a chain, attached nowhere, and `Dispatcher.hook` makes a member part of it.
The rest of xdpctl knows roots as ids alone.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ..bpffs.mount import Bpffs
from ..errors import KernelError, UnsupportedError, VerifierError, XdpctlError
from ..host.rights import explain_refusal
from ..kernel import abi, asm, uapi
from ..kernel.btf import BTF_KIND_FUNC
from ..kernel.link import Link
from ..kernel.object import Object
from ..kernel.program import Program
from ..model.chain import USUAL, Kind, Member, Rules, takes_entry
from ..model.record import ENTRY, LIBXDP_SLOTS, PROTOCOL, Config, is_wide, root_name
from ..model.state import Root
from ..observe.elsewhere import links_elsewhere
from ..programs.binding import Device, not_bound
from ..value import Value
from .construct import Construction, Hooked, Target, count
from .hook import NewRoot
from .kind import ChainKind


def slot_function(members: Sequence[Member], slot: int, rules: Rules = USUAL) -> str:
    """The name of the root's function that a member replaces."""
    return ENTRY if takes_entry(members, rules) else f"prog{slot}"


class Dispatcher(Value):
    """A loaded dispatcher. `functions` has the BTF id of each slot's function, in slot order."""

    program: Program
    id: int
    btf_id: int
    functions: tuple[int, ...]
    names: tuple[str, ...]

    def hook(self, program: Program, slot: int) -> Link:
        """Hook an EXT program onto a slot."""
        return Link.ext(program, self.program, self.functions[slot])


class ExtKind(ChainKind):
    """A dispatcher is loaded first, and every program is hooked onto a slot of it."""

    name: Kind = "ext"

    def build(self, made: Construction) -> None:
        members, rules = made.plan.target.members, made.plan.target.rules
        made.count()
        root = build(members, made.plan.protocol, made.paths.ifindex, rules)
        made.closing.enter_context(root.program)
        made.built = NewRoot(root.program, root.id)
        made.step(
            "1" if made.first else "4",
            f"loaded root {'X' if made.first else 'Y'} with {count(len(members), 'slot')}",
            root=root.id,
            btf=root.btf_id,
        )
        free = None
        if any(member.devbound for member in members) and not all(one.devbound for one in members):
            # The kernel binds what is loaded for a root that is bound: it would never go onto
            # another again. What is not bound goes onto both.
            other = build([Member("free")])
            made.closing.enter_context(other.program)
            free = Target(other.program, other.names[0], other.functions[0])
        for slot, member in enumerate(members):
            replaced = Target(root.program, root.names[slot], root.functions[slot])
            wanted = free if free and not member.devbound else replaced
            program, info = made.program(member, wanted)
            link = made.closing.enter_context(root.hook(program, slot))
            found = link.info
            made.put(member, info, Hooked(program, link), found.id)
            if made.counter(slot) and made.counting:
                made.counting.observe(made.paths, program, made.members[slot], made.undo)
            if member.held:
                if not found.target:
                    raise UnsupportedError(
                        "this kernel does not tell what a link is hooked onto",
                        why="a program that only a process holds could not be found again (Linux "
                        "5.13 can)",
                        hint="load it with xdpctl load instead",
                    )
                made.hold(info.id, link)
            made.step(
                "3" if made.first else "5",
                f"hooked {member.name} onto {replaced.name}",
                program=info.id,
                link=found.id,
                root=root.id,
                function=replaced.function,
            )

    def holders(self, bpffs: Bpffs, root: Root, staying: Mapping[int, Member]) -> list[str]:
        return super().holders(bpffs, root, staying) + [
            staying[link.prog_id].name
            for _path, link in links_elsewhere(bpffs)
            if link.prog_id in staying and link.target == root.id
        ]


def build(
    members: Sequence[Member], protocol: int = PROTOCOL, ifindex: int = 0, rules: Rules = USUAL
) -> Dispatcher:
    """Load a root for a chain, attached nowhere, its slots vacant.

    It takes packets of several fragments if every member does and the kernel can (Linux kernel
    commit c2f2cdbeffda "bpf: introduce BPF_F_XDP_HAS_FRAGS flag in prog_flags loading the ebpf
    program", in v5.18). It is bound to the device of a number if a member is: the kernel wants the
    target of a program that is bound to be so, too. Raises RightsError, UnsupportedError or
    VerifierError.
    """
    rules = rules._replace(counted=0)  # others count: see counting.py
    code = object_for(tuple(member.actions for member in members), protocol, rules)
    config = Config.of(members, protocol)
    names = tuple(slot_function(members, slot, rules) for slot in range(len(members)))
    try:
        return _load(code, config, names, ifindex)
    except KernelError as error:
        if config.frags and error.errno == errno.EINVAL:
            with contextlib.suppress(KernelError):
                return _load(code, replace(config, frags=False), names, ifindex)
        device = Device(ifindex) if config.devbound else None
        raise (
            not_bound("the dispatcher", device, error)
            or explain_refusal(error, "the dispatcher")
            or VerifierError(
                "the kernel refused the dispatcher", why=error.log.strip() or str(error)
            )
        ) from error


def refused() -> int:
    """The errno with which the kernel refuses EXT programs; 0 where it takes them.

    By experiment: security policies, architectures without trampolines and a JIT that is off all
    refuse in ways of their own, and at different steps.
    """
    root = build([Member("probe")])
    with root.program:
        target = root.program.fd, root.functions[0]
        try:
            kind = uapi.BPF_PROG_TYPE_EXT
            with Program.load(kind, "probe", asm.PASS, gpl=True, target=target) as probe:
                root.hook(probe, 0).close()
        except KernelError as error:
            return error.errno or errno.EPERM
    return 0


def _load(code: bytes, config: Config, names: tuple[str, ...], ifindex: int) -> Dispatcher:
    with Object.parsed(code, abi.ObjectOpenOpts(object_name=ENTRY.encode())) as parsed:
        program = next(parsed.programs)
        next(parsed.maps).fill(config.pack())
        flags = uapi.BPF_F_XDP_HAS_FRAGS * config.frags
        program.set_flags(flags)
        if config.devbound:
            program.bind_to(ifindex, flags)
        parsed.load()
        btf = parsed.btf
        assert btf is not None  # it has line numbers and functions, or the kernel would not link it
        functions = tuple(btf.find(name, BTF_KIND_FUNC) for name in names)
        loaded = Program(os.dup(program.fd))
    try:
        info = loaded.info
        if info.name != root_name(len(names)) or not info.map_ids:
            # libbpf leaves the name or the record out, without an error, where a call of its own
            # fails; a root that nobody can read could never be changed again.
            raise XdpctlError(
                "the dispatcher was loaded without its name or its record",
                why="a bpf(2) call failed meanwhile, for instance for want of memory",
                hint="try again",
            )
    except BaseException:
        loaded.close()
        raise
    return Dispatcher(loaded, info.id, info.btf_id, functions, names)


# --- compiling ----------------------------------------------------------------------------------


def shipped(name: str) -> Path | None:
    """A file of bpf/: inside an installed package, or beside it in a checkout."""
    here = Path(__file__).parents[1]
    for path in (here / "bpf" / name, here.parent / "bpf" / name):
        if path.exists():
            return path
    return None


def general(protocol: int) -> str:
    """The file name of the dispatcher for any shape, but a wide one, that the package carries."""
    return f"dispatcher-{protocol}.o"


def object_for(masks: tuple[int, ...], protocol: int = PROTOCOL, rules: Rules = USUAL) -> bytes:
    """The dispatcher's object file for a chain with these action masks.

    From the cache, else from clang, else the general one that the package carries, which knows the
    usual rules alone and is not for a wide chain.
    """
    from ..programs.clang import NoClangError  # only here: a fused root needs no compiler

    source, wide = shipped("dispatcher.c"), is_wide(len(masks))
    slots = " ".join(f"SLOT({slot}, {mask:#x})" for slot, mask in enumerate(masks))
    shape = [f"-DSLOTS={slots}", "-DWIDE" if wide else f"-DPROTOCOL={protocol}"]
    if not masks:
        shape.append("-Wno-unused")  # no slot needs what there is for slots
    if rules != USUAL:
        shape += [f"-DON_END={rules.on_end}", f"-DON_VACANT={rules.on_vacant}"]
    if source is not None:
        with contextlib.suppress(NoClangError):
            return _cached(source.read_bytes(), *shape)
    lacking = f" for more than {LIBXDP_SLOTS} programs" if wide else ""
    lacking = lacking or (" for these rules" if rules != USUAL else "")
    compiled = None if lacking else shipped(general(protocol))
    if compiled is None:
        raise UnsupportedError(
            "no dispatcher for this chain",
            why=f"clang is not installed and this xdpctl carries no compiled dispatcher{lacking}",
            hint="install clang (Debian: apt install clang), or use --root fused, which needs none",
        )
    return compiled.read_bytes()


def _cached(source: bytes, *shape: str) -> bytes:
    """Compile, or take the result of the same source and flags from the cache."""
    from ..host import cache

    key = "\0".join([*cflags(), *shape, ""]).encode() + source
    return cache.kept("dispatcher", key, lambda: compile_c(source, *shape))


def cflags() -> tuple[str, ...]:
    """What clang is told besides the shape."""
    from ..programs.clang import FLAGS

    return *FLAGS, "-Wall", "-Werror"


def compile_c(source: bytes, *flags: str) -> bytes:
    """Run clang on source text. Raises UnsupportedError, and NoClangError without one."""
    from ..programs import clang

    try:
        return clang.run([*cflags(), *flags, "-x", "c", "-c", "-", "-o", "-"], source)
    except clang.ClangError as error:
        raise UnsupportedError(
            "clang cannot compile the dispatcher",
            why=str(error),
            hint="clang 10 or newer with the BPF target is needed",
        ) from error


def has_general() -> bool:
    """Whether there is a dispatcher for machines without clang."""
    return shipped(general(PROTOCOL)) is not None
