"""xdpctl.cli.xdp_loader: xdp-loader's command line, without a kernel."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.samples import built, fresh, running, state_of
from xdpctl import cli, errors
from xdpctl.cli import group
from xdpctl.cli import run as command_line
from xdpctl.cli import xdp_loader as loader
from xdpctl.cli.settings import Settings
from xdpctl.host import rights
from xdpctl.host.interfaces import Interface
from xdpctl.model.chain import Chain, Member
from xdpctl.model.request import Request
from xdpctl.model.state import State

Line = tuple[int, str, str]
XdpLoader = Callable[..., Line]


@pytest.fixture
def xdp_loader(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> XdpLoader:
    """Run a command line in this process, as if the rights were there; its code and words."""
    monkeypatch.setattr(rights, "require", lambda: None)
    monkeypatch.delenv("LIBXDP_SKIP_DISPATCHER", raising=False)

    def call(*words: str) -> Line:
        code = loader.run(words)
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return code, captured.out, captured.err

    return call


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The command lines of xdpctl that would be run."""
    found: list[list[str]] = []

    def run(arguments: list[str], settings: object) -> int:
        found.append(arguments)
        return 0

    monkeypatch.setattr(command_line, "run", run)
    return found


# --- the name -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("xdp-loader", 255),
        ("/usr/local/sbin/xdp-loader", 255),
        ("xdpctl", 0),
        ("/x/__main__.py", 0),
    ],
)
def test_the_name_decides(monkeypatch: pytest.MonkeyPatch, name: str, code: int) -> None:
    monkeypatch.setattr(sys, "argv", [name, "help"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == code


def test_who_calls_main_with_words_means_xdpctl(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["xdp-loader"])
    with pytest.raises(SystemExit) as ended:
        cli.main(["help"])
    assert ended.value.code == 0


# --- what becomes of a command line -------------------------------------------------------------

TRANSLATED = [
    ("load lo a.o", "load -q --mode=native -- lo a.o"),
    ("l lo a.o b.o -v", "load -v --mode=native -- lo a.o b.o"),
    ("load -vv lo -v a.o", "load -v --mode=native -- lo a.o"),
    ("load -m skb lo a.o", "load -q --mode=skb -- lo a.o"),
    (
        "load --pri 9 --act XDP_TX lo a.o",
        "load -q --mode=native --prio=9 --actions=XDP_TX -- lo a.o",
    ),
    ("load lo -P7 a.o -AXDP_TX,", "load -q --mode=native --prio=7 --actions=XDP_TX -- lo a.o"),
    ("load lo a.o -P 1 -P 2", "load -q --mode=native --prio=2 -- lo a.o"),
    ("load lo a.o -P 0 -A none", "load -q --mode=native --prio=0 --actions=none -- lo a.o"),
    ("load lo a.o -P x -A ,", "load -q --mode=native -- lo a.o"),
    ("load lo a.o -P 0x10", "load -q --mode=native -- lo a.o"),
    ("load lo a.o -P 5x", "load -q --mode=native --prio=5 -- lo a.o"),
    ("load lo a.o --prog-n x", "load -q --mode=native --prog-name=x -- lo a.o"),
    ("load -s xdp -p /m -- lo a.o", "load -q --mode=native --pin-path=/m --section=xdp -- lo a.o"),
    ("load -- lo -a.o", "load -q --mode=native -- lo -a.o"),
    ("unload lo -i 5", "unload -q --id=5 -- lo"),
    ("u -i 5 -i 6 lo", "unload -q --id=6 -- lo"),
    ("u lo --a -i 5", "unload -q --all -- lo"),
    ("s", "status -q --"),
    ("stat -v lo", "status -v -- lo"),
    ("c lo", "clean -q -- lo"),
]


@pytest.mark.parametrize(("words", "expected"), TRANSLATED)
def test_translation(
    xdp_loader: XdpLoader, asked: list[list[str]], words: str, expected: str
) -> None:
    assert xdp_loader(*words.split())[0] == 0
    assert asked == [expected.split()]


REFUSED = [
    "load", "load lo", "load nosuch0 a.o", "load lo* a.o", "load lo a.o -P", "load lo a.o -P -1",
    "load lo a.o -P 4294967296", "load lo a.o -A FOO", "load lo a.o -A pass", "load --p 9 lo a.o",
    "load --json lo a.o", "load --root ext lo a.o", "load --attach link lo a.o", "load -x lo a.o",
    "load --verbose=2 lo a.o", "unload", "unload lo", "unload lo -i 0", "unload lo -i x",
    "unload lo -i -3", "unload -a", "unload lo lo -a", "unload lo -n count", "status lo lo",
    "status nosuch0", "status --v", "clean lo lo", "clean nosuch0",
]  # fmt: skip


@pytest.mark.parametrize("words", REFUSED)
def test_a_command_line_that_is_refused(
    xdp_loader: XdpLoader, asked: list[list[str]], words: str
) -> None:
    code, out, err = xdp_loader(*words.split())
    assert (code, asked) == (1, [])
    assert err.startswith("xdp-loader: ")
    assert out.startswith(f"\nUsage: xdp-loader {words.split()[0]} ")


@pytest.mark.parametrize("word", ["nosuch", "-h", "--help", "--version", "watch", "swap", "Load"])
def test_an_unknown_command(xdp_loader: XdpLoader, asked: list[list[str]], word: str) -> None:
    assert xdp_loader(word, "lo") == (
        1,
        "",
        f"Command '{word}' is unknown, try 'xdp-loader help'.\n",
    )


@pytest.mark.parametrize("words", [[], ["help"], ["h"], ["help", "load"], ["help", "--nosuch"]])
def test_the_list_of_commands(xdp_loader: XdpLoader, words: list[str]) -> None:
    code, out, err = xdp_loader(*words)
    assert (code, out) == (255, "")
    for name in loader.commands():
        assert f"\n  {name} " in err


@pytest.mark.parametrize("name", ["load", "unload", "status", "clean"])
def test_help_and_version_are_failures(xdp_loader: XdpLoader, name: str) -> None:
    for option in ("-h", "--help", "--he", "-vh"):
        code, out, err = xdp_loader(name, option)
        assert (code, err) == (1, "")
        assert out.startswith(f"Usage: xdp-loader {name} [options] ")
        for long in (*loader.FORMS[name].options, "verbose", "version", "help"):
            assert f"--{long.rstrip('=')}" in out
    code, out, err = xdp_loader(name, "--version")
    assert (code, err) == (1, "")
    words = out.split()
    assert words[:3] == ["xdp-loader", "version", loader.LIKE]
    assert words[3:6] == ["using", "libbpf", "version"]


def test_commands_of_later_versions_come_when_xdpctl_has_them(
    xdp_loader: XdpLoader, asked: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(group.COMMANDS, "features", "features")
    assert xdp_loader("f", "lo")[0] == 0
    assert asked == [["features", "-q", "--", "lo"]]
    assert xdp_loader("features")[0] == 1
    monkeypatch.delitem(group.COMMANDS, "features")
    assert xdp_loader("f", "lo")[2].startswith("Command 'f' is unknown")


# --- how it ends --------------------------------------------------------------------------------


def numbered(kind: type[errors.XdpctlError], cause: int = 0, own: int = 0) -> errors.XdpctlError:
    error = kind("what", number=own)
    error.__cause__ = errors.KernelError("call", cause) if cause else None
    return error


def test_every_class_has_a_number() -> None:
    known = {*loader._ERRNO, *loader._ERRNO_ELSE, errors.UsageError, errors.Interrupted}
    known.add(errors.DiffersError)  # of apply --check, which xdp-loader has not
    assert known == {errors.XdpctlError, *errors.XdpctlError.__subclasses__()}


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (numbered(errors.HookBusyError), 240),
        (numbered(errors.HookBusyError, cause=errno.EEXIST), 240),
        (numbered(errors.UnsupportedError), 161),
        (numbered(errors.UnsupportedError, own=errno.EBUSY), 240),
        (numbered(errors.UnsupportedError, cause=errno.ERANGE), 222),
        (numbered(errors.NotFoundError), 254),
        (numbered(errors.BadObjectError), 234),
        (numbered(errors.BadObjectError, own=4001), 95),
        (numbered(errors.BadObjectError, own=4000, cause=errno.EISDIR), 96),
        (numbered(errors.VerifierError), 243),
        (numbered(errors.VerifierError, cause=errno.EINVAL), 234),
        (numbered(errors.ChainFullError), 249),
        (numbered(errors.UsageError), 1),
        (errors.KernelError("call", errno.ENOMEM).explained(), 244),
    ],
)
def test_codes(error: errors.XdpctlError, code: int) -> None:
    for command in ("load", "clean", "status", "features"):
        assert loader.exit_code(command, error) == code
    assert loader.exit_code("unload", error) == 1


def test_a_signal_is_a_signal() -> None:
    assert {loader.exit_code(name, errors.Interrupted(15)) for name in loader.FORMS} == {143}


@pytest.mark.parametrize(("user", "code"), [(0, 255), (65534, 1)])
def test_without_rights(monkeypatch: pytest.MonkeyPatch, user: int, code: int) -> None:
    """Who is not root is told before anything is looked at; a root without rights gets EPERM."""
    monkeypatch.setattr(os, "geteuid", lambda: user)
    monkeypatch.setattr(rights, "missing", lambda: ["CAP_BPF"])
    assert loader.run(["load", "lo", "/nonexistent.o"]) == code
    assert loader.run(["unload", "lo", "-a"]) == 1


OBJECTS = [
    (["/nonexistent.o"], 254),
    (["count.o", "/nonexistent.o"], 254),
    (["/etc/passwd"], 95),
    (["/tmp"], 96),
    (["-"], 254),
    (["-s", "nosuch", "count.o"], 254),
    (["-n", "nosuch", "count.o"], 254),
    (["-n", "count", "-s", "xdp", "count.o"], 1),
    (["-m", "fast", "count.o"], 1),
    (["-m", "generic", "count.o"], 1),
    (["noprog.o"], 254),
    (["wrongtype.o"], 234),
    (["config_bad.o"], 161),
]


@pytest.mark.parametrize(("words", "code"), OBJECTS, ids=str)
def test_what_is_wrong_with_an_object(
    xdp_loader: XdpLoader, words: list[str], code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(built("count")).parent)
    assert xdp_loader("load", "lo", *words)[0] == code
    if code == 1:
        assert "\nUsage: xdp-loader load " in xdp_loader("load", "lo", *words)[1]


# --- what is different for the commands ---------------------------------------------------------


def test_the_commands_hear_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A first root over netlink, no pins of maps unasked, and the first of several programs."""
    from xdpctl.cli.commands import load

    asked = {}
    monkeypatch.setattr(rights, "require", lambda: None)
    targets: list[Callable[[State], Chain]] = []

    requests: list[Request] = []

    def change(*words: Any) -> None:
        targets.append(words[4])
        requests.append(words[-1])

    monkeypatch.setattr(load, "change", change)

    def member(_path: str, **options: Any) -> Member:
        asked.update(options)
        return fresh()

    monkeypatch.setattr("xdpctl.programs.objects.member", member)
    assert loader.run(["load", "lo", "a.o"]) == 0
    assert requests[-1] == Request(mode="native", first_attach="netlink")
    assert (asked["pin_path"], asked["first_of_several"]) == (None, True)
    assert command_line.run(["load", "lo", "a.o"]) == 0
    assert (requests[-1], asked["first_of_several"]) == (Request(), False)
    assert asked["pin_path"]
    full = state_of([running("one", number) for number in range(1, 11)])
    with pytest.raises(errors.ChainFullError, match="would have 11 programs"):
        targets[0](full)
    assert len(targets[1](full).members) == 11


def test_reports_go_to_standard_error(
    xdp_loader: XdpLoader, monkeypatch: pytest.MonkeyPatch
) -> None:
    from xdpctl.cli.commands import clean, load

    monkeypatch.setattr(load, "change", lambda *_words, **_options: print("loaded"))
    assert xdp_loader("load", "lo", built("count")) == (0, "", "loaded\n")
    monkeypatch.setattr("xdpctl.bpffs.mount.Bpffs.check", lambda _self: None)
    monkeypatch.setattr(clean, "clean", lambda *_words: ())
    line = "Cleaning up detached XDP program links for "
    assert xdp_loader("clean") == (0, f"{line}all interfaces\n", "")
    assert xdp_loader("clean", "lo") == (0, f"{line}lo\n", "")


@pytest.mark.parametrize(
    ("said", "files", "kind"),
    [("1", 1, "bare"), ("1", 2, None), ("0", 1, None), ("", 1, None), ("yes", 1, None)],
)
def test_a_single_program_without_a_dispatcher(
    xdp_loader: XdpLoader,
    monkeypatch: pytest.MonkeyPatch,
    said: str,
    files: int,
    kind: str | None,
) -> None:
    """Several have one all the same, as with 1.3.1."""
    from xdpctl.cli.commands import load

    asked: list[object] = []
    monkeypatch.setattr(load, "change", lambda *words: asked.append(words[-1].kind))
    monkeypatch.setenv("LIBXDP_SKIP_DISPATCHER", said)
    assert xdp_loader("load", "lo", *[built("count")] * files) == (0, "", "")
    assert asked == [kind]


def test_nobody_is_asked_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    settings = Settings()
    settings.habits = loader.habits("load")
    assert not settings._mount_wanted("/nonexistent")
    monkeypatch.setenv("LIBXDP_BPFFS_AUTOMOUNT", "1")
    assert settings._mount_wanted("/nonexistent")


def test_an_interface_is_no_pattern() -> None:
    assert Interface.matching("l*")  # for xdpctl it is
    assert loader.run(["status", "l*"]) == 1
