"""The global options, before or after the command's name, and the way in that they describe."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from .. import __version__
from ..bpffs.mount import DEFAULT_BPFFS, Bpffs
from ..errors import NotFoundError, XdpctlError
from ..host import interfaces, locks, output, rights
from ..value import Value
from ..view.style import Style
from .numbers import Seconds
from .offered import directories, namespaces

if TYPE_CHECKING:
    from ..model.kinds import AskedKind
    from ..model.labels import Attach

Function = Callable[..., object]
Decorator = Callable[[Function], Function]


def _exit_code(error: XdpctlError) -> int:
    return error.exit_code


class Habits(Value):
    """What the name under which the program runs makes different for the commands.

    `first_attach` and `kind` are asked of a root where no option says. With `pins_maps` the maps
    that ask for it are pinned in the bpffs itself. `first_of_several` takes a file's first program,
    `most` is how many a chain may have, `asks` allows questions on a terminal. `ended_by` tells the
    exit code of an error that has been printed.
    """

    program: str = "xdpctl"
    first_attach: Attach | None = None
    kind: AskedKind | None = None
    pins_maps: bool = True
    first_of_several: bool = False
    most: int | None = None
    asks: bool = True
    ended_by: Callable[[XdpctlError], int] = _exit_code


USUAL_HABITS = Habits()


class Settings(Style):
    """The global options. `lock_timeout` is in seconds; no `bpffs` means the usual one.

    With `ends` the process ends with the command: what it keeps has to be kept by others, too.
    """

    netns: str | None = None
    bpffs: str = ""
    lock_timeout: float = locks.DEFAULT_TIMEOUT
    habits: Habits = USUAL_HABITS
    ends: bool = False

    @property
    def program(self) -> str:
        """The name under which the program runs."""
        return self.habits.program

    def ended_by(self, error: XdpctlError) -> int:
        """The exit code of an error that has been printed."""
        return self.habits.ended_by(error)

    def enter(self, *, changes: bool = False) -> Bpffs:
        """Enter the network namespace; returns the bpffs, mounted if that was asked for."""
        if not gc.isenabled():  # the import is over: see __main__
            gc.freeze()
            gc.enable()
        if self.netns:
            enter_netns(self.netns)
        patience = locks.Patience(self.lock_timeout, self._tell)
        bpffs = Bpffs.chosen(self.bpffs, patience, outlives=self.ends and changes)
        wanted = changes and not self.dry_run and not bpffs.is_mounted()
        if wanted and self._mount_wanted(bpffs.path):
            rights.require()
            bpffs.mount()
        return bpffs

    def line(self, command: str, interface: str) -> str:
        """A command line that works on an interface where this one does."""
        words = ["xdpctl", command]
        for option, value in (("--netns", self.netns), ("--bpffs", self.bpffs)):
            words += [option, value] if value else []
        return " ".join([*words, interface])

    def _tell(self, text: str) -> None:
        if not self.quiet:
            output.say(f"{self.program}: {text}", err=True)

    def _mount_wanted(self, path: str) -> bool:
        if os.environ.get("LIBXDP_BPFFS_AUTOMOUNT") == "1":
            return True
        if not (self.habits.asks and sys.stdin.isatty() and sys.stderr.isatty()):
            return False
        return click.confirm(f"No BPF file system at {path}. Mount one?", err=True)


def enter_netns(name: str) -> None:
    """Go to a network namespace, by name or path, for good. Raises NotFoundError."""
    path = interfaces.named(name)
    with enterable(name):
        interfaces.enter(path)


@contextlib.contextmanager
def enterable(name: str) -> Iterator[None]:
    """What it means that a network namespace cannot be entered in the block: NotFoundError."""
    try:
        yield
    except OSError as error:
        rights.require()
        raise NotFoundError(
            f"cannot enter the network namespace {name}", why=os.strerror(error.errno or 0)
        ) from error


# --- options ------------------------------------------------------------------------------------


def _taken(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    """Keep what one of the global options says; one that is not given says nothing."""
    settings = context.ensure_object(Settings)
    match parameter.name:
        case "json":
            settings.json |= value
        case "netns":
            settings.netns = value or settings.netns
        case "bpffs":
            settings.bpffs = value or settings.bpffs
        case "verbose":
            settings.verbose += value  # -v before the command and -v after it make two
        case "quiet":
            settings.quiet |= value
        case "dry_run":
            settings.dry_run |= value
        case "lock_timeout" if value is not None:
            settings.lock_timeout = value


class CommonOption(click.Option):
    """An option of every command. `xdpctl help options` describes it, not each command's help."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        return None

    def described(self, ctx: click.Context) -> tuple[str, str] | None:
        """Its names and its help, as click shows those of other options."""
        return super().get_help_record(ctx)


def _option(*names: str, **attributes: Any) -> Decorator:
    return click.option(*names, cls=CommonOption, callback=_taken, expose_value=False, **attributes)


def together(options: Sequence[Decorator]) -> Decorator:
    """Some options as one, in their order."""

    def decorate(function: Function) -> Function:
        for decorator in reversed(options):
            function = decorator(function)
        return function

    return decorate


def common_options(*, changes: bool = False) -> Decorator:
    """The global options, for a command and for the group alike."""
    options: list[Decorator] = [
        _option("-j", "--json", is_flag=True, help="Print one JSON document."),
        _option(
            "--netns",
            metavar="NAME|PATH",
            shell_complete=namespaces,
            help="Work in this network namespace.",
        ),
        _option(
            "--bpffs",
            metavar="PATH",
            shell_complete=directories,
            help=f"Keep pins in this BPF file system [{DEFAULT_BPFFS}].",
        ),
        _option(
            "-v",
            "--verbose",
            count=True,
            help="Print each step, and all details of an error; given twice, a traceback as well.",
        ),
        _option("-q", "--quiet", is_flag=True, help="Do not print what was changed."),
        click.version_option(
            __version__,
            "-V",
            "--version",
            cls=CommonOption,
            message="xdpctl %(version)s",
            help="Print the version.",
        ),
    ]
    if changes:
        options += [
            _option("--dry-run", is_flag=True, help="Print the plan and change nothing."),
            _option(
                "--lock-timeout",
                metavar="SECONDS",
                type=Seconds(),
                help="Wait this long for another process that changes the interface "
                f"[{locks.DEFAULT_TIMEOUT:g}].",
            ),
        ]
    return together(options)
