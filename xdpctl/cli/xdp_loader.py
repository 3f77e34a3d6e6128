"""xdpctl under the name xdp-loader: that tool's command line, exit codes and silence.

Its command line is read as getopt_long(3) does it, which click does not (options may be cut short,
the last of several holds), and becomes one of xdpctl. xdpctl's own commands do the rest.
"""

from __future__ import annotations

import contextlib
import errno
import getopt
import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import field, replace

from .. import __version__
from ..errors import (
    BadObjectError,
    BpffsError,
    ChainFullError,
    GateError,
    HookBusyError,
    Interrupted,
    LockTimeoutError,
    NotFoundError,
    OutputError,
    RaceError,
    RegistryError,
    RightsError,
    UnconfirmedError,
    UnsupportedError,
    UntrustedError,
    UsageError,
    VanishedError,
    VerifierError,
    XdpctlError,
)
from ..host import files, output, rights
from ..host.interfaces import Interface
from ..model import chain
from ..model.record import LIBXDP_SLOTS
from ..model.request import MODES
from ..value import Value
from .settings import Habits, Settings

NAME = "xdp-loader"
LIKE = "1.3.1"
"""The version of xdp-loader that this was compared with, command line by command line."""

NO_HELP = 255
"""How xdp-loader ends after its list of commands; after a command's help or version it is 1."""


class _Form(Value):
    """What a command is, and takes: places, and options by long name, with = before a value."""

    summary: str
    places: str = "[ifname]"
    least: int = 0
    most: int | None = 1
    options: dict[str, tuple[str, str]] = field(default_factory=dict)


_EVERY = {
    "verbose": ("v", "Tell on standard error what is done."),
    "version": ("", "Show the version."),
    "help": ("h", "Show this help."),
}

# In the order in which a prefix is looked up: an empty word is the first.
FORMS = {
    "load": _Form(
        "Add the XDP programs of object files to an interface.",
        "<ifname> <filenames>",
        least=2,
        most=None,
        options={
            "mode=": ("m", "How to attach: native (default), skb, hw or unspecified."),
            "pin-path=": ("p", "Pin the maps that ask for it in this directory of a bpffs."),
            "section=": ("s", "Load the first program of this ELF section."),
            "prog-name=": ("n", "Load the program of this name. Default: a file's first."),
            "prio=": ("P", "Run priority, lowest first. Default: the object's, or 50."),
            "actions=": ("A", "Verdicts after which the next program runs, or none."),
        },
    ),
    "unload": _Form(
        "Take a program, or all, off an interface.",
        "<ifname>",
        options={"id=": ("i", "The program with this id."), "all": ("a", "All of them.")},
    ),
    "status": _Form("Show what runs on an interface, or on all."),
    "clean": _Form("Remove the pins that belong to nothing."),
    "features": _Form("Show what XDP can do on an interface.", "<ifname>", least=1),
    "help": _Form("Show this list.", "", most=None),
}

# The errno that xdp-loader ends with, negated.
_ERRNO: dict[type[XdpctlError], int] = {
    NotFoundError: errno.ENOENT,
    RightsError: errno.EPERM,
    HookBusyError: errno.EBUSY,
    RaceError: errno.EBUSY,
    LockTimeoutError: errno.EBUSY,
    UnconfirmedError: errno.EBUSY,
    ChainFullError: errno.E2BIG,
    VanishedError: errno.ENODEV,
    GateError: errno.ECANCELED,
    RegistryError: errno.EHOSTUNREACH,
    UntrustedError: errno.EACCES,
}
# The same for classes with many causes, where neither the error nor its cause has an errno.
_ERRNO_ELSE: dict[type[XdpctlError], int] = {
    XdpctlError: errno.EIO,
    BadObjectError: errno.EINVAL,
    VerifierError: errno.EACCES,
    UnsupportedError: errno.EOPNOTSUPP,
    BpffsError: errno.ENOENT,
    OutputError: errno.EIO,
}


