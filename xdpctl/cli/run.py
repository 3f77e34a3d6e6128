"""A command line is run to its end: errors become lines and exit codes."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys

import click

from ..errors import (
    Interrupted,
    KernelError,
    NotFoundError,
    OutputError,
    UsageError,
    XdpctlError,
    explained,
)
from ..host import interfaces, output, signals
from ..view import document, words
from .group import NoCommandError, cli
from .settings import Settings


def run(arguments: list[str] | None = None, settings: Settings | None = None) -> int:
    """Run a command line; returns its exit code, with errors printed."""
    settings = settings or Settings()
    # Known from the start, so that an error in the words before it comes as JSON too.
    words = sys.argv[1:] if arguments is None else arguments
    options = words[: words.index("--")] if "--" in words else words
    settings.json = "--json" in options or "-j" in options
    if "_XDPCTL_COMPLETE" in os.environ:
        from . import shells  # noqa: F401 - click finds it by its name
    try:
        with signals.handled(last=settings.ends):
            return _run(arguments, settings)
    except (Interrupted, KeyboardInterrupt) as error:
        return report(
            error if isinstance(error, Interrupted) else Interrupted(signal.SIGINT), settings
        )
    finally:
        interfaces.forget_home()


def _run(arguments: list[str] | None, settings: Settings) -> int:
    try:
        code = cli.main(arguments, prog_name=settings.program, standalone_mode=False, obj=settings)
        sys.stdout.flush()
    except Interrupted:
        raise
    except XdpctlError as error:
        if isinstance(error, UsageError | NotFoundError):
            from . import meant

            meant.add_dash(error, sys.argv[1:] if arguments is None else arguments, cli)
        return report(error, settings)
    except NoCommandError as error:
        output.say(str(error), err=True)
        return UsageError.exit_code
    except click.ClickException as error:
        from . import meant

        hint = meant.of_click(error, sys.argv[1:] if arguments is None else arguments)
        return report(UsageError(error.format_message(), hint=hint), settings)
    except click.Abort:
        raise Interrupted(signal.SIGINT) from None
    except KernelError as error:
        return report(error.explained(), settings)
    except OSError as error:
        return report(explained(error), settings)
    except ImportError as error:
        return report(XdpctlError("a module cannot be loaded", why=str(error)), settings)
    except MemoryError:
        return report(explained(OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))), settings)
    return int(code or 0)


def told_of(error: OutputError, settings: Settings) -> int:
    """How a command ends that could not tell what it did."""
    if error.number == errno.EPIPE and not signals.is_live():
        return XdpctlError.exit_code  # who read it has seen enough
    output.say(f"{settings.program}: {error.what}", err=True)
    return settings.ended_by(error)


def report(error: XdpctlError, settings: Settings) -> int:
    if isinstance(error, OutputError):
        return told_of(error, settings)
    if settings.verbose > 1:
        import traceback

        output.say("".join(traceback.format_exception(error)).rstrip("\n"), err=True)
    output.say(f"{settings.program}: {words.error_text(error, settings)}", err=True)
    if settings.json:
        with contextlib.suppress(OutputError):  # the error itself says more
            document.show_error(error)
            sys.stdout.flush()
    return settings.ended_by(error)
