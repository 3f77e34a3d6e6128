"""The commands: found by name, each imported when it is used."""

from __future__ import annotations

import importlib

import click

from .settings import common_options

# name: module. Each is imported when its command is used.
COMMANDS = {
    "adopt": "adopt",
    "apply": "apply",
    "load": "load",
    "unload": "unload",
    "replace": "replace",
    "set": "set",
    "status": "status",
    "show": "show",
    "confirm": "confirm",
    "rollback": "rollback",
    "history": "history",
    "export": "export",
    "image": "image",
    "stats": "stats",
    "trace": "trace",
    "monitor": "monitor",
    "metrics": "metrics",
    "swap-dispatcher": "swap",
    "test": "test",
    "clean": "clean",
    "watch": "watch",
    "features": "features",
    "doctor": "doctor",
    "help": "help",
}

# What a command is for, by what people want: the help of the group and the manual have it from
# here, so that neither has to import all commands.
SECTIONS = {
    "Look": {
        "status": "show what runs on interfaces",
        "show": "draw the way of a packet through a chain",
        "features": "show what a driver can do with XDP",
        "export": "print the chain of an interface as a chain file",
        "doctor": "find out what this machine can do",
    },
    "Change": {
        "load": "add programs to a chain",
        "unload": "take programs out of a chain",
        "replace": "put new code in the place of a program",
        "set": "change order, actions, labels and rules of a chain",
        "apply": "make the chain that a file describes",
        "adopt": "make a chain of another tool's program",
    },
    "Try and undo": {
        "test": "try a change on packets, and change nothing",
        "confirm": "keep a change that would go back by itself",
        "rollback": "go back to an earlier chain",
        "history": "list the earlier chains of an interface",
    },
    "Packets": {
        "stats": "count what each program does with packets",
        "trace": "show live packets and their way through the chain",
        "monitor": "show what goes wrong with packets around XDP",
        "metrics": "print state and counts as metrics for Prometheus",
    },
    "Upkeep": {
        "swap-dispatcher": "exchange the root of a running chain",
        "clean": "remove what is left over",
        "watch": "keep chains and pins in order as things change",
        "image": "push an object to a registry",
        "help": "show the help of a command",
    },
}


def summary(name: str) -> str:
    """What a command is for, in a few words."""
    (found,) = [section[name] for section in SECTIONS.values() if name in section]
    return found


# xdp-loader's commands: a prefix that is unique among them means there what it means here.
_LOADER = {"load", "unload", "status", "clean", "features", "help"}


class NoCommandError(Exception):
    """A command line without any word; the error's text is the help."""


class _Commands(click.Group):
    """Commands found by name or by a unique prefix, as xdp-loader does."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for heading, commands in SECTIONS.items():
            with formatter.section(heading):
                formatter.write_dl(list(commands.items()), col_max=18)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        # click 8.1 prints the help and ends with 0, 8.2 and later raise an error of their own.
        if not args and not ctx.resilient_parsing:
            raise NoCommandError(ctx.get_help())
        return super().parse_args(ctx, args)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        matches = [name] if name in COMMANDS else [c for c in COMMANDS if c.startswith(name)]
        if len(matches) > 1:
            matches = [c for c in matches if c in _LOADER] or matches
        if len(matches) > 1:
            ctx.fail(f"{name} may mean {' or '.join(sorted(matches))}")
        if not matches:
            return None
        module = importlib.import_module(f".commands.{COMMANDS[matches[0]]}", __package__)
        command: click.Command = module.command
        command.short_help = summary(matches[0])
        command.epilog = (
            f"\b\nCommon options:  xdpctl help options\nThe manual:      man xdpctl-{matches[0]}"
        )
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0][:1] != "-" and not ctx.resilient_parsing:
            check_command(self, ctx, args)
        _name, command, rest = super().resolve_command(ctx, args)
        return command.name if command else None, command, rest


def check_command(group: click.Group, context: click.Context, words: list[str]) -> None:
    """Raise UsageError if the first of some words is no command."""
    if group.get_command(context, words[0]) is None:
        from . import meant

        raise meant.no_command(words[0], list(COMMANDS), words[1:])


@click.group(
    cls=_Commands,
    no_args_is_help=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    subcommand_metavar="COMMAND [ARGUMENT]...",
    epilog="""\b
A command's help:  xdpctl help COMMAND
Common options:    xdpctl help options
The manual:        man xdpctl""",
)
@common_options(changes=True)
def cli() -> None:
    """Run several XDP programs on one network interface.

    A small root program owns the interface's XDP hook and runs the others in order. To change them,
    xdpctl builds a second root and flips the interface over to it in one step. No packet misses a
    program that stays.

    \b
    Examples:
      xdpctl load eth0 count.o          add a program
      xdpctl status                     see what runs where
      xdpctl unload eth0 -n count       take it out again
    """
