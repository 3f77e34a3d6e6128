"""xdpctl.cli: command lines that come to their end without a kernel."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pytest

from tests.unit.samples import ROOT, built, needs_root
from xdpctl.cli.group import COMMANDS, cli
from xdpctl.cli.options import (
    ChangeOptions,
    ChangingCommand,
    FirstOptions,
    ProgramOptions,
    change_options,
    first_options,
    program_options,
)
from xdpctl.cli.run import report, run
from xdpctl.cli.settings import Settings
from xdpctl.errors import VerifierError

_LOOKING = {"status", "show", "history", "export", "features", "doctor"}
_READING = {*_LOOKING, "trace", "monitor", "metrics", "watch"}
CHANGING = sorted(set(COMMANDS) - _READING - {"help", "test"})
NO_INTERFACE = ("load", "nosuch0", str(ROOT / "build/tests/bpf/count.o"))


@dataclass
class Result:
    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        found = json.loads(self.out)
        assert found["schema"] == 1
        return dict(found)


Xdpctl = Callable[..., Result]


@pytest.fixture
def xdpctl(capsys: pytest.CaptureFixture[str]) -> Xdpctl:
    """Run a command line in this process."""

    def call(*arguments: str) -> Result:
        code = run(list(arguments))
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    return call


# --- usage --------------------------------------------------------------------------------------

WRONG = [
    (["nosuch"], "No such command 'nosuch'"),
    (["--nosuch"], "--nosuch"),
    (["status", "--nosuch"], "--nosuch"),
    (["status", "lo", "lo"], "lo"),
    (["status", "lo", "--interval", "2"], "--interval is for --watch"),
    (["status", "lo", "--watch", "--interval", "0"], "--interval"),
    (["show"], "INTERFACE"),
    (["load"], "INTERFACE"),
    (["load", "lo"], "FILE"),
    (["load", "-s", "xdp", "-n", "count", "lo", "f.o"], "-s and -n exclude each other"),
    (["load", "-A", "XDP_PASS,dorp", "lo", "f.o"], "'dorp'"),
    (["load", "-A", "", "lo", "f.o"], "unknown chain action"),
    (["load", "-P", "-1", "lo", "f.o"], "--prio"),
    (["load", "-P", "4294967296", "lo", "f.o"], "--prio"),
    (["load", "-P", "high", "lo", "f.o"], "--prio"),
    (["load", "-m", "fast", "lo", "f.o"], "fast"),
    (["unload", "lo"], "say what to unload"),
    (["unload", "lo", "-i", "1", "--all"], "say what to unload"),
    (["unload", "lo", "-i", "x"], "--id"),
    (["swap-dispatcher"], "--all"),
    (["swap-dispatcher", "lo", "--all"], "--all"),
    (["load", "--attach", "tape", "lo", "f.o"], "tape"),
    (["load", "--root", "tape", "lo", "f.o"], "tape"),
    (["swap-dispatcher", "--root", "link", "lo"], "link"),
    (["unload", "lo", "--all", "--root", "fused"], "--root"),
    (["--root", "fused", "load", "lo", "f.o"], "--root"),
    (["load", "--lock-timeout", "-1", "lo", "f.o"], "--lock-timeout"),
    (["--lock-timeout", "soon", "unload", "lo", "--all"], "--lock-timeout"),
    (["clean", "lo", "eth0"], "eth0"),
    (["features", "lo", "eth0"], "eth0"),
    (["doctor", "lo", "eth0"], "eth0"),
    (["doctor", "--dry-run"], "--dry-run"),
    (["test", "lo"], "COMMAND"),
    (["test", "lo", "status"], "status is no command that can be tried"),
    (["test", "lo", "swap-dispatcher"], "no command that can be tried"),
    (["test", "lo", "--packet", "00"], "COMMAND"),
    (["test", "lo", "load"], "FILE"),
    (["test", "lo", "load", "f.o", "--nosuch"], "--nosuch"),
    (["test", "--packet", "0", "lo", "load", "f.o"], "packet 1 is not hexadecimal"),
    (["test", "lo", "unload", "--all", "--packet", "00 ", "--packet", "xy"], "packet 2 is not"),
    (["watch", "lo"], "lo"),
    (["watch", "--interval", "0"], "--interval"),
    (["watch", "--dry-run"], "--dry-run"),
    (["--dry-run", "watch"], "watch has no dry run"),
    (["--dry-run", "watch", "--interval", "5"], "watch has no dry run"),
]


@pytest.mark.parametrize(
    ("arguments", "text"), [pytest.param(*one, id=" ".join(one[0])) for one in WRONG]
)
def test_usage_errors(xdpctl: Xdpctl, arguments: list[str], text: str) -> None:
    result = xdpctl(*arguments)
    assert result.code == 2
    assert result.out == ""
    assert result.err.startswith("xdpctl: ")
    assert text in result.err
    assert "Traceback" not in result.err
    assert result.err.splitlines()[-1].startswith("  do: ")


def test_a_usage_error_says_whose_help_to_read(xdpctl: Xdpctl) -> None:
    assert "see xdpctl replace --help" in xdpctl("replace", "lo").err
    assert "see xdpctl --help" in xdpctl("nosuch").err


def test_the_ends_of_the_range_of_priorities(xdpctl: Xdpctl) -> None:
    for priority in ("0", "4294967295"):
        assert xdpctl("load", "-P", priority, *NO_INTERFACE[1:]).code == 3


# --- commands and their prefixes ----------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_unique_prefixes(xdpctl: Xdpctl, command: str) -> None:
    for length in range(1, len(command) + 1):
        prefix = command[:length]
        if sum(name.startswith(prefix) for name in COMMANDS) == 1:
            result = xdpctl(prefix, "-h")
            assert result.code == 0, prefix
            assert result.out.startswith(f"Usage: xdpctl {command} ")


def test_an_ambiguous_prefix(xdpctl: Xdpctl, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(COMMANDS, "swing", "status")
    result = xdpctl("sw", "-h")
    assert result.code == 2
    assert "sw may mean swap-dispatcher or swing" in result.err
    # xdp-loader's own commands come first: its scripts say "s" for status.
    assert xdpctl("s", "-h").out.startswith("Usage: xdpctl status ")
    # A whole name is no prefix.
    monkeypatch.setitem(COMMANDS, "unloader", "status")
    assert xdpctl("unload", "-h").out.startswith("Usage: xdpctl unload ")


# --- help and version ---------------------------------------------------------------------------


def test_version(xdpctl: Xdpctl) -> None:
    assert xdpctl("--version").out == f"xdpctl {importlib.metadata.version('xdpctl')}\n"


# --- what does not exist ------------------------------------------------------------------------


def test_no_such_interface(xdpctl: Xdpctl) -> None:
    for command in (NO_INTERFACE, ("unload", "nosuch0", "--all"), ("swap-dispatcher", "nosuch0")):
        result = xdpctl(*command)
        assert result.code == 3
        assert result.err.startswith("xdpctl: no interface named nosuch0\n")
        assert "Traceback" not in result.err
        pattern = xdpctl(*(word.replace("nosuch0", "nosuch*") for word in command))
        assert (pattern.code, pattern.out) == (3, "")
        assert pattern.err.startswith("xdpctl: no interface matches nosuch*\n")


def test_no_such_file(xdpctl: Xdpctl) -> None:
    result = xdpctl("load", "lo", built("count"), "/nonexistent/file.o")
    assert (result.code, result.out) == (3, "")
    assert result.err.startswith("xdpctl: no such file: /nonexistent/file.o\n")


def test_no_such_program_or_section(xdpctl: Xdpctl) -> None:
    for option, text in (("-n", "program"), ("-s", "section")):
        result = xdpctl("load", option, "absent", "lo", built("count"))
        assert result.code == 3
        assert f"no {text} absent in" in result.err


@pytest.mark.parametrize(
    ("name", "text"),
    [("nosuch", "nosuch"), pytest.param("/etc/passwd", "cannot enter", marks=needs_root)],
)
def test_no_such_namespace(xdpctl: Xdpctl, name: str, text: str) -> None:
    result = xdpctl("status", "--netns", name)
    assert result.code == 3
    assert text in result.err


def test_a_file_that_is_no_object(xdpctl: Xdpctl) -> None:
    result = xdpctl("load", "lo", "/etc/passwd")
    assert result.code == 4
    what, how = result.err.splitlines()
    assert what == "xdpctl: /etc/passwd is not an ELF object file"
    assert how.startswith("  do: compile it first")


@needs_root
def test_no_bpffs(xdpctl: Xdpctl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = xdpctl("load", "--bpffs", str(tmp_path), "lo", built("count"))
    assert result.code == 9
    assert result.err.startswith(f"xdpctl: {tmp_path} is no BPF file system\n")
    assert f"do: mount -t bpf bpf {tmp_path}" in result.err
    assert os.listdir(tmp_path) == []
    monkeypatch.setenv("LIBXDP_BPFFS", str(tmp_path))
    assert xdpctl("load", "lo", built("count")).err == result.err


def test_without_rights(xdpctl: Xdpctl) -> None:
    """As another user, where this one is root and the other may read the checkout."""
    if os.geteuid():
        result = xdpctl("status")
    else:
        if subprocess.run(["test", "-r", ROOT / "xdpctl/cli/__init__.py"], user=65534).returncode:
            pytest.skip("missing: a checkout that others may read")
        done = subprocess.run(
            [sys.executable, "-m", "xdpctl", "status"],
            user=65534,
            cwd="/",
            capture_output=True,
            text=True,
            check=False,
        )
        result = Result(done.returncode, done.stdout, done.stderr)
    assert (result.code, result.out) == (6, "")
    assert "CAP_NET_ADMIN" in result.err
    assert "Traceback" not in result.err


# --- global options -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ("--json", *NO_INTERFACE),
        ("load", "--json", *NO_INTERFACE[1:]),
        ("load", "nosuch0", "--json", NO_INTERFACE[2]),
        (*NO_INTERFACE, "--json"),
    ],
    ids=["before", "after", "between", "last"],
)
def test_an_error_as_a_document(xdpctl: Xdpctl, arguments: list[str]) -> None:
    result = xdpctl(*arguments)
    assert result.code == 3
    error = result.json["error"]
    assert (error["error"], error["exit_code"]) == ("NotFoundError", 3)
    assert error["what"] == "no interface named nosuch0"
    assert "ip link" in error["hint"]
    assert result.err.startswith("xdpctl: no interface named nosuch0\n")


def test_a_usage_error_as_a_document(xdpctl: Xdpctl) -> None:
    error = xdpctl("--json", "load", "lo").json["error"]
    assert (error["error"], error["exit_code"]) == ("UsageError", 2)


@pytest.mark.parametrize("place", ["before", "after"])
def test_options_with_a_value_work_before_and_after(xdpctl: Xdpctl, place: str) -> None:
    option = ("--netns", "nosuch")
    result = xdpctl(*option, "status") if place == "before" else xdpctl("status", *option)
    assert result.code == 3
    assert "no network namespace nosuch" in result.err


@pytest.mark.parametrize("quiet", [False, True])
def test_the_patience_that_was_asked_for(quiet: bool, capsys: pytest.CaptureFixture[str]) -> None:
    settings = Settings(quiet=quiet)
    assert settings.enter().patience.seconds == 60
    settings.lock_timeout = 2.5
    patience = settings.enter().patience
    assert patience.seconds == 2.5
    patience.tell("waiting for eth0")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == ("" if quiet else "xdpctl: waiting for eth0\n")


@pytest.mark.parametrize("kind", ["ext", "fused", "auto", None])
def test_the_kind_of_root_that_was_asked_for(
    xdpctl: Xdpctl, kind: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of load and swap-dispatcher, before what they name and after it."""
    asked: list[object] = []

    def transact(*arguments: Any, **_options: object) -> None:
        asked.append(arguments[3].kind)
        raise VerifierError("refused")

    for module in ("many", "commands.swap"):
        monkeypatch.setattr(f"xdpctl.cli.{module}.transact", transact)
    option = ["--root", kind] if kind else []
    for command, *names in (("load", "lo", built("count")), ("swap-dispatcher", "lo")):
        for line in ([command, *option, *names], [command, *names, *option]):
            assert xdpctl(*line).err == "xdpctl: refused\n"
    assert asked == [kind] * 4


