"""The fused kind of root: the members' code in one program, in order.

For kernels that refuse EXT programs, and for speed: a member of one function stands in line, and
costs a few instructions; another one is a function, and costs a direct call. A member is a program
of its own all the same, loaded alone, with its id, name and tag; the root is made of the code that
is kept with it (image.py).

A held member's code is not in the root. It is called through a program array that its process
holds: when the last such process ends, the kernel empties the array and the slot is vacant. So is a
member that does not fit as a function, through an array that is pinned for as long as it is one.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from ..bpffs import pin
from ..bpffs.directory import CALLED
from ..errors import KernelError, UnsupportedError, VerifierError, XdpctlError
from ..host.rights import explain_refusal
from ..kernel import asm, records, uapi
from ..kernel.maps import Map
from ..kernel.program import Program
from ..model.chain import USUAL, Kind, Member, Rules
from ..model.record import FUSED, FUSED_RECORD, Config
from ..model.source import Image
from ..programs import image
from .construct import Construction, Hooked, count, no_image
from .fused_code import Part, assemble
from .hook import NewRoot
from .kind import ChainKind


class FusedKind(ChainKind):
    """The root is made of its members' code, so that the members come first."""

    name: Kind = "fused"

    def build(self, made: Construction) -> None:
        made.count()
        parts = [self._part(made, slot) for slot in range(len(made.plan.target.members))]
        root, info = _fitted(made, parts)
        made.closing.enter_context(root)
        made.built = NewRoot(root, info.id)
        made.step(
            "1" if made.first else "4",
            f"loaded root {'X' if made.first else 'Y'}, fused of {count(len(parts), 'program')}",
            root=info.id,
            btf=info.btf_id,
        )

    def _part(self, made: Construction, slot: int) -> Part:
        """A member's part of the root; a held one is called through an array of its process."""
        member = made.plan.target.members[slot]
        program, info = made.program(member)
        code = image.of(info)
        array_id = member.array_id
        if member.held:
            array = made.closing.enter_context(held_array(program))
            made.hold(info.id, array)
            array_id = array.info.id
        made.put(replace(member, array_id=array_id), info, Hooked(program))
        if not array_id and (code is None or os.path.lexists(_array_pin(made, info.id))):
            array_id = _called(made, member, program)
            if not array_id:
                raise no_image(member, "fused")
        code = code or Image(b"", member.frags, gpl=True)  # not the root's to have
        return Part(member, info.id, code, array_id, made.counter(slot))


def _fitted(made: Construction, parts: list[Part]) -> tuple[Program, records.ProgInfo]:
    """Build the root; a member that does not fit as a function is called through an array.

    If that does not help either, raises what the first refusal was.
    """
    first: Misfit | None = None
    alone: set[int] = set()
    while True:
        try:
            return attempt(parts, made.plan.why, made.plan.target.rules, made.paths.ifindex, alone)
        except KernelError as error:
            raise error.explained() from error
        except Misfit as misfit:
            first = first or misfit
            slot, part = next(one for one in enumerate(parts) if one[1] is misfit.part)
            array_id = 0
            if not part.array_id and sum(bool(one.array_id) for one in parts) < _MOST_CALLED:
                with Program.by_id(part.program_id) as program:
                    array_id = _called(made, part.member, program)
            if not array_id:
                raise first.explained() from first
            parts[slot] = replace(part, array_id=array_id)


_MOST_CALLED = 32
"""The kernel makes 33 tail calls for a packet (MAX_TAIL_CALL_CNT), and leaves further ones out."""


def _array_pin(made: Construction, program_id: int) -> str:
    return made.paths.beside_pin("map", program_id, CALLED)


def _called(made: Construction, member: Member, program: Program) -> int:
    """The id of the pinned array that calls a program, which is made if it is not there.

    0 if there can be none: an array takes no EXT program, and none that is bound to a device.
    """
    info = program.info
    if info.type != uapi.BPF_PROG_TYPE_XDP or member.devbound:
        return 0
    path = _array_pin(made, info.id)
    if os.path.lexists(path) and (pinned := pin.opened(path, Map)) is not None:
        return made.closing.enter_context(pinned).info.id
    array = made.closing.enter_context(held_array(program, CALLED))
    made.keep_beside("map", info.id, CALLED, array)
    made.step(
        "2",
        f"{member.known_as} does not fit as a function: it is called through a program array",
        program=info.id,
    )
    return array.info.id


