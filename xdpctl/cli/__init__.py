"""The command line. A command parses, calls and renders; it decides nothing about the kernel."""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import signal
import sys

import click

from ..errors import Interrupted, KernelError, OutputError, UsageError, XdpctlError, explained
from ..host import output, signals
from ..view import document, words
from .settings import Settings, common_options

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
    """Run a command line and end the process with its code (xdpctl(8), EXIT STATUS)."""
    with output.prepared() as streams:
        code = _main(arguments)
        if error := output.untold(streams):
            code = code or _told_of(error, Settings())
    sys.exit(code)


def _main(arguments: list[str] | None) -> int:
    if arguments is None and os.path.basename(sys.argv[0]) == "xdp-loader":
        from . import xdp_loader

        return xdp_loader.run(sys.argv[1:], ends=True)
    settings = Settings()
    settings.ends = True
    return run(arguments, settings)


def run(arguments: list[str] | None = None, settings: Settings | None = None) -> int:
    """Run a command line; returns its exit code, with errors printed."""
    settings = settings or Settings()
    # Known from the start, so that an error in the words before it comes as JSON too.
    settings.json = "--json" in (sys.argv[1:] if arguments is None else arguments)
    try:
        with signals.handled(last=settings.ends):
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
        output.say(str(error), err=True)
        return UsageError.exit_code
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        hint = f"see {context.command_path} --help" if context else ""
        return _report(UsageError(error.format_message(), hint=hint), settings)
    except click.Abort:
        raise Interrupted(signal.SIGINT) from None
    except KernelError as error:
        return _report(error.explained(), settings)
    except OSError as error:
        return _report(explained(error), settings)
    except ImportError as error:
        return _report(XdpctlError("a module cannot be loaded", why=str(error)), settings)
    except MemoryError:
        return _report(explained(OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))), settings)
    return int(code or 0)


def _told_of(error: OutputError, settings: Settings) -> int:
    """How a command ends that could not tell what it did."""
    if error.number == errno.EPIPE and not signals.is_live():
        return XdpctlError.exit_code  # who read it has seen enough
    output.say(f"{settings.program}: {error.what}", err=True)
    return settings.ended_by(error)


def _report(error: XdpctlError, settings: Settings) -> int:
    if isinstance(error, OutputError):
        return _told_of(error, settings)
    if settings.verbose > 1:
        import traceback

        output.say("".join(traceback.format_exception(error)).rstrip("\n"), err=True)
    output.say(f"{settings.program}: {words.error_text(error, settings)}", err=True)
    if settings.json:
        with contextlib.suppress(OutputError):  # the error itself says more
            document.show_error(error)
            sys.stdout.flush()
    return settings.ended_by(error)
