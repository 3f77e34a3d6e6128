#!/usr/bin/python3
"""Write what the manual has from the command line itself: man/options.py

In the page of each command that is NAME, SYNOPSIS, and in OPTIONS the heading of each option with
its help and its default. In xdpctl(8) it is the list of commands and COMMON OPTIONS. What a page
says besides of an option stands behind a line `.\\" more` and is kept. An option that a page lacks
is added. One that is gone is an error, so that what is written of it is not lost.

tests/unit/docs/test_man_options.py checks that the pages are as this writes them.
"""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import click

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from xdpctl.cli.group import COMMANDS, SECTIONS, cli, summary
from xdpctl.cli.numbers import Count, Seconds
from xdpctl.cli.settings import CommonOption

MANUAL = Path(__file__).resolve().parent
MORE = '.\\" more'
_WIDTH = 90


# --- from click to mdoc --------------------------------------------------------------------------


def escaped(text: str) -> str:
    """A text as roff shows it: hyphens that can be copied, no line that is taken for a macro."""
    text = text.replace("\\", "\\e")
    text = re.sub(r"(?<!\w)-+[A-Za-z][\w-]*", lambda flag: flag[0].replace("-", "\\-"), text)
    return re.sub(r"^([.'])", r"\\&\1", text)


def sentences(text: str) -> list[str]:
    """A text in lines, each sentence on lines of its own, as mdoc wants it."""
    lines = []
    for sentence in re.split(r"(?<=[.]) (?=[A-Z])", text):
        wrapped = textwrap.wrap(
            escaped(sentence), _WIDTH, break_long_words=False, break_on_hyphens=False
        )
        lines += [re.sub(r"^([.'])", r"\\&\1", line) for line in wrapped]
    return lines


def words(metavar: str) -> str:
    """A metavar in macros: words in capitals are arguments, others stand for themselves."""
    return _joined([_alternative(one) for one in metavar.split("|")])


def _alternative(text: str) -> str:
    shown = ""
    for part in re.findall(r"[A-Z][A-Z-]*|[a-z][a-z-]*|\d+|,?\.\.\.|[^\w.]", text):
        # A comma is punctuation to mdoc, which puts it where it belongs by itself.
        between = " " if part.startswith(",") else " Ns "
        shown += (between if shown else "") + _word(part)
    return shown


def _word(part: str) -> str:
    known = {":": r"Li \&:", "[": "Oo", "]": "Oc", ",...": ", ..."}
    if part in known:
        return known[part]
    if part[0].isupper():
        return f"Ar {part.lower()}"
    return f"Cm {part}" if part[0].isalnum() else f"Li {part}"


def _joined(shown: list[str]) -> str:
    """Alternatives, with each macro named once: Ar name | path."""
    text, before = "", ""
    for one in shown:
        macro, _, word = one.partition(" ")
        again = macro == before and " Ns " not in one
        text += (" | " if text else "") + (word if again else one)
        before = one.rpartition(" ")[0].rpartition(" ")[2]
    return text


def metavar(option: click.Option) -> str:
    """What stands for an option's value."""
    if option.metavar:
        return option.metavar
    match option.type:
        case click.Choice(choices=choices):
            return "|".join(choices)
        case Count():
            return "COUNT"
        case Seconds():
            return "SECONDS"
        case click.IntRange(min=int(least), max=int(most)) if most - least < 5:
            return "|".join(map(str, range(least, most + 1)))
    return (option.name or "").upper().replace("_", "-")


def heading(option: click.Option) -> str:
    # Short names first: click 8.1 has those of --help in no order.
    names = sorted([*option.opts, *option.secondary_opts], key=lambda name: name.startswith("--"))
    flags = [f"Fl {name[1:]}" for name in names]
    text = ".It " + " , ".join(flags)
    return text if option.is_flag or option.count else f"{text} {words(metavar(option))}"


def default(option: click.Option) -> str:
    """The default of an option, as its help has it in brackets or click shows it."""
    if found := re.search(r" \[(.+)\]\.$", option.help or ""):
        return found[1]
    if not option.show_default:
        return ""
    return f"{option.default:g}" if isinstance(option.default, float) else str(option.default)


def described(option: click.Option) -> list[str]:
    """The lines of an option: its heading, its help, its default."""
    text = re.sub(r" \[.+\]\.$", ".", option.help or "")
    text = text.replace("Show this message", "Print the help")  # click's own words
    if option.multiple and "repeated" not in text:
        text += " May be repeated."
    lines = [heading(option), *sentences(text)]
    return [*lines, *sentences(f"Default: {found}.")] if (found := default(option)) else lines


