"""What a command line that makes no sense was meant to be, as far as it shows."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence

import click

from ..errors import NotFoundError, UsageError, XdpctlError, meant, there
from ..host.interfaces import Interface, is_several
from ..model.chain import ACTIONS

OTHERS = {
    **dict.fromkeys(("add", "attach", "insert", "install", "start"), "load"),
    **dict.fromkeys(("del", "delete", "detach", "remove", "rm", "off", "stop"), "unload"),
    **dict.fromkeys(("ls", "list", "ps", "dump"), "status"),
    **dict.fromkeys(("update", "upgrade", "reload"), "replace"),
    **dict.fromkeys(("order", "move", "rename", "prio"), "set"),
    **dict.fromkeys(("undo", "revert", "restore", "back"), "rollback"),
    **dict.fromkeys(("accept", "keep", "commit", "ok"), "confirm"),
    **dict.fromkeys(("tcpdump", "capture"), "trace"),
    **dict.fromkeys(("simulate", "try", "check", "verify"), "test"),
    **dict.fromkeys(("top", "count", "counters"), "stats"),
    **dict.fromkeys(("log", "generations"), "history"),
    **dict.fromkeys(("draw", "tree", "graph"), "show"),
    **dict.fromkeys(("gc", "cleanup", "flush", "prune"), "clean"),
    **dict.fromkeys(("import", "takeover"), "adopt"),
    **dict.fromkeys(("diagnose", "probe"), "doctor"),
    "version": "--version",
}
"""The words of other tools for what the commands do."""


def no_command(word: str, known: Sequence[str], rest: Sequence[str] = ()) -> UsageError:
    """The error for a word that is no command."""
    hints = [_command_meant(word, known, rest), "see xdpctl --help"]
    return UsageError(f"No such command {word!r}.", hint=_joined(hints))


def _command_meant(word: str, known: Sequence[str], rest: Sequence[str]) -> str:
    if other := OTHERS.get(word.lower()):
        return f"did you mean {other}?"
    command = next((one for one in rest if one in known), None)
    if command and _is_interface(word):
        others = [one for one in rest if one != command]
        return f"the command comes first: xdpctl {' '.join([command, word, *others])}"
    return meant(word, known)


def of_click(error: click.ClickException, words: Sequence[str]) -> str:
    """What helps with an error of click's."""
    context = getattr(error, "ctx", None)
    if context is None:
        return ""
    hints = [*_of_usage(error, context), f"see {context.command_path} --help"]
    return _joined([one_dash(words, context.command), *hints])


def _joined(hints: Iterable[str]) -> str:
    """Hints in a line, each once."""
    text = ""
    for hint in dict.fromkeys(filter(None, hints)):
        text += f"{'' if text[-1:] in ('', '?') else ';'} {hint}"
    return text.strip()


def _of_usage(error: click.ClickException, context: click.Context) -> Iterator[str]:
    if isinstance(error, click.MissingParameter):
        if error.param is not None and error.param.name == "interface":
            yield there(one.name for one in Interface.all())
    elif extra := re.search(r"unexpected extra arguments? \((.*)\)", error.format_message()):
        yield _extra(extra[1].split(" "), context)


def _extra(words: list[str], context: click.Context) -> str:
    interface = context.params.get("interface")
    options = _long_options(context.command)
    if isinstance(interface, str) and all(map(_is_interface, (interface, *words))):
        return f"several interfaces are named {','.join([interface, *words])}"
    if f"--{words[0]}" in options:
        return f"did you mean --{words[0]}?"
    if "--to" in options and words[0].isdecimal():
        return f"did you mean --to {words[0]}?"
    return ""


def one_dash(words: Sequence[str], command: click.Command | None) -> str:
    """Says so if a word is a long option but for its second dash."""
    options = _long_options(command) if command else ()
    for word in words:
        name = word.partition("=")[0]
        if re.fullmatch(r"-[a-z][a-z-]+", name) and f"-{name}" in options:
            return f"did you mean -{name}?"
    return ""


def _long_options(command: click.Command) -> list[str]:
    return [
        name
        for param in command.params
        if isinstance(param, click.Option)
        for name in (*param.opts, *param.secondary_opts)
        if name.startswith("--")
    ]


def add_dash(error: XdpctlError, words: Sequence[str], group: click.Group) -> None:
    """Say so if a word before ``--`` lacks its second dash, and was read as a short option."""
    options = words[: words.index("--")] if "--" in words else words
    context = click.Context(group)
    known = group.list_commands(context)
    command = next((group.get_command(context, one) for one in words if one in known), None)
    if hint := one_dash(options, command):
        error.hint = _joined([hint, error.hint])


def improve(error: XdpctlError, context: click.Context) -> None:
    """Say of words that stand in each other's places what was meant by them."""
    interface = context.params.get("interface")
    places = [one.name for one in context.command.params if isinstance(one, click.Argument)]
    values = [context.params.get(name or "") for name in places]
    words = [
        word
        for value in values
        for word in (value if isinstance(value, tuple) else [value])
        if isinstance(word, str)
    ]
    if not isinstance(interface, str) or not words:
        return
    if hint := _places(context.command.name or "", interface, words[1:], error):
        error.hint = hint


def _places(command: str, interface: str, others: list[str], error: XdpctlError) -> str:
    if is_several(interface) or _is_interface(interface):
        more = next((word for word in others if _is_interface(word)), None)
        if more and not os.path.exists(more):
            return f"several interfaces are named {interface},{more}"
        return _action(others)
    found = next((word for word in others if _is_interface(word)), None)
    if found is None:
        if os.path.isfile(interface):
            return f"the interface comes first: xdpctl {command} INTERFACE {interface}"
        return ""
    rest = [word for word in (interface, *others) if word not in (found, "dev")]
    error.what = f"no interface named {interface}"
    if interface == "dev":
        return f"leave out dev: xdpctl {' '.join([command, found, *rest])}"
    return f"the interface comes first: xdpctl {' '.join([command, found, *rest])}"


def _action(words: Sequence[str]) -> str:
    """Actions stand in one word."""
    names = {one.removeprefix("XDP_").lower() for one in ACTIONS}
    for word in words:
        if word.lower().removeprefix("xdp_") in names and not os.path.exists(word):
            return f"actions stand in one word: -A pass,{word}"
    return ""


def command_first(interface: str, verb: str, words: Sequence[str], known: Sequence[str]) -> None:
    """Raise UsageError for a trial whose command stands in front of the interface."""
    if interface in known and verb not in known and not _is_interface(interface):
        raise UsageError(
            f"no interface named {interface}",
            hint=f"the interface comes first: xdpctl test {' '.join([verb, interface, *words])}",
        )


def _is_interface(name: str) -> bool:
    try:
        Interface.named(name)
    except NotFoundError:
        return False
    return True