def test_what_changes_a_chain_can_be_gated_and_tried() -> None:
    context = click.Context(cli)
    for name in COMMANDS:
        command = cli.get_command(context, name)
        assert command is not None
        gated = any("--must-pass" in option.opts for option in command.params)
        assert isinstance(command, ChangingCommand) == gated, name


@click.command("sample", cls=ChangingCommand)
@program_options(placed=False)
@first_options()
@change_options()
@click.pass_obj
def sample(settings: Settings, /, **values: object) -> dict[str, object]:
    """A command with all groups of options."""
    return {**values, "json": settings.json, "patience": settings.lock_timeout}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("", {"programs": ProgramOptions(), "first": FirstOptions(), "changing": ChangeOptions()}),
        ("-m skb --protocol 1", {"first": FirstOptions(mode="skb", protocol=1)}),
        ("--attach netlink --root auto", {"first": FirstOptions(attach="netlink", kind="auto")}),
        ("-A none --no-bcc", {"programs": ProgramOptions(actions="none", bcc=False)}),
        ("-I a -D b=1 -I c", {"programs": ProgramOptions(include=("a", "c"), define=("b=1",))}),
        ("-s xdp -n one", {"programs": ProgramOptions(section="xdp", prog_name="one")}),
        ("--confirm-within 2m", {"changing": ChangeOptions(confirm_within=120)}),
        ("--must-pass f --json", {"changing": ChangeOptions(must_pass="f"), "json": True}),
        ("--lock-timeout 0", {"patience": 0}),
    ],
)
def test_options_are_handed_over_in_groups(line: str, expected: dict[str, object]) -> None:
    found = sample.main(line.split(), standalone_mode=False, obj=Settings())
    assert set(found) == {"programs", "first", "changing", "json", "patience"}
    assert {name: found[name] for name in expected} == expected


