"""xdpctl metrics."""

from __future__ import annotations

import contextlib
import os
import stat

import click

from ...errors import NotFoundError, UsageError, XdpctlError
from ...host import files, rights
from ...metrics.scrape import Scrape
from ...view import document, metrics, style
from .. import complete
from ..serving import Address, serve
from ..settings import Settings, common_options

_SUFFIX = ".prom"


@click.command("metrics")
@click.argument(
    "interfaces", metavar="[INTERFACE|PATTERN]...", nargs=-1, shell_complete=complete.interfaces
)
@click.option(
    "--textfile",
    metavar="PATH",
    type=click.Path(readable=False),
    help="Write this file, as node_exporter reads it: whole, or not at all.",
)
@click.option(
    "--listen",
    metavar="ADDR:PORT",
    type=Address(),
    help="Serve them over HTTP until a signal ends it. Without ADDR on 127.0.0.1 alone.",
)
@common_options()
@click.pass_obj
def command(
    settings: Settings,
    interfaces: tuple[str, ...],
    textfile: str | None,
    listen: tuple[str, int] | None,
) -> None:
    """Print state and counts of interfaces as metrics for Prometheus.

    They are those of all interfaces, or of those that are named. Packets are told where they are
    counted, see xdpctl stats; incidents, while xdpctl monitor runs.

    \b
    Examples:
      xdpctl metrics
      xdpctl metrics --listen 127.0.0.1:9723
      xdpctl metrics --textfile /var/lib/prometheus/node-exporter/xdpctl.prom
    """
    if settings.dry_run:
        raise UsageError("metrics changes nothing", hint="leave --dry-run out")
    if listen and (textfile is not None or settings.json):
        raise UsageError(
            "--listen has no other way of telling the metrics",
            hint="leave --textfile and --json out, or run xdpctl metrics twice",
        )
    if textfile is not None and settings.json:
        raise UsageError("a textfile is no JSON document", hint="leave --json out")
    bpffs = settings.enter()
    rights.require()
    bpffs.check_safe()
    scrape = Scrape(bpffs, interfaces, stay=listen is not None)
    scrape.interfaces()  # before anything is told: all of them are there
    if listen:
        serve(scrape, listen, settings)
        return
    families = scrape.families().told()
    if textfile is not None:
        _write(textfile, metrics.text(families, openmetrics=False))
        if not textfile.endswith(_SUFFIX) and not settings.quiet:
            style.tell(f"node_exporter reads files *{_SUFFIX} alone")
    elif settings.json:
        document.show("metrics", {"metrics": metrics.data(families)})
    else:
        print(metrics.text(families), end="")


def _write(path: str, text: str) -> None:
    """Write a file that everybody can read. Raises NotFoundError, UsageError, XdpctlError."""
    directory, name = os.path.split(path)
    try:
        if not name:
            raise IsADirectoryError(21, "it is a directory")
        fd = os.open(directory or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _check_regular(path, fd, name)
            with files.whole(fd, name, 0o644) as file:
                file.write(text.encode())
        finally:
            os.close(fd)
    except FileNotFoundError as error:
        raise NotFoundError(f"no such directory: {directory}") from error
    except OSError as error:
        raise XdpctlError(f"{path} cannot be written", why=os.strerror(error.errno or 0)) from error


def _check_regular(path: str, directory: int, name: str) -> None:
    """Raises UsageError for a device, a link or a pipe, whose place the file would take."""
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISREG(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
            raise UsageError(
                f"{path} is no regular file",
                why="a textfile takes the place of what has its name",
                hint="name a file; without --textfile the metrics are printed",
            )
