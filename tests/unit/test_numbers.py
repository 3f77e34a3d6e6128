"""Numbers and texts of every kind, in options and in records: told, never a traceback."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import click
import pytest

from tests.unit.samples import ROOT
from xdpctl.bpffs.history import is_there
from xdpctl.cli import xdp_loader
from xdpctl.cli.group import COMMANDS, cli
from xdpctl.cli.run import run
from xdpctl.model.generation import Generation
from xdpctl.model.labels import Asked, Origin
from xdpctl.model.terms import Pending

NINES = "9" * 5000
TEXTS = [
    *("", " ", "nan", "inf", "-inf", "1e999", "1e400", "-0", "-1", "0", "0x10", "1_0", "٣", "²"),
    *("4294967296", "4294967297", str(1 << 63), str(1 << 64), "9" * 4299, NINES, "1e-400"),
    *("\n", "\x1b[31m", "\udce9", "a" * 5000, "-", "--", "@x", "*", "[", "0.0000001", "1" * 400),
]
SEED = int(os.environ.get("XDPCTL_SEED", time.time_ns() % 1_000_000))


def options() -> Iterator[tuple[str, str]]:
    """Each option with a value, of each command."""
    context = click.Context(cli)
    for name in COMMANDS:
        command = cli.get_command(context, name)
        assert command
        for one in command.params:
            if isinstance(one, click.Option) and not one.is_flag and not one.count:
                yield name, max(one.opts, key=len)


@pytest.mark.parametrize("count", [5, pytest.param(len(TEXTS), marks=pytest.mark.long)])
@pytest.mark.parametrize("command", COMMANDS)
def test_values_of_options(command: str, count: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever stands there: an error of ours, without a character that a terminal obeys."""
    chance = random.Random(SEED)
    for name, option in options():
        for text in chance.sample(TEXTS, count) if name == command else ():
            # What is asked for does not exist: nothing is changed, nothing runs for long.
            words = ["--bpffs", "/nonexistent", name, f"{option}={text}", "nosuch0", "/nosuch.o"]
            code = run(words)
            captured = capsys.readouterr()
            assert code in range(1, 17), (SEED, name, option, text[:50], captured)
            if "\n" not in text:
                assert all(one.isprintable() or one == "\n" for one in captured.err)


def test_options_at_random(capsys: pytest.CaptureFixture[str]) -> None:
    chance = random.Random(SEED)
    known = list(options())
    for _time in range(300):
        name = chance.choice(list(COMMANDS))
        own = [option for command, option in known if command == name]
        words = [f"{chance.choice(own)}={chance.choice(TEXTS)}" for _ in range(chance.randrange(4))]
        places = [chance.choice(TEXTS) for _ in range(chance.randrange(4))]
        code = run(["--bpffs", "/nonexistent", "--dry-run", name, *words, "--", *places])
        err = capsys.readouterr().err
        assert code in range(17), (SEED, name, words, places)
        assert "Traceback" not in err


@pytest.mark.parametrize("text", TEXTS)
def test_numbers_of_xdp_loader(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["load", "-P", text, "nosuch0", "/nosuch.o"], ["unload", "nosuch0", "-i", text]):
        assert xdp_loader.run(words) in range(1, 256)
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--interval=nan", "--interval=inf", "--interval=1e300"])
@pytest.mark.parametrize("command", ["watch", "monitor", "stats", "status"])
def test_times_that_are_none(command: str, option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([command, option, *["lo"] * (command in ("stats", "status"))]) == 2
    assert "--interval" in capsys.readouterr().err


def test_a_patience_without_an_end() -> None:
    for text in ("nan", "inf"):
        assert run(["unload", "lo", "--all", "--lock-timeout", text]) == 2


# --- records ------------------------------------------------------------------------------------

NUMBERS = [*TEXTS, "4294967295", "18446744073709551616", "-5"]


def _random_head(chance: random.Random) -> str:
    words = ["7", "8", "1700000000", "2", "1", "2", "2", "0", "native", "link", "ext", "load"]
    words[chance.randrange(8)] = chance.choice(NUMBERS)
    return " ".join(words)


def _random_members(chance: random.Random) -> str:
    words = ["7", "50", "4", "0", "0", "name", "", "", ""]
    words[chance.randrange(5)] = chance.choice(NUMBERS)
    return " ".join(words)


def test_generations_with_numbers_out_of_range() -> None:
    """They are none, or everything that is done with one works."""
    chance = random.Random(SEED)
    assert Generation.parse(1, "7 8 1700000000 2 1 2 2 0 native link ext load", "")
    for _time in range(2000):
        found = Generation.parse(1, _random_head(chance), _random_members(chance))
        if found:
            time.strftime("%Y", time.localtime(found.time))
            numbers = [
                found.before or 0,
                found.after or 0,
                *(one.id for one in found.chain.members),
            ]
            assert all(0 <= number < 1 << 32 for number in numbers), SEED


@pytest.mark.parametrize("parse", [Pending.parse, Origin.parse, Asked.parse])
def test_other_records(parse: Callable[[str], object]) -> None:
    chance = random.Random(SEED)
    for _time in range(2000):
        parse(" ".join(chance.choice(NUMBERS) for _ in range(chance.randrange(5))))


def test_an_id_that_no_program_can_have() -> None:
    """It is not cut down to one that some program has."""
    assert not any(is_there((1 << 32) + number) for number in range(1, 2000))


# --- clocks -------------------------------------------------------------------------------------


def test_a_time_namespace() -> None:
    """A deadline is the same time in each."""
    code = "from xdpctl.model.terms import now; print(now())"
    words = ["unshare", "--time", "--boottime", "1000000", sys.executable, "-c", code]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"missing: time namespaces ({done.stderr.strip()})")
    here = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    assert abs(int(done.stdout) - here) < 60e9
