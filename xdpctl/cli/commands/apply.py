"""xdpctl apply."""

from __future__ import annotations

import contextlib
import glob
import os
from dataclasses import replace

import click

from ...bpffs.mount import Bpffs
from ...change.report import Report
from ...errors import DiffersError, NotFoundError, UsageError, XdpctlError
from ...host.interfaces import Interface, is_pattern
from ...observe.reading import View
from ...programs import chainfile
from .. import complete
from ..many import Wanted, change_each, one_or_each, worker
from ..options import ChangeOptions, ChangingCommand, FirstOptions, change_options, first_options
from ..settings import Settings
from ..waiting import Work, waited_for

FILES = "/etc/xdpctl"


@click.command("apply", cls=ChangingCommand)
@click.argument(
    "interface", metavar="[INTERFACE|PATTERN", required=False, shell_complete=complete.interfaces
)
@click.argument("file", metavar="[FILE]]", required=False, type=click.Path(readable=False))
@click.option(
    "--files",
    metavar="DIR",
    default=FILES,
    show_default=True,
    type=click.Path(readable=False),
    help="Where the files of this host are, of which those that fit are applied without a FILE.",
)
@click.option(
    "--check",
    is_flag=True,
    help="Change nothing, and tell what is not as the file says: exit code 17 if anything is.",
)
@first_options()
@change_options()
@click.pass_obj
def command(
    settings: Settings,
    interface: str | None,
    file: str | None,
    files: str,
    check: bool,
    first: FirstOptions,
    changing: ChangeOptions,
) -> None:
    """Bring an interface to the chain that a file describes, whatever it runs now.

    It is one change: every packet meets the old chain or the new one. A program that is called like
    one that runs takes its place and its maps. An option here has precedence over the file, which
    xdpctl-chain(5) describes; - is standard input. Without FILE, the files of this host are applied
    to the interfaces that they name, or to those among them that are named here.

    \b
    Examples:
      xdpctl apply eth0 /etc/xdpctl/eth0.toml
      xdpctl test eth0 apply eth0.toml
      xdpctl apply --check
    """
    if check:
        settings.checks = settings.dry_run = True
    bpffs = settings.enter(changes=True)
    differing = False

    def checked(work: Work) -> Work:
        def noting(one: Interface, view: View | None) -> Report:
            nonlocal differing
            report = work(one, view)
            differing |= report.plan.flip != "none"
            return report

        return noting

    with contextlib.ExitStack() as closing:
        if interface is not None and file is not None:
            asked = _wanted(file, bpffs, first, closing)
            work = worker(settings, "apply", bpffs, lambda _one: asked, changing, keeps=True)
            one_or_each(settings, "apply", bpffs, interface, checked(work))
        else:
            host = _Host(files, bpffs, first, closing)
            found = host.interfaces(interface)
            work = worker(settings, "apply", bpffs, host.wanted, changing, keeps=True)
            with waited_for(settings, bpffs, checked(work)) as noted:
                change_each(settings, "apply", found, noted)
    if check and differing:
        raise click.exceptions.Exit(DiffersError.exit_code)


def _wanted(path: str, bpffs: Bpffs, first: FirstOptions, closing: contextlib.ExitStack) -> Wanted:
    """What a file says, for as long as its programs are open."""
    written = closing.enter_context(chainfile.opened(path, bpffs.path))
    request = first.request.completed(written.request)
    return Wanted(written.target, replace(request, unless_same=True))


class _Host:
    """The files of a host, each opened when the first of its interfaces is looked at."""

    def __init__(
        self, directory: str, bpffs: Bpffs, first: FirstOptions, closing: contextlib.ExitStack
    ) -> None:
        self._directory, self._bpffs, self._first, self._closing = directory, bpffs, first, closing
        self._paths: dict[Interface, list[str]] = {}
        self._broken: dict[Interface, XdpctlError] = {}
        self._opened: dict[str, Wanted | XdpctlError] = {}

    def interfaces(self, asked: str | None) -> list[Interface]:
        """Those that the files are for, of what is asked for. Raises NotFoundError for none."""
        paths = sorted(glob.glob(f"{glob.escape(self._directory)}/*.toml"))
        if not paths:
            raise NotFoundError(
                f"{self._directory} has no files (*.toml)",
                hint="name one: xdpctl apply INTERFACE FILE; xdpctl export INTERFACE writes one",
            )
        for path in paths:
            self._note(path)
        wanted = None if asked is None else set(Interface.matching(asked))
        found = [one for one in self._paths if wanted is None or one in wanted]
        if not found and asked is not None and not is_pattern(asked):
            raise NotFoundError(
                f"no file in {self._directory} is for {asked}",
                hint=f"name one: xdpctl apply {asked} FILE",
            )
        return found

    def _note(self, path: str) -> None:
        name = os.path.basename(path).removesuffix(".toml")
        try:
            name = chainfile.interfaces(path)
            found = Interface.matching(name)
        except XdpctlError as error:
            if is_pattern(name) and isinstance(error, NotFoundError):
                return  # there may be one later
            missing = Interface(name, 0, "")
            error.what = error.what if path in error.what else f"{path}: {error.what}"
            self._paths[missing], self._broken[missing] = [path], error
            return
        for one in found:
            self._paths.setdefault(one, []).append(path)

    def wanted(self, one: Interface) -> Wanted:
        """What an interface is to run. Raises what its file is refused for."""
        if one in self._broken:
            raise self._broken[one]
        path, *others = self._paths[one]
        if others:
            raise UsageError(
                f"several files are for {one.name}: {', '.join((path, *others))}",
                hint="leave it to one of them",
            )
        if path not in self._opened:
            try:
                self._opened[path] = _wanted(path, self._bpffs, self._first, self._closing)
            except XdpctlError as error:
                self._opened[path] = error
        found = self._opened[path]
        if isinstance(found, XdpctlError):
            raise found
        return found
