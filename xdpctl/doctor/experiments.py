"""Experiments with the calls that a load makes, in answer to what this kernel can do.

Nothing is left behind. A program is loaded and closed; roots are attached in a network namespace
that a forked child has to itself, never to an interface of the user's; a pin is made and removed.
The compiled dispatcher alone stays, in the cache that every load uses.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Callable
from typing import NamedTuple

from ..errors import XdpctlError
from ..host.child import forked
from ..host.text import Json
from ..kernel import asm, libc, netlink, uapi, xdp
from ..kernel.link import Link
from ..kernel.program import Program
from ..model.chain import Member
from ..model.source import Image
from ..roots import dispatcher, fused
from ..roots.fused_code import Part

NAME = "xdpctl_doctor"
_LARGE_MTU = 9000
_DEADLINE = 20.0


class Experiment(NamedTuple):
    """How an experiment went; the errno is 0 where the refusal was not the kernel's."""

    refusal: str = ""
    errno: int = 0
    tried: bool = True

    @property
    def works(self) -> bool:
        return self.tried and not self.refusal


NOT_TRIED = Experiment(tried=False)


def tried(work: Callable[[], object]) -> Experiment:
    """Run an experiment that raises where something is refused."""
    try:
        work()
    except XdpctlError as error:
        return Experiment(": ".join(filter(None, (error.what, error.why.split("\n")[0]))))
    except OSError as error:
        return Experiment(str(error), error.errno or errno.EIO)
    return Experiment()


def load(frags: bool = False) -> Program:
    """A plain XDP program, with nothing that an old kernel could lack."""
    return Program.plain(NAME, frags=frags)


def ext() -> Experiment:
    """Whether an EXT program is taken, and if not, why."""
    refused = 0

    def probe() -> None:
        nonlocal refused
        refused = dispatcher.refused()

    found = tried(probe)
    if refused:
        name = errno.errorcode.get(refused, str(refused))
        return Experiment(f"{os.strerror(refused)} ({name})", refused)
    return found


def fuse() -> None:
    """Load a fused root of two programs; raises what `fused.build` does."""
    code = Image(asm.PASS, frags=False, gpl=True)
    parts = [Part(Member(f"probe{number}"), 0, code) for number in range(2)]
    root, _info = fused.build(parts, 0)
    root.close()


def pin_and_remove(program: Program, path: str) -> None:
    """In a directory of its own in a bpffs; raises OSError where that takes nothing."""
    directory = f"{path}/{NAME}-{os.getpid()}"
    os.mkdir(directory, 0o700)
    try:
        program.pin(f"{directory}/program")
        os.unlink(f"{directory}/program")
    finally:
        os.rmdir(directory)


# --- in a network namespace of its own ----------------------------------------------------------


class Attached(NamedTuple):
    """What came of attaching roots to `device`: a veth, or where there is none lo."""

    device: str = ""
    link: Experiment = NOT_TRIED
    netlink: Experiment = NOT_TRIED
    generic: Experiment = NOT_TRIED
    frags: Experiment = NOT_TRIED


def in_namespace(frags: bool) -> Attached:
    """Attach, exchange and detach roots in a forked child, with whose end all of it goes."""
    import select

    import pyroute2  # noqa: F401 - once, before the fork

    reading, writing = os.pipe()

    def work() -> None:
        try:
            told = _attach_all(frags)
        except BaseException as error:
            told = {"problem": str(error)}
        os.write(writing, json.dumps(told).encode())

    pid = forked(work)
    os.close(writing)
    answer = b""
    try:
        while select.select([reading], [], [], _DEADLINE)[0] and (chunk := os.read(reading, 65536)):
            answer += chunk
    finally:
        os.close(reading)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, 9)  # it has answered, or never will
        os.waitpid(pid, 0)
    return attached(answer)


def attached(answer: bytes) -> Attached:
    """From what the child wrote; one that gave no answer tried nothing."""
    try:
        message = json.loads(answer)
    except ValueError:
        return Attached()
    if "problem" in message:
        why = Experiment(f"cannot try: {message['problem']}", tried=False)
        return Attached("", why, why, why, why)
    device = message.pop("device")
    return Attached(device, **{name: Experiment(*values) for name, values in message.items()})


def _attach_all(frags: bool) -> Json:
    libc.unshare(libc.CLONE_NEWNET)
    with contextlib.ExitStack() as closing:
        one, other = (closing.enter_context(load()) for _ in range(2))
        route = closing.enter_context(netlink.route())
        trials = {}
        try:
            route.link("add", ifname="doctor0", kind="veth", peer="doctor1")
            device, mode = "doctor0", uapi.XDP_FLAGS_DRV_MODE
        except Exception:  # no veth in this kernel: generic mode is all there is to try
            device, mode = "lo", uapi.XDP_FLAGS_SKB_MODE
        (number,) = route.link_lookup(ifname=device)
        skb = uapi.XDP_FLAGS_SKB_MODE
        trials["link"] = tried(lambda: _by_link(number, one, other, mode))
        trials["netlink"] = tried(lambda: _by_netlink(number, one, other, mode))
        trials["generic"] = tried(lambda: _by_netlink(number, one, other, skb))
        if frags and device != "lo":
            # veth counts the other end's packets.
            route.link("set", index=route.link_lookup(ifname="doctor1")[0], mtu=_LARGE_MTU)
            large = closing.enter_context(load(frags=True))
            trials["frags"] = tried(lambda: _by_netlink(number, large, large, mode))
        if device != "lo":
            route.link("del", index=number)
    return {"device": "veth" if device != "lo" else "lo", **trials}


def _by_link(number: int, one: Program, other: Program, mode: int) -> None:
    with Link.xdp(one, number, mode) as link:
        link.update(other, one)


def _by_netlink(number: int, one: Program, other: Program, mode: int) -> None:
    xdp.attach(number, one, mode)
    try:
        xdp.attach(number, other, mode, one)
    finally:
        xdp.detach(number, mode, other)