class Misfit(Exception):  # noqa: N818 - there may be another way
    """The kernel refuses a root because of a part of it; `explained` says why, to users."""

    def __init__(self, part: Part, explained: Callable[[], XdpctlError]) -> None:
        self.part, self.explained = part, explained


def build(
    parts: Sequence[Part], why: int, rules: Rules = USUAL
) -> tuple[Program, records.ProgInfo]:
    """The same as `attempt`, of parts that there is no other way for.

    Raises RightsError, UnsupportedError or VerifierError, which names the member.
    """
    try:
        return attempt(parts, why, rules)
    except Misfit as misfit:
        raise misfit.explained() from misfit


def attempt(
    parts: Sequence[Part],
    why: int,
    rules: Rules = USUAL,
    ifindex: int = 0,
    alone: set[int] | None = None,
) -> tuple[Program, records.ProgInfo]:
    """Load a root for a chain, attached nowhere; returns it and what the kernel tells of it.

    `why` is the errno for which the kernel refuses EXT programs, 0 if nobody asked it. It takes
    packets of several fragments if every member does (without members where the kernel knows of
    that: see dispatcher.py), and is bound to the device of a number if a member is. `alone` keeps
    the ids of programs of which it is known that they fit alone. Raises RightsError, Misfit for a
    member, or KernelError if there is none.
    """
    device = ifindex if any(part.member.devbound for part in parts) else 0
    frags = all(part.member.frags for part in parts)
    try:
        root = _load(parts, rules=rules, frags=frags, device=device)
    except KernelError as refusal:
        if not parts and refusal.errno == errno.EINVAL:
            frags = False
        try:
            # In line they share a frame; as functions each may have more of the stack.
            root = _load(parts, rules=rules, frags=frags, device=device, in_line=False)
        except KernelError as error:
            if error.errno == errno.EPERM and not error.log:
                raise explain_refusal(error, "the fused root") or error.explained() from error
            if not parts:
                raise
            culprit, by_itself, last = _culprit(
                parts, error, device, set() if alone is None else alone
            )
            explained = partial(_explain, tuple(parts), culprit, by_itself, last, device)
            raise Misfit(culprit, explained) from error
    try:
        config = replace(
            Config.of([part.member for part in parts], protocol=0),
            frags=frags,
            programs=tuple(part.program_id for part in parts),
            arrays=tuple(part.array_id for part in parts),
            why=why,
        )
        root.keep(FUSED_RECORD, config.pack_fused())
        info = root.info
        if info.name != FUSED:
            # libbpf leaves the name out, without an error, where a call of its own fails.
            raise XdpctlError(
                "the root was loaded without its name",
                why="a bpf(2) call failed meanwhile, for instance for want of memory",
                hint="try again",
            )
    except BaseException:
        root.close()
        raise
    return root, info


def held_array(program: Program, name: str = "xdpctl_held") -> Map:
    """A program array that calls a program for as long as somebody holds it."""
    array = Map.create(uapi.BPF_MAP_TYPE_PROG_ARRAY, name, 4)
    try:
        array.update(bytes(4), program.fd.to_bytes(4, sys.byteorder))
    except BaseException:
        array.close()
        raise
    return array


# --- loading ------------------------------------------------------------------------------------


def _load(
    parts: Sequence[Part],
    gpl: bool | None = None,
    rules: Rules = USUAL,
    *,
    frags: bool | None = None,
    device: int = 0,
    in_line: bool = True,
) -> Program:
    code, names = assemble(parts, rules, in_line=in_line)
    return Program.load(
        uapi.BPF_PROG_TYPE_XDP,
        FUSED,
        code,
        names,
        gpl=_is_gpl(parts) if gpl is None else gpl,
        frags=all(part.member.frags for part in parts) if frags is None else frags,
        device=device,
    )


def _is_gpl(parts: Sequence[Part]) -> bool:
    """Whether GPL-only helpers may be called: never for a member that does not allow it."""
    return all(part.image.gpl or part.array_id for part in parts)


# --- refusals -----------------------------------------------------------------------------------


