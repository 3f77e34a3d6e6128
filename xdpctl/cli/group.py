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
    "stats": "stats",
    "trace": "trace",
    "monitor": "monitor",
    "swap-dispatcher": "swap",
    "test": "test",
    "clean": "clean",
    "watch": "watch",
    "features": "features",
    "doctor": "doctor",
    "help": "help",
}


# xdp-loader's commands: a prefix that is unique among them means there what it means here.
_LOADER = {"load", "unload", "status", "clean", "features", "help"}


class NoCommandError(Exception):
    """A command line without any word; the error's text is the help."""


class _Commands(click.Group):
    """Commands found by name or by a unique prefix, as xdp-loader does."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

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
)
@common_options(changes=True)
def cli() -> None:
    """Run several XDP programs on one network interface.

    A small dispatcher owns the interface's XDP hook and calls the programs in order. Changing them
    builds a second dispatcher beside the first and flips to it in one atomic step: no packet ever
    misses a program that stays.
    """
