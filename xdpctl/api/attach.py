"""Adding a program to a chain from Python."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from ..bpffs.mount import Bpffs
from ..change.transact import transact
from ..errors import UsageError
from ..host import locks
from ..host.interfaces import Interface
from ..model import chain, labels
from ..model.kinds import TRAITS, AskedKind
from ..model.request import AskedMode, Request
from ..model.source import Source, Tail, Tuning
from ..model.state import State
from ..model.terms import Terms
from ..programs import bcc as dialect
from ..programs import given, objects
from ..programs.bcc import BPF
from ..programs.clang import Build
from .attachment import ArrayAttachment, Attachment


def attach(
    source: str | os.PathLike[str] | bytes | BPF,
    interface: str,
    *,
    program: str | None = None,
    section: str | None = None,
    priority: int | None = None,
    actions: Iterable[str] | None = None,
    mode: AskedMode | None = None,
    attach: labels.Attach | None = None,
    root: AskedKind | None = None,
    bpffs: str | None = None,
    lock_timeout: float = locks.DEFAULT_TIMEOUT,
    flags: Iterable[str] = (),
    bcc: bool | None = None,
    constants: Mapping[str, int | str] | None = None,
    entries: Mapping[str, int] | None = None,
    tail: Mapping[str, str] | None = None,
    verify_key: str | os.PathLike[str] | Iterable[str | os.PathLike[str]] = (),
) -> Attachment:
    """Add an XDP program to an interface's chain, for as long as this process holds it.

    `source` is the path of an object file or a C source, an image in a registry, the bytes of an
    object, or a `bcc.BPF`, whose tables are then those of the program in the chain. `program`, a
    function's name, or `section` name one of several in it. A C source is compiled with `flags`,
    such as ``["-DLIMIT=5"]``, by BCC if it is in that dialect or `bcc` says so. Before it is loaded
    global variables get the values of `constants` and maps the numbers of `entries`; `tail`, such
    as ``{"jumps[1]": "dropper"}``, puts programs of it into its program arrays. If there is a
    `verify_key`, it has to be signed by that, or by one of several. `priority` and `actions`, such
    as ``["XDP_PASS", "XDP_TX"]``, go before what the object says. `mode` and `attach` are for a
    first program, `root` is the kind of root (default: what is there, else XDPCTL_ROOT or "auto").
    `bpffs` defaults to LIBXDP_BPFFS or /sys/fs/bpf; `lock_timeout` is in seconds. Raises any
    XdpctlError (xdpctl.errors); the interface then runs what it ran before.
    """
    pinned = Bpffs.chosen(bpffs, locks.Patience(lock_timeout))
    found = Interface.named(interface)
    mask = None if actions is None else chain.parse_actions(",".join(actions) or "none")
    build = Build(tuple(flags), bcc)
    values = tuple((name, _word(value)) for name, value in (constants or {}).items())
    tails = tuple(Tail.at(where, name) for where, name in (tail or {}).items())
    tuning = Tuning(values, tuple((entries or {}).items()), tails).checked()
    named = [verify_key] if isinstance(verify_key, str | os.PathLike) else verify_key
    keys = [os.fspath(one) for one in named]
    member = _member(source, program, section, priority, mask, pinned.path, build, tuning, keys)

    def target(state: State) -> chain.Chain:
        return state.chain.with_added([replace(member, held=True)])

    request = Request(mode=mode, attach=attach, kind=root, terms=Terms("attach"))
    with objects.letting_go([member]):
        report = transact(pinned, found, target, request)
    ((program_id, what),) = report.holds.items()
    held = ArrayAttachment if TRAITS[report.plan.kind].holding == "array" else Attachment
    attachment = held(pinned, found, program_id, what)
    if dialect.is_module(source):
        dialect.keep(source, interface, attachment)
    return attachment


def _member(
    source: str | os.PathLike[str] | bytes | BPF,
    program: str | None,
    section: str | None,
    priority: int | None,
    actions: int | None,
    pin_path: str,
    build: Build,
    tuning: Tuning,
    keys: Sequence[str],
) -> chain.Member:
    if dialect.is_module(source):
        if any(tuning):
            raise UsageError("nothing of a bcc.BPF can be set", why="it is compiled already")
        if section is not None:
            raise UsageError("a bcc.BPF has no sections", hint="name a function: program=")
        given.check_module(keys)
        name, code = dialect.of_module(source, program)
        found = Source("<bcc.BPF>", b"", name, image=code, vetted=True)
        return objects.of_image(found, priority, actions)
    if isinstance(source, bytes):
        path, data = "<bytes>", source
    elif isinstance(source, str | os.PathLike):
        path, data = os.fspath(source), None
    else:
        raise TypeError(f"a {type(source).__name__} is no source of a program")
    build.check_used([path])
    return objects.member(
        path,
        data,
        section=section,
        program=program,
        priority=priority,
        actions=actions,
        pin_path=pin_path,
        build=build,
        tuning=tuning,
        keys=keys,
    )


def _word(value: int | str) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