def errno_of(error: XdpctlError) -> int:
    """The errno by which xdp-loader would tell an error."""
    if error.number:
        return error.number
    if type(error) in _ERRNO:
        return _ERRNO[type(error)]
    cause = error.__cause__
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno:
            return cause.errno
        cause = cause.__cause__
    return _ERRNO_ELSE.get(type(error), errno.EIO)


def exit_code(command: str, error: XdpctlError) -> int:
    """How xdp-loader's command ends where xdpctl's has an error."""
    if isinstance(error, Interrupted):
        return error.exit_code  # a shell says the same of xdp-loader, which the signal kills
    if command == "unload" or isinstance(error, UsageError):
        return 1
    if isinstance(error, RightsError) and os.geteuid():
        return 1
    return -errno_of(error) & 255


def habits(command: str) -> Habits:
    """What is different for xdpctl's commands, where xdp-loader's is carried out."""
    out = sys.stdout

    def ended_by(error: XdpctlError) -> int:
        if isinstance(error, UsageError):
            print(f"\n{_usage(command)}\nSee {NAME} {command} --help.", file=out)
        return exit_code(command, error)

    return Habits(
        program=NAME,
        first_attach="netlink",  # libxdp's tools and ip-link(8) may go on with the interface
        pins_maps=False,
        first_of_several=True,
        most=LIBXDP_SLOTS,
        asks=False,
        ended_by=ended_by,
    )


def run(words: Sequence[str], *, ends: bool = False) -> int:
    """Run a command line of xdp-loader; returns its exit code, with errors printed.

    `ends`: the process ends with it.
    """
    from .run import report
    from .run import run as run_xdpctl

    command = next((name for name in commands() if name.startswith(words[0])), "") if words else ""
    if words and not command:
        output.say(f"Command '{words[0]}' is unknown, try '{NAME} help'.", err=True)
        return 1
    if not words or command == "help":
        output.say(_listing(), err=True)
        return NO_HELP
    settings = Settings(plain=True)
    settings.habits, settings.ends = habits(command), ends
    try:
        given, places = _read(command, words[1:])
        if "help" in given:
            output.say(_help(command))
            return 1
        if "version" in given:
            output.say(_version())
            return 1
        arguments = translated(command, given, places)
        if os.environ.get("LIBXDP_SKIP_DISPATCHER") == "1" and len(places) == 2:
            # It means nothing where there are several files.
            settings.habits = replace(settings.habits, kind="bare")
        rights.require()
    except XdpctlError as error:
        return report(error, settings)
    with _placed(command, places):
        return run_xdpctl(arguments, settings)


def commands() -> list[str]:
    """xdp-loader's commands, as far as xdpctl has them."""
    from .group import COMMANDS

    return [name for name in FORMS if name in COMMANDS]


