"""xdpctl export."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import click

from ...bpffs.mount import Bpffs
from ...errors import NotFoundError, UsageError, XdpctlError
from ...host import files, output, rights
from ...host.interfaces import Failure, is_several
from ...host.text import Json
from ...kernel import libbpf
from ...model.state import State
from ...programs import export
from ...view import document
from .. import complete
from ..outcomes import end, tell
from ..settings import Settings, common_options
from .status import states


@click.command("export")
@click.argument("interface", metavar="INTERFACE|PATTERN", shell_complete=complete.interfaces)
@click.option(
    "--to",
    metavar="DIR",
    type=click.Path(readable=False),
    help="Write a file for each interface that runs a chain, which is called like that.",
)
@click.option(
    "--programs",
    metavar="DIR",
    type=click.Path(readable=False),
    help="Write programs whose files are not as they were as objects into this directory.",
)
@common_options()
@click.pass_obj
def command(settings: Settings, interface: str, to: str | None, programs: str | None) -> None:
    """Print the chain of an interface as a file for xdpctl apply.

    A comment stands where a program's file is not known, is gone, or has changed since it was
    loaded. With --programs the file names an object there instead, which is made of the code and
    the constants that run; its maps begin empty.

    \b
    Examples:
      xdpctl export eth0
      xdpctl export eth0 > /etc/xdpctl/eth0.toml
      xdpctl export '*' --to /etc/xdpctl --programs /etc/xdpctl/programs
    """
    if to is None and is_several(interface):
        raise UsageError(
            f"{interface} may mean several interfaces, and a file is for one chain",
            hint="name one, or write a file for each: --to DIR",
        )
    bpffs = settings.enter()
    rights.require()
    bpffs.check_safe()
    objects = export.Objects(programs) if programs is not None else None
    found = states(bpffs, interface)
    texts, outcomes = _texts(found, bpffs, objects, several=is_several(interface))
    if not outcomes:
        raise NotFoundError(f"no chain runs on an interface that matches {interface}")
    failed = [one for one in outcomes if isinstance(one, Failure)]
    if objects and objects.files:
        _write(objects.directory, objects.files)
    if to is not None:
        _write(to, {f"{name}.toml": text.encode() for name, text in texts.items()})
    if settings.json:
        shown: list[Json] = [{"interface": name, "file": text} for name, text in texts.items()]
        shown += [one.as_dict() for one in failed]
        document.show("export", {"interfaces": shown})
    elif to is None:
        output.say("".join(texts.values()).rstrip("\n"))
    else:
        _tell(to, texts, failed, settings)
    end(outcomes, settings)


def _texts(
    found: Sequence[State | Failure],
    bpffs: Bpffs,
    objects: export.Objects | None,
    *,
    several: bool,
) -> tuple[dict[str, str], list[State | Failure]]:
    """The files by interface, and what came of each; of several those without a chain are left out.

    Raises what `export.text` does for a single one.
    """
    texts = dict[str, str]()
    outcomes = list[State | Failure]()
    for one in found:
        if isinstance(one, Failure):
            outcomes.append(one)
        elif not several or (one.root and one.root.owner != "other"):
            try:
                texts[one.interface.name] = export.text(one, bpffs.path, objects)
                outcomes.append(one)
            except XdpctlError as error:
                if not several:
                    raise
                outcomes.append(Failure(one.interface, error))
    return texts, outcomes


def _tell(to: str, texts: dict[str, str], failed: Sequence[Failure], settings: Settings) -> None:
    for name in texts if not settings.quiet else ():
        output.say(f"{name}: {_path(to, name)}")
    for one in failed:
        tell(one, settings)


def _path(directory: str, name: str) -> str:
    return os.path.join(directory, f"{name}.toml")


def _write(directory: str, wanted: Mapping[str, bytes]) -> None:
    """Write all files or none; one that is there with other contents stays."""
    paths = {os.path.join(directory, name): data for name, data in wanted.items()}
    if there := [path for path, data in paths.items() if _differs(path, data)]:
        raise UsageError(
            f"{', '.join(there)}: there with another text", hint="see diff(1), and move it away"
        )
    try:
        with libbpf.owned(os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as fd:
            for name, data in wanted.items():
                with files.whole(fd, name, 0o644) as out:
                    out.write(data)
    except OSError as error:
        raise XdpctlError(f"cannot write to {directory}", why=str(error.strerror)) from error


def _differs(path: str, data: bytes) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(len(data) + 1) != data
    except FileNotFoundError:
        return False
    except OSError as error:
        raise XdpctlError(f"cannot write {path}", why=str(error.strerror)) from error
