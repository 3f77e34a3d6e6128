"""xdpctl test."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from ...errors import UsageError, meant
from ...traffic import frames, pcap
from ...traffic.pcap import Packet
from .. import complete
from ..group import COMMANDS
from ..options import ChangingCommand, TrialOptions
from ..parts import leading
from ..settings import Settings, common_options

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

_ASKED = f"{__name__}.asked"

MOST_PACKETS, MOST_BYTES = 1_000_000, 256 << 20
"""What a trial keeps: of each packet itself, and what became of it on both chains."""


def _asked(context: click.Context) -> TrialOptions:
    """What the options of a trial say, wherever they stand in the command line."""
    asked = context.meta.setdefault(_ASKED, TrialOptions())
    assert isinstance(asked, TrialOptions)
    return asked


def _packets(
    context: click.Context, parameter: click.Parameter, value: Sequence[str] | bool
) -> None:
    """Take packets from where an option says, each time that it stands there."""
    packets = _asked(context).packets
    _asked(context).given |= bool(value)
    if isinstance(value, bool):  # --builtin
        packets += frames.builtin() if value else []
        return
    for text in value:
        if parameter.name == "packet":
            packets.append(frames.from_hex(text, len(packets) + 1))
        else:
            _keep(packets, text)


def _keep(packets: list[Packet], path: str) -> None:
    """All packets of a file, as what is shown of them names each. Raises UsageError."""
    size = sum(len(one.data) for one in packets)
    for one in pcap.packets(path, or_input=True):
        packets.append(one)
        size += len(one.data)
        if len(packets) > MOST_PACKETS or size > MOST_BYTES:
            raise UsageError(
                f"{path} has too many packets for a trial",
                why=f"it keeps all of them, of at most {MOST_PACKETS} and {MOST_BYTES >> 20} MiB",
                hint="take a part of it: tcpdump -r FILE -c COUNT -w PART; --must-pass takes any "
                "number",
            )


def _out(context: click.Context, _parameter: click.Parameter, value: str | None) -> None:
    _asked(context).out = value or _asked(context).out


def _live_maps(context: click.Context, _parameter: click.Parameter, value: bool) -> None:
    _asked(context).live_maps |= value


def _options() -> list[click.Option]:
    """Those of a trial, which stand before the interface or among those of the command tried."""
    return [
        click.Option(
            ["--pcap"],
            metavar="FILE",
            multiple=True,
            callback=_packets,
            expose_value=False,
            type=click.Path(readable=False),
            help="Try the packets of this pcap or pcapng file.",
        ),
        click.Option(
            ["--packet"],
            metavar="HEX",
            multiple=True,
            callback=_packets,
            expose_value=False,
            help="Try this packet, from the Ethernet header on.",
        ),
        click.Option(
            ["--builtin"],
            is_flag=True,
            callback=_packets,
            expose_value=False,
            help="Try some usual packets. They are also tried if no others are given.",
        ),
        click.Option(
            ["--out"],
            metavar="DIR",
            callback=_out,
            expose_value=False,
            type=click.Path(file_okay=False),
            help="Write the packets, as the chain leaves them, to a pcap file for each verdict.",
        ),
        click.Option(
            ["--live-maps"],
            is_flag=True,
            callback=_live_maps,
            expose_value=False,
            help="Let the programs work on the maps that are in use, not on copies.",
        ),
    ]


class _TestCommand(click.Command):
    """Takes its options in front of the interface and of the command; completes what is tried."""

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        try:
            args = self._in_front(context, args)
        except click.ClickException:
            if not context.resilient_parsing:  # a word that is being completed may be anything
                raise
        return super().parse_args(context, args)

    def _in_front(self, context: click.Context, args: list[str]) -> list[str]:
        """The words with all of its own options in front."""
        options, places, rest, ended = list[str](), list[str](), args, False
        while rest and len(places) < 2:
            if not ended:
                front = leading(self, context, rest)
                options, rest, ended = [*options, *front.words], front.rest, front.ended
            places, rest = [*places, *rest[:1]], rest[1:]
        return [*options, "--", *places, *rest]

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        if ctx.params.get("verb"):
            return _completed(ctx, incomplete)
        return super().shell_complete(ctx, incomplete)


def _verbs(context: click.Context, _parameter: click.Parameter, start: str) -> list[str]:
    group = context.find_root().command
    return [name for name in _names(group) if name.startswith(start)]


def _words(context: click.Context, _parameter: click.Parameter, start: str) -> list[CompletionItem]:
    return _completed(context, start)


def _completed(context: click.Context, start: str) -> list[CompletionItem]:
    """What may follow in the command line that is tried."""
    from click.shell_completion import ShellComplete

    given = context.params
    try:
        inner = _tried(context, given["verb"])
    except (UsageError, click.ClickException):
        return []
    words = [given["interface"], *given["words"]]
    settings = {"parent": context, "obj": context.obj}
    return ShellComplete(inner, settings, given["verb"], "").get_completions(words, start)


@click.command("test", cls=_TestCommand, context_settings={"allow_interspersed_args": False})
@click.argument("interface", metavar="INTERFACE|PATTERN", shell_complete=complete.interfaces)
@click.argument("verb", metavar="COMMAND", shell_complete=_verbs)
@click.argument(
    "words",
    nargs=-1,
    type=click.UNPROCESSED,
    metavar="[ARGUMENT]...",
    shell_complete=_words,
)
@common_options()
@click.pass_context
def command(context: click.Context, interface: str, verb: str, words: tuple[str, ...]) -> None:
    """Try on packets what a command would make of the chain; change nothing.

    COMMAND is one that changes chains, such as load or unload, with its arguments except the
    interface. The new chain is built, attached to nothing, and run on each packet, on copies of the
    programs' maps. The result tells who decides, what changes in a packet, and which packets would
    fare differently than now.

    \b
    Examples:
      xdpctl test eth0 load new.o
      xdpctl test eth0 replace firewall firewall-2.o --pcap trace.pcap
      xdpctl test eth0 unload -n firewall --builtin
    """
    settings = context.ensure_object(Settings)
    asked = _asked(context)
    if interface in COMMANDS:
        from ..meant import command_first

        command_first(interface, verb, words, list(COMMANDS))
    inner = _tried(context, verb)
    settings.dry_run = True  # whatever the command does beside its change
    inner.trial = asked
    # Its packets come last, so that those are the built-in ones if there are no others.
    with inner.make_context(verb, [interface, *words], parent=context) as within:
        if not asked.given:
            asked.packets += frames.builtin()
        inner.invoke(within)


command.params += _options()


def _tried(context: click.Context, verb: str) -> ChangingCommand:
    """A command that changes chains, with the options of a trial besides its own."""
    group = context.parent.command if context.parent else None
    found = group.get_command(context, verb) if isinstance(group, click.Group) else None
    if not isinstance(found, ChangingCommand):
        raise UsageError(
            f"{verb} is no command that can be tried",
            why="it stands behind the interface, and has to be one that changes a chain",
            hint=f"xdpctl test INTERFACE load {verb}"
            if os.path.isfile(verb)
            else f"{meant(verb, _names(group))} {', '.join(_names(group))}: xdpctl test INTERFACE "
            "COMMAND [ARGUMENT]...".lstrip(),
        )
    inner = copy.copy(found)
    inner.params = [*found.params, *_options()]
    return inner


def _names(group: click.Command | None) -> list[str]:
    """The commands that can be tried."""
    assert isinstance(group, click.Group)
    commands = [group.get_command(click.Context(group), name) for name in COMMANDS]
    return [one.name or "" for one in commands if isinstance(one, ChangingCommand)]