def _read(command: str, words: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """The options, by long name, and the places. Of several the last holds, but -v is counted."""
    known = {**FORMS[command].options, **_EVERY}
    short = {letter: name for name, (letter, _text) in known.items() if letter}
    letters = "".join(letter + ":" * name.endswith("=") for letter, name in short.items())
    try:
        found, places = getopt.gnu_getopt(list(words), letters, list(known))
    except getopt.GetoptError as error:
        raise UsageError(f"{command}: {error.msg}") from error
    given: dict[str, str] = {}
    for option, value in found:
        name = option[2:] if option.startswith("--") else short[option[1:]].rstrip("=")
        given[name] = given.get(name, "") + "v" if name == "verbose" else value
    return given, places


def translated(command: str, given: dict[str, str], places: list[str]) -> list[str]:
    """A command line of xdpctl that does what one of xdp-loader asks for."""
    form = FORMS[command]
    for number, place in enumerate(form.places.split()[: form.least]):
        if len(places) <= number:
            raise UsageError(f"missing required parameter {place}")
    if form.most is not None and len(places) > form.most:
        raise UsageError(f"{places[form.most]!r} is one word too many")
    if places:
        try:
            Interface.named(places[0])  # a pattern means nothing to xdp-loader
        except NotFoundError as error:
            raise UsageError(error.what, hint=error.hint) from error
    # There it is the name of a file, not standard input.
    places = [f"./{place}" if place == files.STANDARD_INPUT else place for place in places]
    # Without -v it says nothing of what it did, and with any number of them it shows no traceback.
    loudness = "-v" if "verbose" in given else "-q"
    return [command, loudness, *_options(command, given, places), "--", *places]


def _options(command: str, given: dict[str, str], places: list[str]) -> Iterator[str]:
    if command == "load":
        # Its default holds for later loads too: it does not join a chain in another mode.
        values = {"mode": "native", **given}
        if values["mode"] not in MODES:
            raise UsageError(f"--mode {values['mode']} is none", hint=f"use {', '.join(MODES)}")
        for name in ("mode", "pin-path", "section", "prog-name"):
            if name in values:
                yield f"--{name}={values[name]}"
        priority = _number("prio", given.get("prio", ""))
        # No number and none at all are the same to it. So is a plain 0, which means 0 here.
        if priority or given.get("prio") == "0":
            yield f"--prio={priority}"
        if actions := _actions(given.get("actions", "")):
            yield f"--actions={actions}"
    elif command == "unload":
        number = _number("id", given.get("id", ""))
        if "all" not in given and not number:
            raise UsageError("say what to unload", hint="with -i ID or with --all")
        if not places:
            raise UsageError("no interface is named", hint=_usage(command))
        yield "--all" if "all" in given else f"--id={number}"


def _number(option: str, text: str) -> int:
    """A number as strtoul(3) reads it: what follows it is left out, and no number is 0."""
    found = re.match(r"\s*([+-]?)0*(\d*)", text, flags=re.ASCII)
    # What is longer is out of the range anyhow.
    number = int(found[1] + found[2][:20]) if found and found[2] else 0
    if not 0 <= number <= chain.MAX_PRIORITY:
        raise UsageError(f"--{option} takes a number from 0 to {chain.MAX_PRIORITY}")
    return number


def _actions(text: str) -> str:
    """A list of actions that xdp-loader takes, or none, which it does not know."""
    words = [word for word in text.split(",") if word]
    if text != "none" and (wrong := [word for word in words if word not in chain.ACTIONS]):
        raise UsageError(
            f"unknown chain action {wrong[0]!r}", hint=f"use some of {', '.join(chain.ACTIONS)}"
        )
    return ",".join(words)


@contextlib.contextmanager
def _placed(command: str, places: Sequence[str]) -> Iterator[None]:
    """What commands print goes where it does with xdp-loader: reports to standard error."""
    if command == "clean":
        where = places[0] if places else "all interfaces"
        output.say(f"Cleaning up detached XDP program links for {where}")
    if command in ("status", "features"):
        yield
        return
    sys.stdout.flush()
    with contextlib.redirect_stdout(sys.stderr):
        yield


# --- help ---------------------------------------------------------------------------------------


def _usage(command: str) -> str:
    return f"Usage: {NAME} {command} [options] {FORMS[command].places}"


def _listing() -> str:
    rows = [(name, FORMS[name].summary) for name in commands()]
    return "\n".join(
        [
            f"Usage: {NAME} COMMAND [options]",
            "",
            *_columns(rows),
            "",
            f"This is xdpctl under the name {NAME}: xdpctl-xdp-loader(8).",
        ]
    )


def _help(command: str) -> str:
    rows = []
    for name, (letter, text) in {**FORMS[command].options, **_EVERY}.items():
        words = f"--{name.rstrip('=')}{' VALUE' * name.endswith('=')}"
        rows.append((f"-{letter}, {words}" if letter else f"    {words}", text))
    return "\n".join([_usage(command), "", FORMS[command].summary, "", *_columns(rows)])


def _columns(rows: Sequence[tuple[str, str]]) -> list[str]:
    width = max(len(left) for left, _right in rows)
    return [f"  {left:{width}}  {right}" for left, right in rows]


def _version() -> str:
    from ..kernel import libbpf

    used = libbpf.version().removeprefix("v")
    return f"{NAME} version {LIKE} using libbpf version {used} (xdpctl {__version__})"
