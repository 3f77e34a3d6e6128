"""The command line. A command parses, calls and renders; it decides nothing about the kernel."""

from __future__ import annotations

import importlib
import io
import os
import signal
import sys

import click

from ..errors import Interrupted, KernelError, UsageError, XdpctlError, explained
from ..host import signals
from ..view import document, words
from .common import Settings, common_options

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


class _NoCommandError(Exception):
    """A command line without any word; the error's text is the help."""


class _Commands(click.Group):
    """Commands found by name or by a unique prefix, as xdp-loader does."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        # click 8.1 prints the help and ends with 0, 8.2 and later raise an error of their own.
        if not args and not ctx.resilient_parsing:
            raise _NoCommandError(ctx.get_help())
        return super().parse_args(ctx, args)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        matches = [name] if name in COMMANDS else [c for c in COMMANDS if c.startswith(name)]
        if len(matches) > 1:
            matches = [c for c in matches if c in _LOADER] or matches
        if len(matches) > 1:
            ctx.fail(f"{name} may mean {' or '.join(sorted(matches))}")
        if not matches:
            return None
        module = importlib.import_module(f".commands.{COMMANDS[matches[0]]}", __name__)
        command: click.Command = module.command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        _name, command, rest = super().resolve_command(ctx, args)
        return command.name if command else None, command, rest


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


def main(arguments: list[str] | None = None) -> None:
    """Run a command line and exit with its code (xdpctl(8), EXIT STATUS)."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # File names need not be text, and what was done has to be said all the same.
            stream.reconfigure(errors="backslashreplace")
    if arguments is None and os.path.basename(sys.argv[0]) == "xdp-loader":
        from . import xdp_loader

        sys.exit(xdp_loader.run(sys.argv[1:]))
    sys.exit(run(arguments))


def run(arguments: list[str] | None = None, settings: Settings | None = None) -> int:
    """Run a command line; returns its exit code, with errors printed."""
    settings = settings or Settings()
    # Known from the start, so that an error in the words before it comes as JSON too.
    settings.json = "--json" in (sys.argv[1:] if arguments is None else arguments)
    try:
        with signals.handled():
            return _run(arguments, settings)
    except (Interrupted, KeyboardInterrupt) as error:
        return _report(
            error if isinstance(error, Interrupted) else Interrupted(signal.SIGINT), settings
        )


def _run(arguments: list[str] | None, settings: Settings) -> int:
    try:
        code = cli.main(arguments, prog_name=settings.program, standalone_mode=False, obj=settings)
        sys.stdout.flush()
    except Interrupted:
        raise
    except XdpctlError as error:
        return _report(error, settings)
    except _NoCommandError as error:
        click.echo(str(error), err=True)
        return UsageError.exit_code
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        hint = f"see {context.command_path} --help" if context else ""
        return _report(UsageError(error.format_message(), hint=hint), settings)
    except click.Abort:
        raise Interrupted(signal.SIGINT) from None
    except KernelError as error:
        return _report(error.explained(), settings)
    except BrokenPipeError:
        _drop_output()  # who read it has gone
        return XdpctlError.exit_code
    except OSError as error:
        _drop_output()
        return _report(explained(error), settings)
    return int(code or 0)


def _drop_output() -> None:
    """Keep the interpreter from failing once more, at its end, on output that cannot be written."""
    try:
        sys.stdout.flush()
    except OSError:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - open as long as the process


def _report(error: XdpctlError, settings: Settings) -> int:
    if settings.verbose > 1:
        import traceback

        traceback.print_exception(error)
    click.echo(f"{settings.program}: {words.error_text(error, settings)}", err=True)
    if settings.json:
        document.show_error(error)
    return settings.ended_by(error)
