"""xdpctl trace."""

from __future__ import annotations

import contextlib
import itertools
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO

import click

from ... import __version__
from ...errors import Interrupted, UsageError, XdpctlError
from ...host import output, rights
from ...host.interfaces import Interface, is_several
from ...model import chain
from ...traffic import pcapng
from ...view import packets as views
from .. import complete, offered
from ..numbers import Count, Number
from ..settings import Settings, common_options

if TYPE_CHECKING:
    from ...traffic.trace import TracedPacket


@click.command("trace")
@click.argument("interface", shell_complete=complete.interfaces)
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
      xdpctl trace eth0 -w trace.pcapng
    """
    from ...traffic.trace import Trace
    from ...traffic.trace_code import ALL, Wanted

    if settings.dry_run:
        raise UsageError("trace changes nothing", hint="leave --dry-run out")
    if settings.json and write:
        raise UsageError("--json and -w are two forms of output", hint="leave one out")
    if is_several(interface):
        raise UsageError("trace follows one interface", hint="name it; monitor takes several")
    bpffs = settings.enter()
    rights.require()
    bpffs.check_safe()
    found = Interface.named(interface)
    verdicts = ALL if verdict is None else chain.parse_actions(verdict)
    trace = Trace(bpffs, found, Wanted(verdicts, sample, snap))
    shown = 0

    def limited() -> Iterator[TracedPacket]:
        nonlocal shown
        for packet in itertools.islice(packets, count):
            yield packet
            shown += 1

    out: list[BinaryIO] = []
    with contextlib.ExitStack() as closing, contextlib.suppress(Interrupted):

        def begin() -> None:
            # Only now: a trace that is refused leaves a file that is there as it was.
            if write:
                out.append(closing.enter_context(_opened(write)))
                out[0].write(pcapng.head(f"xdpctl {__version__}", found.name, snap))
                out[0].flush()

        packets = closing.enter_context(contextlib.closing(trace.packets(begin)))
        for packet in limited():
            if write:
                _write(out[0], packet)
            else:
                views.packet(packet, settings)
    if not settings.quiet and (write or trace.lost):
        lost = f", {trace.lost} more were lost: the buffer had no room" if trace.lost else ""
        output.say(f"xdpctl: {shown} packets{lost}", err=True)


def _opened(path: str) -> contextlib.AbstractContextManager[BinaryIO]:
    if path == "-":
        return contextlib.nullcontext(sys.stdout.buffer)
    try:
        return open(path, "wb")
    except OSError as error:
        raise XdpctlError(f"cannot write {path}", why=str(error.strerror)) from error


def _write(file: BinaryIO, one: TracedPacket) -> None:
    block = pcapng.packet(one.time, one.data, one.length, views.comment(one), one.verdict)
    file.write(block)
    file.flush()
