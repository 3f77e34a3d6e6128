"""Command lines in which options belong to the word behind them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import click

from ..errors import UsageError
from ..value import Value
from .options import PROGRAM_OPTIONS, ChangingCommand, ProgramOptions

Given = tuple[click.Option, object]
"""An option with its value, as it was given once."""


class Leading(Value):
    """The options that some words begin with, as words and as they are given, and what follows.

    After ``--`` there are no options any more: it has `ended` them.
    """

    words: list[str]
    given: list[Given]
    rest: list[str]
    ended: bool


def leading(command: click.Command, context: click.Context, words: Sequence[str]) -> Leading:
    """Take the options off the beginning of some words. Raises what click raises for wrong ones."""
    options = [one for one in command.get_params(context) if isinstance(one, click.Option)]
    reader = click.Command(command.name, params=list(options), add_help_option=False)
    before = context.allow_interspersed_args
    context.allow_interspersed_args = False  # stop at the first word that is no option
    try:
        values, rest, order = reader.make_parser(context).parse_args(list(words))
    finally:
        context.allow_interspersed_args = before
    taken = list(words[: len(words) - len(rest)])
    ended = taken[-1:] == ["--"]
    given = list(_in_order(values, order))
    return Leading(taken[:-1] if ended else taken, given, list(rest), ended)


def _in_order(values: dict[str, object], order: Sequence[click.Parameter]) -> Iterator[Given]:
    several = {name: iter(value) for name, value in values.items() if isinstance(value, list)}
    for option in order:
        assert isinstance(option, click.Option)
        name = option.name or ""
        yield option, next(several[name]) if name in several else values[name]


def _words(given: Sequence[Given]) -> Iterator[str]:
    """Options as words again."""
    for option, value in given:
        name = max(option.opts, key=len)
        if option.count or (option.is_flag and value):
            yield name
        elif option.is_flag:
            yield max(option.secondary_opts, key=len)
        else:
            yield f"{name}={value}"


class ByFile(ChangingCommand):
    """A command with an interface and several files, each with options of its own or all with some.

    Its function gets `by_file`, the options of each file, or None if all have the same.
    """

    by_file: tuple[ProgramOptions, ...] | None = None

    def parse_args(self, context: click.Context, words: list[str]) -> list[str]:
        self.by_file = None
        if not context.resilient_parsing:
            words = self._parted(context, words)
        return super().parse_args(context, words)

    def invoke(self, context: click.Context) -> object:
        context.params["by_file"] = self.by_file
        return super().invoke(context)

    def _parted(self, context: click.Context, words: list[str]) -> list[str]:
        """The words without the options of single files, which are kept."""
        fronts, places, rest = [leading(self, context, words)], list[str](), [*words]
        while fronts[-1].rest:
            place, *rest = fronts[-1].rest
            ended = fronts[-1].ended
            fronts.append(Leading([], [], rest, ended) if ended else leading(self, context, rest))
            places.append(place)
        if len(places) <= 2:
            return words  # one file has them all
        for_all, *own, behind = [[one for one in front.given if _is_own(one)] for front in fronts]
        if not any(own[1:]):  # none stands between files
            _check_once([*for_all, *own[0], *behind])
            return words
        if behind:
            raise UsageError(
                f"{behind[0][0].opts[0]} stands behind the last FILE",
                why="as options stand between FILEs, each is for the FILE behind it",
                hint="put it in front of its FILE, or in front of INTERFACE if it is for all",
            )
        self.by_file = tuple(self._options(context, [*for_all, *each]) for each in own)
        others = [one for front in fronts for one in front.given if not _is_own(one)]
        return [*_words(others), "--", *places]

    def _options(self, context: click.Context, given: Sequence[Given]) -> ProgramOptions:
        params = [one for one in self.params if one.name in PROGRAM_OPTIONS]
        command = click.Command(self.name, params=params, add_help_option=False)
        name = context.info_name or self.name
        with command.make_context(name, [*_words(given)], parent=context.parent) as within:
            return ProgramOptions(**within.params)


def _is_own(given: Given) -> bool:
    return given[0].name in PROGRAM_OPTIONS


def _check_once(given: Sequence[Given]) -> None:
    single = [option for option, _value in given if not option.multiple]
    for number, option in enumerate(single):
        if option in single[:number]:
            raise UsageError(
                f"{option.opts[0]} is given twice for all FILEs",
                hint="in front of each FILE there can be one for it alone",
            )