def argument(one: click.Argument) -> str:
    name = one.metavar or (one.name or "").upper()
    inner = name.strip("[]{}").replace("]...", "...")
    bare = _joined([f"Ar {part.lower()}" for part in inner.replace("...", "").split("|")])
    bare += " ..." if "..." in name else ""
    if not one.required:
        return f".Op {bare}"
    return f".Brq {bare}" if "|" in inner else f".{bare}"


# --- pages ---------------------------------------------------------------------------------------


def long_name(option: click.Option) -> str:
    """What an option is known by: its first long name, if it has one."""
    return next((name for name in option.opts if name.startswith("--")), option.opts[0])


def rewritten(text: str, section: str, write: Callable[[str], str]) -> str:
    """A page with another text in one of its sections."""
    before, head, after = text.partition(f".Sh {section}\n")
    if not head:
        sys.exit(f"a page has no section {section}")
    old, mark, rest = after.partition("\n.Sh ")
    return before + head + write(old + "\n" if mark else old) + mark[1:] + rest


class Written(NamedTuple):
    """A section with a list of options: what is before and behind it, and the text of each."""

    intro: str
    items: dict[str, str]
    rest: str


def parsed(text: str) -> Written:
    intro, rest, name, depth, done = "", "", "", 0, False
    items: dict[str, str] = {}
    for line in text.splitlines(keepends=True):
        inner = depth > 0
        depth += line.startswith(".Bl ") - line.startswith(".El")
        if done:
            rest += line
        elif depth == 1 and line.startswith(".It "):
            found = re.findall(r"Fl (-[\w-]+)", line) or re.findall(r"Fl (\w)", line)
            name = f"-{found[0]}"
            items[name] = ""
        elif depth and name:
            items[name] += line
        elif not inner and not depth:
            intro += line
        done = done or (inner and not depth)
    return Written(intro, items, rest)


def options_of(text: str, options: list[click.Option]) -> str:
    """The list of options anew, with what was written of each, and what is around the list."""
    written = parsed(text)
    made = [".Bl -tag -width Ds"]
    for option in options:
        _, more, kept = written.items.pop(long_name(option), "").partition(f"{MORE}\n")
        made += [*described(option), *([(more + kept).rstrip("\n")] if more else [])]
    if written.items:
        sys.exit(f"what is written of options that are gone: {', '.join(written.items)}")
    return written.intro + "\n".join([*made, ".El"]) + "\n" + written.rest


def own_options(command: click.Command) -> list[click.Option]:
    return [
        one
        for one in command.params
        if isinstance(one, click.Option) and not isinstance(one, CommonOption)
    ]


def common_options() -> list[click.Option]:
    context = click.Context(cli, help_option_names=["-h", "--help"])
    return [one for one in cli.get_params(context) if isinstance(one, click.Option)]


def command_page(name: str, text: str) -> str:
    """The page of a command, with what is generated."""
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    required = [one for one in own_options(command) if one.required]
    arguments = [one for one in command.params if isinstance(one, click.Argument)]
    synopsis = [
        f".Nm xdpctl {name}",
        ".Op Ar option ...",
        *(f".{heading(one).removeprefix('.It ')}" for one in required),
        *(argument(one) for one in arguments),
    ]
    text = rewritten(text, "NAME", lambda _: f".Nm xdpctl-{name}\n.Nd {summary(name)}\n")
    text = rewritten(text, "SYNOPSIS", lambda _: "\n".join(synopsis) + "\n")
    if own := own_options(command):
        text = rewritten(text, "OPTIONS", lambda old: options_of(old, own))
    return text


def list_of_commands(_old: str) -> str:
    lines = []
    for section, commands in SECTIONS.items():
        lines += [".Pp", f"{section}:", '.Bl -tag -width "swap-dispatcher" -compact']
        lines += [f".It Cm {name}\n{escaped(text)}" for name, text in commands.items()]
        lines += [".El"]
    return "\n".join(lines[1:]) + "\n"


def main_page(text: str) -> str:
    def commands(old: str) -> str:
        _, more, kept = old.partition(f"{MORE}\n")
        return list_of_commands(old) + more + kept

    text = rewritten(text, "COMMANDS", commands)
    return rewritten(text, "COMMON OPTIONS", lambda old: options_of(old, common_options()))


def pages() -> Iterator[tuple[Path, str, str]]:
    """Each page with what it has now and what it should have."""
    path = MANUAL / "xdpctl.8"
    text = path.read_text(encoding="utf-8")
    yield path, text, main_page(text)
    for name in COMMANDS:
        path = MANUAL / f"xdpctl-{name}.8"
        text = path.read_text(encoding="utf-8")
        yield path, text, command_page(name, text)


if __name__ == "__main__":
    for page, now, wanted in pages():
        if now != wanted:
            page.write_text(wanted, encoding="utf-8")
            print(page)