def test_an_option_is_forgotten_by_the_next_command_line(xdpctl: Xdpctl) -> None:
    assert xdpctl("--json", *NO_INTERFACE).out
    assert xdpctl(*NO_INTERFACE).out == ""


def test_tracebacks_only_where_asked_for(xdpctl: Xdpctl) -> None:
    for options in ([], ["-v"], ["-q"]):
        assert "Traceback" not in xdpctl(*options, *NO_INTERFACE).err
    for before, after in ((["-vv"], []), ([], ["-v", "-v"])):
        result = xdpctl(*before, *NO_INTERFACE, *after)
        assert "Traceback" in result.err
        assert "xdpctl: no interface named nosuch0\n" in result.err
        assert (result.code, result.out) == (3, "")


@pytest.mark.parametrize("verbose", [0, 1])
def test_details_only_where_asked_for(verbose: int, capsys: pytest.CaptureFixture[str]) -> None:
    error = VerifierError("refused", why="line 1\nline 2", hint="mend it", details="whole\nlog")
    settings = Settings()
    settings.verbose = verbose
    assert report(error, settings) == 5
    lines = ["xdpctl: refused", "  why: line 1", "       line 2", "  do: mend it"]
    assert capsys.readouterr().err.splitlines() == lines + ["whole", "log"] * verbose


