"""Which program of an object is meant, and what an image says of its object."""

from __future__ import annotations

import errno

from ..errors import BadObjectError, NotFoundError, UsageError, listed, meant
from ..kernel import uapi
from ..supply.reference import Labels
from ..value import Value
from .tails import FOREIGN

NO_SECTION = ".text"
"""Where a compiler puts functions that are given no section."""


class Candidate(Value):
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


class Looked(Value):
    """What is in an object: programs, whether maps ask to be pinned, and their kinds by name.

    `plain` are the functions that have no section of their own, if no program has one. Some
    releases of libbpf take the only one of these for a program.
    """

    programs: list[Candidate]
    pins: bool
    maps: dict[str, str]
    plain: list[str]


def may_be_meant(found: Candidate) -> bool:
    return found.is_xdp or found.type == uapi.BPF_PROG_TYPE_UNSPEC


def choose(
    path: str,
    looked: Looked,
    section: str | None,
    program: str | None,
    first_of_several: bool,
) -> Candidate:
    """The program that is meant."""
    candidates, plain = looked.programs, looked.plain
    listing = ", ".join(f"{found.name} (section {found.section})" for found in candidates)
    listing = listing or ", ".join(f"{name} (no section of its own)" for name in plain)
    if section is None and program is None:
        fitting = [found for found in candidates if found.is_xdp]
        untyped = [found for found in candidates if found.type == uapi.BPF_PROG_TYPE_UNSPEC]
        if first_of_several:
            fitting = [found for found in candidates if found in (*fitting, *untyped)]
        elif not fitting and len(untyped) == 1 and not plain:
            fitting = untyped  # its section tells libbpf nothing, and it is all that can be meant
        if not fitting:
            raise BadObjectError(
                f"no XDP program in {path}",
                why=f"it has {listing}" if listing else "it has no program at all",
                hint=f'{plain[0]} has no section of its own: write SEC("xdp") before it'
                if plain
                else 'an XDP program stands in a section named "xdp" or "xdp.frags"; one of '
                "several in other sections has to be named with -n PROGRAM",
                number=errno.EINVAL if listing else errno.ENOENT,
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


# --- labels -------------------------------------------------------------------------------------


def meant_by(labels: Labels) -> str | None:
    """The program that an image is of, if its labels say one for XDP."""
    found = [name for name, kind in labels.programs.items() if kind == "xdp"]
    return found[0] if len(found) == 1 else None


def check_labels(image: str, labels: Labels, looked: Looked) -> None:
    """Raise BadObjectError if an image says of its object what is not so."""
    known = {one.name: one for one in looked.programs}
    for name, kind in labels.programs.items():
        found = known.get(name)
        if found is None or (kind == "xdp" and not may_be_meant(found)):
            why = "has no such program" if found is None else f"has it in section {found.section}"
            told = listed([f"{name} ({kind})"])
            raise _untrue(image, f"they name the program {told}, and the object {why}")
    for name in labels.maps:
        # Those of global variables are called in several ways.
        if not name.startswith(".") and name not in looked.maps:
            raise _untrue(
                image, f"they name the map {listed([name])}, and the object has none such"
            )


def _untrue(image: str, why: str) -> BadObjectError:
    return BadObjectError(
        f"the labels of {image} are not true",
        why=why,
        hint="push the image anew: xdpctl image push",
    )
