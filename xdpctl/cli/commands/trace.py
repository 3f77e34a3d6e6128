"""xdpctl trace."""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, BinaryIO, Self

import click

from ... import __version__
from ...bpffs.mount import Bpffs
from ...errors import Interrupted, NotFoundError, UsageError, XdpctlError
from ...host import output, rights
from ...host.interfaces import Interface, is_pattern, is_several
from ...model import chain
from ...observe.reading import observe
from ...traffic import pcapng
from ...view import packets as views
from .. import complete, offered
from ..numbers import Count, Number
from ..settings import Settings, common_options

if TYPE_CHECKING:
    from ...traffic.trace import TracedPacket


@click.command("trace")
@click.argument("interface", metavar="INTERFACE|PATTERN", shell_complete=complete.interfaces)
@click.option(
    "--verdict",
    metavar="ACTION,...",
    shell_complete=offered.verdicts,
    help="Show only packets that left the chain with one of these verdicts.",
)
@click.option("-c", "--count", metavar="COUNT", type=Count(), help="End after so many packets.")
@click.option(
    "-w",
    "--write",
    metavar="FILE",
    shell_complete=offered.files,
    help="Write the packets to a pcapng file; - is standard output.",
)
@click.option(
    "--sample",
    metavar="N",
    type=Number(1, 1 << 30),
    default=1,
    help="Show one packet out of so many [1].",
)
@click.option(
    "--snap",
    metavar="BYTES",
    type=Number(14, 16384),
    default=256,
    show_default=True,
    help="Keep this much of each packet, 14 to 16384 bytes.",
)
@common_options()
@click.pass_obj
def command(
    settings: Settings,
    interface: str,
    verdict: str | None,
    count: int | None,
    write: str | None,
    sample: int,
    snap: int,
) -> None:
    """Show live packets with their path through the chain, until a signal ends it.

    A packet is shown as it leaves the chain, with what every program answered and who had the last
    word. The programs are traced meanwhile, which costs time for each packet.

    \b
    Examples:
      xdpctl trace eth0 --verdict drop -c 10
      xdpctl trace eth0,br0
      xdpctl trace eth0 -w trace.pcapng
    """
    from ...traffic.trace import Trace, packets
    from ...traffic.trace_code import ALL, Wanted

    if settings.dry_run:
        raise UsageError("trace changes nothing", hint="leave --dry-run out")
    if settings.json and write:
        raise UsageError("--json and -w are two forms of output", hint="leave one out")
    bpffs = settings.enter()
    rights.require()
    bpffs.check_safe()
    found = _running(bpffs, interface)
    verdicts = ALL if verdict is None else chain.parse_actions(verdict)
    traces = [Trace(bpffs, one, Wanted(verdicts, sample, snap)) for one in found]
    several = is_several(interface)
    shown = 0

    def limited() -> Iterator[TracedPacket]:
        nonlocal shown
        for packet in itertools.islice(coming, count):
            yield packet
            shown += 1

    out: list[_File] = []
    with contextlib.ExitStack() as closing, contextlib.suppress(Interrupted):

        def begin() -> None:
            # Only now: a trace that is refused leaves a file that is there as it was.
            if write:
                names = [one.name for one in found]
                out.append(closing.enter_context(_File(write, names, snap)))

        ended = _told if several and not settings.quiet else _untold
        coming = closing.enter_context(contextlib.closing(packets(traces, begin, ended)))
        for packet in limited():
            if write:
                out[0].put(packet)
            else:
                views.packet(packet, settings, several=several)
    lost = sum(one.lost for one in traces)
    if not settings.quiet and (write or lost):
        also = f", {lost} more were lost: the buffer had no room" if lost else ""
        output.say(f"xdpctl: {shown} packets{also}", err=True)


def _running(bpffs: Bpffs, interface: str) -> list[Interface]:
    """The interfaces that are meant; of those that a pattern matches, the ones with a chain."""
    found = Interface.matching(interface)
    if not is_pattern(interface):
        return found
    from ...traffic.trace import has_chain

    running = [one for one in found if has_chain(observe(one, bpffs))]
    if not running:
        raise NotFoundError(
            f"no chain runs on an interface that matches {interface}", hint="see xdpctl status"
        )
    return running


def _told(error: XdpctlError) -> None:
    output.say(f"xdpctl: {error.what}; the others are traced on", err=True)


def _untold(_error: XdpctlError) -> None:
    """With -q."""


class _File:
    """A pcapng file, or standard output, with a head; one that cannot be begun is not made."""

    def __init__(self, path: str, interfaces: Sequence[str], snap: int) -> None:
        self._path, self._numbers = path, {name: at for at, name in enumerate(interfaces)}
        self._closing = contextlib.ExitStack()
        made = path != "-" and not os.path.lexists(path)
        self._file: BinaryIO
        with self._failing():
            if path == "-":
                self._file = sys.stdout.buffer
            else:
                self._file = self._closing.enter_context(open(path, "wb"))  # noqa: SIM115
        try:
            self._put(pcapng.head(f"xdpctl {__version__}", interfaces, snap))
        except BaseException:
            with contextlib.suppress(OSError):
                self._closing.close()
            if made:
                with contextlib.suppress(OSError):
                    os.unlink(path)
            raise

    def put(self, one: TracedPacket) -> None:
        """Write a packet. Raises XdpctlError."""
        number, comment = self._numbers[one.interface], views.comment(one)
        self._put(pcapng.packet(number, one.time, one.data, one.length, comment, one.verdict))

    def _put(self, block: bytes) -> None:
        with self._failing():
            self._file.write(block)
            self._file.flush()

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            why = os.strerror(error.errno or 0)
            raise XdpctlError(f"cannot write {self._path}", why=why) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        with contextlib.suppress(OSError):  # it was told when it could not be written
            self._closing.close()
