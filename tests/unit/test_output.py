"""xdpctl.host.output: outputs that are closed or full, and what is printed of what others named."""

from __future__ import annotations

import io
import itertools
import os
import subprocess
import sys
from pathlib import Path
from typing import IO, cast

import pytest

from tests.unit.samples import ROOT
from tests.unit.terminal import on_terminal
from xdpctl.errors import NotFoundError, OutputError, UsageError
from xdpctl.host import output, signals
from xdpctl.host.text import decoded, lines, plain, printable
from xdpctl.view import live
from xdpctl.view.style import Span, Style


def xdpctl(words: str) -> tuple[int, str]:
    """How a command line of a shell ends, and what is on its standard error."""
    done = subprocess.run(
        ["sh", "-c", f"{sys.executable} -m xdpctl {words}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stderr


# --- outputs that cannot be written -------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "bad"),
    [("--version", ">&-"), ("load -h", ">/dev/full"), ("features lo --json", ">&- <&-")],
)
def test_what_cannot_be_told(words: str, bad: str) -> None:
    """It has an exit code of its own, and one line."""
    code, err = xdpctl(f"{words} {bad}")
    assert code == OutputError.exit_code
    assert err.startswith("xdpctl: standard output cannot be written: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("status nosuch0", NotFoundError.exit_code),
        pytest.param("--json load", UsageError.exit_code, marks=pytest.mark.long),
    ],
)
@pytest.mark.parametrize("bad", [">&-", ">/dev/full", "2>&-", "2>/dev/full", ">&- 2>&- <&-"])
def test_what_failed_ends_as_it_failed(words: str, code: int, bad: str) -> None:
    """Whether that can be told or not."""
    found, err = xdpctl(f"{words} {bad}")
    assert found == code
    assert "Traceback" not in err
    assert "Exception" not in err


def test_a_closed_input(tmp_path: Path) -> None:
    assert xdpctl("help <&-") == (0, "")


@pytest.mark.parametrize("number", [0, 1, 2])
def test_no_file_takes_the_number_of_a_closed_stream(number: int) -> None:
    """Or a program's descriptor would be written to as standard output."""
    code = (
        "import os\n"
        "from xdpctl.host import output\n"
        "with output.prepared():\n"
        "    os._exit(os.open('/dev/null', os.O_RDONLY) < 3)\n"
    )
    words = [sys.executable, "-c", code]
    assert subprocess.run(words, preexec_fn=lambda: os.close(number), check=False).returncode == 0


class _Full(io.TextIOWrapper):
    """A file in which nothing has room."""

    def __init__(self) -> None:
        super().__init__(io.FileIO("/dev/full", "w"), encoding="utf-8", write_through=True)


def test_before_a_change_is_live_it_ends_the_command() -> None:
    with signals.handled():
        stream = output.Stream(_Full(), 1)
        for _time in range(2):
            with pytest.raises(OutputError, match="No space left"):
                stream.write("a step")


def test_from_a_live_change_on_it_is_noted() -> None:
    """What is to be done then is done."""
    with signals.handled():
        stream = output.Stream(_Full(), 1)
        signals.hold(live=True)
        assert stream.write("loaded") == 6
        stream.write("another")
        stream.flush()
    error = output.untold((stream, output.Stream(io.StringIO(), 2)))
    assert error is not None
    assert "what was asked is done, but standard output" in str(error)


def test_standard_error_never_ends_a_command() -> None:
    with signals.handled():
        stream = output.Stream(_Full(), 2)
        stream.write("a warning")
        stream.flush()
    assert output.untold((output.Stream(io.StringIO(), 1), stream))


# --- text from outside --------------------------------------------------------------------------

HOSTILE = [
    (b"caf\xc3\xa9", "café"),
    (b"\xd0\xb6\xd1\x83\xd0\xba", "жук"),
    (b"caf\xe9", r"caf\xe9"),
    (b"\xd0\xb6\xd1\x83\xd0", r"жу\xd0"),  # cut within a letter
    (b"a\x1b[31mb", r"a\x1b[31mb"),
    (b"a\nxdpctl: b", r"a\nxdpctl: b"),
    (b"a\rb\x00\x7f\x9b", r"a\rb\x00\x7f\x9b"),
    ("a\u202eb\u200f\u2028".encode(), r"a\u202eb\u200f\u2028"),
    ("\x9b0m".encode(), r"\x9b0m"),
]


@pytest.mark.parametrize(("data", "text"), HOSTILE)
def test_names_that_obey_nobody(data: bytes, text: str) -> None:
    assert os.fsencode(decoded(data)) == data
    assert printable(decoded(data)) == text
    printable(decoded(data)).encode()
    assert lines(decoded(data)) == text.replace(r"\n", "\n")
    plain({"name": [decoded(data)]})["name"][0].encode()


@pytest.mark.parametrize(("data", "text"), HOSTILE)
def test_what_is_printed_obeys_nobody(data: bytes, text: str) -> None:
    out = io.StringIO()
    print(decoded(data), file=output.Stream(out, 1))
    assert out.getvalue() == text.replace(r"\n", "\n") + "\n"


def test_what_rich_prints_is_its_own() -> None:
    """Colours, on a terminal."""
    from rich.console import Console

    out = io.StringIO()
    stream = cast(IO[str], output.Stream(out, 1))
    Console(file=stream, force_terminal=True).print("[red]a[/red]")
    assert "\x1b[31ma" in out.getvalue()


def test_a_stream_that_is_closed_is_flushed_no_more() -> None:
    """As a finalizer does, whose error Python 3.13 and later print."""
    out = io.TextIOWrapper(io.BytesIO())
    stream = output.Stream(out, 1)
    out.close()
    for one in (stream, stream.rich_proxied_file, stream.buffer):
        one.flush()


def test_what_is_shown_live_draws_too() -> None:
    """Rich puts a stream of its own in the place of ours then, which must not lead back to ours."""
    looks = itertools.count()
    picture = live.Screen[int](lambda found: [[Span("one")], [Span(f"look {found}")]], print)

    def work() -> None:
        with output.prepared():
            live.intervals(
                lambda: next(looks), picture, Style(), 0, empty=0, enough=lambda found: found > 1
            )

    shown = on_terminal(work)
    assert "look 2" in shown
    assert "\x1b[1A" in shown
    assert r"\x1b" not in shown