# --- as a process -------------------------------------------------------------------------------


# What `status` of an interface without a chain loads beside click; each costs time to start.
LOADED_BY_STATUS = {
    "": "bpffs cli errors host kernel model observe value view",
    "bpffs.": "directory history homes lock mount notes pin places",
    "cli.": "commands commands.status complete group numbers offered outcomes run settings",
    "host.": "interfaces lasting locks output rights signals text",
    "kernel.": "abi asm btf descriptor libbpf libc link maps masks netlink records uapi xdp",
    "model.": "chain kinds labels record state terms",
    "observe.": "elsewhere members reading residue slots",
    "view.": "document status style table words",
}
LIBRARY_OF_STATUS = {
    *("copy", "dataclasses", "encodings.ascii", "fcntl", "locale", "signal", "_locale", "_socket"),
    *("math", "ctypes._layout", "__future__", "gc"),
}


def test_status_loads_what_it_needs() -> None:
    script = """
import sys, click, ctypes, warnings  # what these want differs between releases of Python
before = {*sys.modules}
from xdpctl.cli.run import run
run(["status", "lo"])
print(*{*sys.modules} - before, file=sys.stderr)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    loaded = set(done.stderr.splitlines()[-1].split())
    ours = {one for one in loaded if one.startswith("xdpctl")}
    wanted = {
        f"xdpctl.{to}{name}" for to, names in LOADED_BY_STATUS.items() for name in names.split()
    }
    assert ours - wanted == {"xdpctl"}
    assert loaded - ours <= LIBRARY_OF_STATUS


@pytest.mark.parametrize(
    "code",
    [
        "import xdpctl.cli",
        "from xdpctl.cli.run import run; assert run(['status', '--help']) == 0",
        "from xdpctl.cli.run import run; assert run(['-h']) == 0",
    ],
)
def test_nothing_heavy_is_imported_for_nothing(code: str) -> None:
    heavy = "sorted({name.split('.')[0] for name in sys.modules} & {'rich', 'pyroute2', 'bcc'})"
    script = f"import sys\n{code}\nprint({heavy}, file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stderr == "[]\n"


def test_the_module_and_the_script_are_the_same() -> None:
    outputs = {
        subprocess.run([*command, "-h"], capture_output=True, text=True, check=True).stdout
        for command in ([sys.executable, "-m", "xdpctl"], [Path(sys.executable).parent / "xdpctl"])
    }
    assert len(outputs) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_command(tmp_path: Path, number: signal.Signals) -> None:
    """It waits for packets that do not come."""
    words = ["--json", "test", "--pcap", "-", "lo", "load", "x.o"]
    command = [sys.executable, "-m", "xdpctl", *words]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdin
        # More than a pipe holds: when it is written, the command is reading.
        head = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)
        process.stdin.write(head + (struct.pack("<4I", 0, 0, 60, 60) + bytes(60)) * 3000)
        process.stdin.flush()
        process.send_signal(number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=20)
        assert process.stdout
        assert process.stderr
        out, err = process.stdout.read().decode(), process.stderr.read().decode()
    assert process.returncode == 128 + number
    assert err == f"xdpctl: interrupted by signal {number:d}\n"
    assert json.loads(out)["error"]["exit_code"] == 128 + number


def test_a_reader_that_goes_away() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "xdpctl", "-h"],
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, "")


def test_completion_offers_what_a_shell_can_show(monkeypatch: pytest.MonkeyPatch) -> None:
    from xdpctl.cli import complete
    from xdpctl.host.interfaces import Interface

    names = ["eth0", "e\x1b[31m", "ecafé", "e\udce9", "e\u202eb", "e\nb"]
    found = [Interface(name, 1, "1") for name in names]
    monkeypatch.setattr(Interface, "all", classmethod(lambda _cls: found))
    context = click.Context(click.Command("x"), obj=Settings())
    assert complete.interfaces(context, click.Argument(["x"]), "e") == ["eth0", "ecafé"]
