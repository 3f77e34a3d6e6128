"""xdpctl apply."""

from __future__ import annotations

import contextlib
import functools
from dataclasses import replace

import click

from ...change.batch import Batch
from ...change.report import Report
from ...errors import DiffersError
from ...host.interfaces import Interface
from ...programs import chainfile
from .. import complete
from ..hostfiles import Host, files_option, wanted
from ..many import change_each, one_or_each, worker
from ..options import (
    ChangeOptions,
    ChangingCommand,
    FirstOptions,
    change_options,
    first_options,
    shared_option,
)
from ..settings import Settings, enter_netns
from ..waiting import Work, waited_for


@click.command("apply", cls=ChangingCommand)
@click.argument(
    "interface", metavar="[INTERFACE|PATTERN", required=False, shell_complete=complete.interfaces
)
@click.argument("file", metavar="[FILE]]", required=False, type=click.Path(readable=False))
@files_option(
    "Where the files of this host are, of which those that fit are applied without a FILE."
)
@click.option(
    "--check",
    is_flag=True,
    help="Change nothing, and tell what is not as the file says: exit code 17 if anything is.",
)
@shared_option()
@first_options()
@change_options()
@click.pass_obj
def command(
    settings: Settings,
    interface: str | None,
    file: str | None,
    files: str,
    check: bool,
    shared: bool,
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
        def noting(one: Interface, batch: Batch | None) -> Report:
            nonlocal differing
            report = work(one, batch)
            differing |= report.plan.flip != "none"
            return report

        return noting

    asked = replace(first.request, shared=shared)
    with contextlib.ExitStack() as closing:
        if interface is not None and file is not None:
            document = chainfile.read(file)
            if document.namespace and not settings.netns:
                enter_netns(document.namespace)
            named = functools.partial(Interface.matching, interface)
            alike = wanted(document, bpffs, asked, closing, named)
            work = worker(settings, "apply", bpffs, lambda _one: alike, changing, keeps=True)
            one_or_each(settings, "apply", bpffs, interface, checked(work))
        else:
            host = Host(files, bpffs, asked, closing)
            found = host.interfaces(interface)
            work = worker(settings, "apply", bpffs, host.wanted, changing, keeps=True)
            with waited_for(settings, bpffs, checked(work)) as noted:
                change_each(settings, "apply", found, noted)
    if check and differing:
        raise click.exceptions.Exit(DiffersError.exit_code)