def _explain(
    parts: Sequence[Part], culprit: Part, alone: bool, error: KernelError, device: int
) -> XdpctlError:
    """Why the kernel refuses a root because of a member, alone or beside others."""
    member = culprit.member
    what = f"{member.name} (id {culprit.program_id})" if member.id else member.name
    if error.errno == errno.ENOENT and not error.log:
        return UnsupportedError(
            f"{what} cannot be fused",
            why="a map that its code names is gone from the kernel",
            hint="unload it and load it again",
        )
    if device and not culprit.member.devbound and _fits([culprit, _filler(frags=False)]):
        asking = [part.member.known_as for part in parts if part.member.devbound]
        return UnsupportedError(
            f"{what} cannot be fused with {', '.join(asking)}",
            why=f"{', '.join(asking)} {'asks' if len(asking) == 1 else 'ask'} the device about "
            "packets, so that the root is bound to it; this kernel keeps program arrays, and "
            "device and CPU maps, from programs that are",
            hint="--root ext, where the kernel allows it, keeps programs apart",
        )
    foreign = [part.member.name for part in parts if not (part.image.gpl or part.array_id)]
    if foreign and culprit.image.gpl and _fits([culprit], True, device):
        return UnsupportedError(
            f"{what} cannot be fused with {', '.join(foreign)}",
            why=f"it calls what the kernel keeps for GPL-compatible programs, and "
            f"{', '.join(foreign)} {'is' if len(foreign) == 1 else 'are'} not GPL-compatible: "
            "functions of one program have one licence",
            hint="--root ext, where the kernel allows it, keeps programs apart",
        )
    frags = {part.member.frags for part in parts}
    if len(frags) > 1 and _fits([culprit], _is_gpl(parts), device):
        bare = _filler(frags=False)
        if with_arrays := [
            part.member.name
            for part in parts
            if part.member.frags and not _fits([part, bare], part.image.gpl, device)
        ]:
            return UnsupportedError(
                f"the root cannot call the program arrays of {', '.join(with_arrays)}",
                why="programs that take packets of several fragments, and make tail calls or are "
                "held by a process, need a root that takes them, too; not every member does",
                hint='build all members with SEC("xdp.frags"), or none',
            )
    if alone and member.id and asm.makes_tail_calls(culprit.image.code):
        with Program.by_id(member.id) as program:
            if program.info.type == uapi.BPF_PROG_TYPE_EXT:
                return image.array_of_another_kind(what, "fused")
    from ..programs.words import reason  # regular expressions, for refusals alone

    beside = "by itself, as a function of the root" if alone else "beside the members before it"
    if len(parts) == 1 and not alone:
        beside = "as the root itself"
    return VerifierError(
        f"the verifier refused {what} in a fused root",
        why=f"it was accepted as a program of its own, but not {beside}: "
        f"{reason(error.log) or error}",
        hint="members share one million verifier steps, 64 maps and 256 functions; each has, with "
        "the root, 512 bytes of stack and 8 levels of calls, one of them the root's; -v shows the "
        "verifier's whole log",
        details=error.log,
    )


def _filler(*, frags: bool) -> Part:
    """A second slot: without it a lone program would be the root itself."""
    return Part(Member("nothing", frags=frags), 0, Image(asm.PASS, frags, gpl=True))


def _fits(parts: Sequence[Part], gpl: bool | None = None, device: int = 0) -> bool:
    try:
        _load(parts, gpl, device=device, in_line=False).close()
    except KernelError:
        return False
    return True


def _culprit(
    parts: Sequence[Part], error: KernelError, device: int, fitting_alone: set[int]
) -> tuple[Part, bool, KernelError]:
    """The first member that the kernel does not take behind a root's main function.

    Alone, or else after those before it; with the refusal of that. Programs that are known to fit
    alone are not tried, and those that do are noted.
    """
    gpl = _is_gpl(parts)

    def refused(some: Sequence[Part]) -> KernelError | None:
        try:
            _load(some, gpl, device=device, in_line=False).close()
        except KernelError as refusal:
            return refusal
        return None

    for part in parts:
        if part.program_id in fitting_alone:
            continue
        if refusal := refused([part, _filler(frags=part.member.frags)]):
            return part, True, refusal
        fitting_alone.add(part.program_id)
    fitting, failing = 1, len(parts)
    while failing - fitting > 1:
        middle = (fitting + failing) // 2
        refusal = refused(parts[:middle])
        if refusal is None:
            fitting = middle
        else:
            failing, error = middle, refusal
    return parts[failing - 1], False, error
