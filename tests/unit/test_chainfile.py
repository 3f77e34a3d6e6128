"""xdpctl.programs.chainfile: what a file says and may not say, and the target that comes of it."""

from __future__ import annotations

import contextlib
import fnmatch
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.unit.samples import DROP, PASS, TX, built, running, standard_input, state_of
from xdpctl.cli.commands import apply
from xdpctl.cli.many import Wanted
from xdpctl.cli.run import run
from xdpctl.errors import BadObjectError, NotFoundError, XdpctlError
from xdpctl.host.interfaces import Interface
from xdpctl.model.chain import Chain, Member, Rules
from xdpctl.model.request import Request
from xdpctl.model.source import Image, Source, Tail, Tuning
from xdpctl.model.state import State
from xdpctl.programs import chainfile, given, objects
from xdpctl.programs.chainfile import LIMIT, Written
from xdpctl.programs.clang import Build
from xdpctl.programs.image import Tables

EMPTY = state_of(None)
COUNT = '[[program]]\nfile = "count.o"\n'
PASSES = '[[program]]\nfile = "pass.o"\n'
Read = Callable[[str | bytes], Written]


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A directory with objects for files to name."""
    for name in ("count", "pass", "ret", "noprog", "pinned"):
        shutil.copy(built(name), tmp_path)
    return tmp_path


@pytest.fixture
def read(here: Path) -> Read:
    """Write a file there and read it."""

    def call(text: str | bytes) -> Written:
        path = here / "chain.toml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        with chainfile.read(str(path)).opened("/bpffs") as written:
            return written

    return call


def source(member: Member) -> Source:
    assert member.source is not None
    return member.source


# --- what a file says ---------------------------------------------------------------------------


def test_a_file_that_says_everything(read: Read, here: Path) -> None:
    written = read(
        """
        mode = "skb"
        attach = "netlink"
        root = "fused"
        protocol = 3
        on-end = "drop"
        on-vacant = "drop"

        [[program]]
        file = "pinned.o"
        section = "xdp"
        prio = 10
        actions = ["pass", "XDP_TX"]
        name = "first"
        before = ["second"]
        maps = "new"
        pin-path = "/bpffs/mine"

        [[program]]
        file = "./pass.o"
        prog-name = "pass"
        prio = 0
        actions = "drop"
        name = "second"
        after = "first"
        maps = ["keep", "packets=new"]
        constants = {}
        entries = {}
        """
    )
    expected = Request(mode="skb", attach="netlink", kind="fused", protocol=3)
    assert written.request == expected
    target = written.target(EMPTY)
    assert target.rules == Rules(on_end=1, on_vacant=1)
    first, second = target.members
    assert (first.name, first.label, first.priority, first.actions) == (
        "pinned",
        "first",
        10,
        PASS | TX,
    )
    assert (first.before, second.after) == (("second",), ("first",))
    assert (second.label, second.priority, second.actions) == ("second", 0, DROP)
    assert (source(first).path, source(first).pin_path) == (str(here / "pinned.o"), "/bpffs/mine")
    assert (source(second).path, source(second).pin_path) == (f"{here}/./pass.o", "/bpffs")
    busy = state_of([running("count", 9, label="first"), running("other", 8, label="second")])
    first, second = written.target(busy).members
    assert (first.replaces, source(first).maps_of) == (9, 0)
    assert (second.replaces, source(second).maps_of) == (8, 8)
    assert source(second).maps == (("packets", "new"),)


def test_what_a_file_does_not_say_is_as_usual(read: Read) -> None:
    """Not as it is: but for the counting, which decides nothing."""
    written = read(COUNT)
    state = state_of([running("other", 9)])
    assert state.root is not None
    rules = Rules(on_end=1, on_vacant=1, counted=1)
    state = replace(state, root=replace(state.root, rules=rules))
    assert state.chain.rules == rules
    target = written.target(state)
    assert (written.request, target.rules) == (Request(), Rules(counted=1))
    (member,) = target.members
    assert (member.priority, member.actions, member.label) == (50, PASS, "")


def test_programs_stand_in_the_order_of_a_load(read: Read) -> None:
    def order(text: str) -> list[str]:
        return [one.name for one in read(text).target(EMPTY).members]

    assert order(PASSES + COUNT) == ["count", "pass"]
    assert order(PASSES + "prio = 1\n" + COUNT) == ["pass", "count"]
    assert order(PASSES + 'before = "count"\n' + COUNT) == ["pass", "count"]
    assert order(COUNT + 'name = "x"\nafter = "pass"\n' + PASSES) == ["pass", "count"]
    assert order(COUNT + "actions = []\n") == ["count"]


def test_no_verdict_that_hands_on(read: Read) -> None:
    for words in ("[]", '"none"'):
        (member,) = read(COUNT + f"actions = {words}").target(EMPTY).members
        assert member.actions == 0


def test_an_empty_list_leaves_an_empty_root(read: Read) -> None:
    assert read("program = []").target(state_of([running("one", 1)])) == Chain(kept=True)
    assert read("program = []").target(state_of(None)) == Chain(kept=True)


# --- who takes whose place ----------------------------------------------------------------------


def test_what_is_called_like_one_that_runs_takes_its_place(read: Read) -> None:
    written = read(COUNT + PASSES + 'name = "last"')
    busy = state_of(
        [running("pass", 1), running("other", 2, label="count"), running("x", 3, label="last")]
    )
    count, last = written.target(busy).members
    assert (count.replaces, source(count).maps_of, source(count).forced) == (2, 2, True)
    assert (last.replaces, source(last).replaces) == (3, True)
    # It is the same however often it is asked, and of whom.
    assert [one.replaces for one in written.target(EMPTY).members] == [0, 0]
    assert [one.replaces for one in written.target(busy).members] == [2, 3]


def test_of_several_that_are_called_the_same_each_takes_one(read: Read) -> None:
    """In the order in which they run, not that of the file: so the same file gives the same."""
    written = read(COUNT + "prio = 30\n" + COUNT + "prio = 20\n" + COUNT + "prio = 10\n")
    busy = state_of([running("count", 7, priority=10), running("count", 8, priority=20)])
    found = [(one.priority, one.replaces) for one in written.target(busy).members]
    assert found == [(10, 7), (20, 8), (30, 0)]


class Compiled:
    """What BCC would give, with a table that is open."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.fds: list[int] = []
        patch.setattr("xdpctl.programs.bcc.compiled", self)

    def __call__(self, *_words: object) -> tuple[str, Image, Tables]:
        self.fds.append(os.open(os.devnull, os.O_RDONLY))
        return "seen", Image(b"", frags=False, gpl=True), Tables({"seen": self.fds[-1]})

    def is_open(self, number: int) -> bool:
        with contextlib.suppress(OSError):
            return bool(os.fstat(self.fds[number]))
        return False


def test_tables_of_bcc_are_open_as_long_as_the_file(
    here: Path, read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And such a program has its own maps each time, for it cannot share them."""
    bcc = Compiled(monkeypatch)
    (here / "seen.c").write_text("BPF_HASH(seen);")
    text = '[[program]]\nfile = "seen.c"\nbcc = true\n'
    (here / "chain.toml").write_text(text)
    with chainfile.read(str(here / "chain.toml")).opened("/bpffs") as written:
        assert bcc.is_open(0)
        (member,) = written.target(state_of([running("seen", 9)])).members
        assert (member.replaces, source(member).maps_of) == (9, 0)
    assert not bcc.is_open(0)
    (member,) = read(text + 'maps = "keep"').target(state_of([running("seen", 9)])).members
    assert source(member).maps_of == 9
    with pytest.raises(XdpctlError):
        read(text + '[[program]]\nfile = "missing.o"')
    assert not bcc.is_open(2)


def test_how_a_source_is_compiled(here: Path, read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def member(path: str, **options: Any) -> Member:
        asked.append((path, options["build"]))
        return Member("mine", source=Source(path, b"", "mine"))

    monkeypatch.setattr(objects, "member", member)
    read('[[program]]\nfile = "/a.c"\ninclude = ["sub", "/usr/x"]\ndefine = "A=1"\nbcc = false')
    assert asked == [("/a.c", Build((f"-I{here}/sub", "-I/usr/x", "-DA=1"), bcc=False))]


# --- what a file may not say --------------------------------------------------------------------

WRONG: list[tuple[str | bytes, str]] = [
    ("", "names no program"),
    ('mode = "native"', "names no program"),
    ("program = 3", "program: not an array of tables"),
    ('[program]\nfile = "count.o"', "program: not an array of tables"),
    ("program = [1]", "program: not an array of tables"),
    ("program = [", "is not TOML"),
    (b"\xff\xfe", "is not TOML"),
    ("a = " + "[" * 20000, "is not TOML"),
    ("a = " + "1" * 5000, "is not TOML"),
    ("#" * (LIMIT + 1), "more than 1 MiB"),
    ("on_end = 'drop'\nprogram = []", "unknown key 'on_end'"),
    ("[[programs]]\nfile = 'count.o'\n[[program]]", "unknown key 'programs'"),
    ("program = []\nmode = 'hw'", "mode: none of native, skb, unspecified"),
    ("program = []\nmode = ['skb']", "mode: none of native"),
    ("program = []\nattach = 1", "attach: none of link, netlink"),
    ("program = []\nroot = 'both'", "root: none of ext, fused, auto"),
    ("program = []\nprotocol = 4", "protocol: not a number from 1 to 3"),
    ("program = []\nprotocol = true", "protocol: not a number"),
    ("program = []\nprotocol = 0x1" + "0" * 9000, "protocol: not a number"),
    ("program = []\non-end = 'tx'", "on-end: none of pass, drop, aborted"),
    ("program = []\non-vacant = 'aborted'", "on-vacant: none of pass, drop"),
    ("[[program]]", "program 1: no file"),
    ("[[program]]\nfile = ''", "file: not a text"),
    ("[[program]]\nfile = 'a\\u0000b'".replace("'", '"'), "file: not a text"),
    ("[[program]]\nfile = ['count.o']", "file: not a text"),
    (COUNT + "priority = 3", "program 1: unknown key 'priority'"),
    (COUNT + "prio = -1", "prio: not a number from 0 to 4294967295"),
    (COUNT + "prio = 4294967296", "prio: not a number"),
    (COUNT + "prio = 1.0", "prio: not a number"),
    (COUNT + "prio = '1'", "prio: not a number"),
    (COUNT + "actions = ['pass', 'fly']", "actions: unknown chain action 'fly'"),
    (COUNT + "actions = 4", "actions: not a text"),
    (COUNT + "name = '12'", "name: '12' cannot be a label"),
    (COUNT + "name = 'a b'", "name: 'a b' cannot be a label"),
    (COUNT + "before = [1]", "before: not a text"),
    (COUNT + "after = 'x y'", "after: 'x y' cannot be a label"),
    (COUNT + "maps = 'some'", "maps: maps some says nothing"),
    (COUNT + "maps = ['new', 'packets=keep']", "maps: maps new leaves no"),
    (COUNT + "pin-path = 'here'", "pin-path: not an absolute path"),
    (COUNT + "include = {}", "include: not a text"),
    (COUNT + "define = 2020-01-01", "define: not a text"),
    (COUNT + "bcc = 1", "bcc: neither true nor false"),
    (COUNT + "section = 'xdp'\nprog-name = 'count'", "section and prog-name exclude each other"),
    (COUNT + "name = 'x'\n" + PASSES + "name = 'x'", "several programs are called x"),
    (COUNT + "name = 'pass'\n" + PASSES, "several programs are called pass"),
    (COUNT + "before = 'pass'", "program 1: no other program of the file is called pass"),
    (COUNT + "before = 'count'", "is called count"),
    (COUNT + PASSES + "after = 'cuont'", "program 2: no other program of the file is called cuont"),
    (COUNT + "before = 'pass'\n" + PASSES + "before = 'count'", "cannot be put in such an order"),
    ("[[program]]\nfile = 'noprog.o'", "program 1: no XDP program"),
    ("[[program]]\nfile = 'chain.toml'", "program 1: "),
    ("[[program]]\nfile = '.'", "program 1: cannot read"),
]


@pytest.mark.parametrize(("text", "said"), WRONG, ids=[str(one[0])[-40:] for one in WRONG])
def test_what_cannot_be(read: Read, text: str | bytes, said: str) -> None:
    with pytest.raises(BadObjectError) as caught:
        read(text)
    assert "chain.toml" in caught.value.what
    assert said in f"{caught.value.what}: {caught.value.why}"


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        ("[[program]]\nfile = 'missing.o'", 3, "chain.toml: program 1: no such file: "),
        (COUNT + "[[program]]\nfile = 'ret.o'", 2, "chain.toml: program 2: "),
        (COUNT + "prog-name = 'nobody'", 3, "program 1: no program nobody"),
    ],
)
def test_what_a_program_lacks(read: Read, text: str, code: int, said: str) -> None:
    """Exit codes are those of a load; what is to be done is said in words of the file."""
    with pytest.raises(XdpctlError) as caught:
        read(text)
    assert (caught.value.exit_code, said in caught.value.what) == (code, True)
    assert "-n " not in caught.value.hint
    assert code != 2 or 'prog-name = "PROGRAM"' in caught.value.hint


@pytest.mark.parametrize(("path", "code"), [("nowhere.toml", 3), (".", 4), ("/dev/zero", 4)])
def test_what_is_no_file(here: Path, path: str, code: int) -> None:
    with (
        pytest.raises(XdpctlError) as caught,
        chainfile.read(str(here / path)).opened("/bpffs"),
    ):
        pass
    assert caught.value.exit_code == code


def test_a_file_from_standard_input(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its paths are relative to the working directory; it is called what it is; it has a limit."""
    monkeypatch.chdir(here)
    (here / "chain.toml").write_text(COUNT)
    with standard_input(monkeypatch, "chain.toml"), chainfile.read("-").opened("/bpffs") as written:
        ((member, _maps),) = written.members
        assert (member.name, source(member).path) == ("count", "count.o")
    for text, said in (
        ("[[program]]", "standard input: program 1: no file"),
        ("x" * (LIMIT + 1), "standard input is no chain file"),
        ("", "standard input is empty"),
    ):
        (here / "chain.toml").write_text(text)
        with (
            standard_input(monkeypatch, "chain.toml"),
            pytest.raises(BadObjectError, match=said),
            chainfile.read("-").opened("/bpffs"),
        ):
            pass
    (here / "-").write_text(PASSES)  # a file of that name has to be named otherwise
    with chainfile.read("./-").opened("/bpffs") as written:
        assert [member.name for member, _maps in written.members] == ["pass"]


# --- the command line ---------------------------------------------------------------------------


def test_options_go_before_what_the_file_says(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[Wanted] = []

    def worker(
        _settings: object,
        command: str,
        _bpffs: object,
        wanted: Callable[[Interface], Wanted],
        _changing: object,
        *,
        keeps: bool,
    ) -> None:
        assert (command, keeps) == ("apply", True)
        found.append(wanted(Interface("lo", 1, "1")))
        assert found[0].target(EMPTY).members[0].name == "count"

    monkeypatch.setattr(apply, "worker", worker)
    monkeypatch.setattr(apply, "one_or_each", lambda *_words: None)
    path = here / "chain.toml"
    path.write_text('mode = "skb"\nroot = "fused"\nprotocol = 1\n' + COUNT)
    words = ["apply", "lo", str(path), "--root", "auto", "--attach", "netlink"]
    assert run(words) == 0
    asked = Request(mode="skb", attach="netlink", kind="auto", protocol=1, unless_same=True)
    assert [one.request for one in found] == [asked]


def test_a_file_is_read_before_anything_else(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["apply", "lo", "nowhere.toml"]) == 3
    assert "no such file: nowhere.toml" in capsys.readouterr().err


HOST = {
    "lo.toml": COUNT,
    "two.toml": 'interface = ["a0", "a1"]\nprogram = []',
    "more.toml": "interface = 'a*'\nprogram = []",
    "later.toml": "interface = 'nosuch*'\nprogram = []",
    "away.toml": "program = []",
    "broken.toml": "[[program",
    "README": "not a chain file",
}


def test_the_files_of_a_host(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each is for the interfaces that it names; what is wrong with one does not stop the others."""
    known = {name: Interface(name, number, "1") for number, name in enumerate(("lo", "a0", "a1"))}

    def matching(text: str, *_: object) -> list[Interface]:
        found = [
            one
            for part in text.split(",")
            for one in known.values()
            if fnmatch.fnmatch(one.name, part)
        ]
        if not found:
            raise NotFoundError(f"no interface named {text}")
        return found

    tried: list[tuple[str, list[str]]] = []

    def transact(
        _bpffs: object, one: Interface, target: Callable[[State], Chain], *_: object, **__: object
    ) -> Any:
        tried.append((one.name, [member.name for member in target(EMPTY).members]))
        raise BadObjectError(f"tried {one.name}")

    monkeypatch.setattr("xdpctl.cli.many.transact", transact)
    monkeypatch.setattr(Interface, "matching", matching)
    for name, text in HOST.items():
        (here / name).write_text(text)
    assert run(["apply", "--files", str(here)]) == 1
    said = capsys.readouterr().err
    assert tried == [("lo", ["count"])]
    for text in (
        f"{here}/broken.toml is not TOML",
        f"{here}/away.toml: no interface named away",
        f"several files are for a0: {here}/more.toml, {here}/two.toml",
        "5 of 5 interfaces failed",
    ):
        assert text in said
    (here / "more.toml").unlink()
    assert run(["apply", "a1", "--files", str(here)]) == 4
    assert tried[1:] == [("a1", [])]
    assert run(["apply", "--files", str(here / "nowhere")]) == 3
    (here / "two.toml").chmod(0o666)
    assert run(["apply", "--files", str(here)]) == 1
    assert f"{here}/two.toml may be written by others" in capsys.readouterr().err
    here.chmod(0o777)
    assert run(["apply", "--files", str(here)]) == 6
    here.chmod(0o755)
    (here / "two.toml").unlink()
    assert run(["apply", "a1", "--files", str(here)]) == 3
    assert f"no file in {here} is for a1" in capsys.readouterr().err


def test_each_interface_of_a_pattern(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The file is read once, and is there for all of them."""
    reads: list[str] = []
    real = given.read

    def counted(path: str, most: int | None = None) -> bytes:
        reads.append(os.path.basename(path))
        return real(path, most)

    def transact(
        _bpffs: object, one: Interface, target: Callable[[State], Chain], *_: object, **__: object
    ) -> Any:
        assert [member.name for member in target(EMPTY).members] == ["count"]
        raise BadObjectError(f"tried {one.name}")

    monkeypatch.setattr(given, "read", counted)
    monkeypatch.setattr("xdpctl.cli.many.transact", transact)
    monkeypatch.setattr(
        Interface, "matching", lambda *_: [Interface("a0", 1, "1"), Interface("a1", 2, "1")]
    )
    (here / "chain.toml").write_text(COUNT)
    assert run(["apply", "a*", str(here / "chain.toml")]) == 4
    assert "2 of 2 interfaces failed: a0, a1" in capsys.readouterr().err
    assert reads == ["chain.toml", "count.o"]


# --- what an object's own loader would set ------------------------------------------------------


def test_values_and_sizes(read: Read, here: Path) -> None:
    shutil.copy(built("tuned"), here)
    text = '[[program]]\nfile = "tuned.o"\nconstants = { unused = 0x10, verdict = "XDP_DROP" }\n'
    (member,) = read(text + "entries = { flows = 64 }").target(EMPTY).members
    values = (("unused", "16"), ("verdict", "XDP_DROP"))
    assert source(member).tuning == Tuning(values, (("flows", 64),))


def test_places_of_program_arrays(read: Read, here: Path) -> None:
    shutil.copy(built("hops"), here)
    text = '[[program]]\nfile = "hops.o"\nprog-name = "hops"\n'
    (member,) = read(text + 'tail = { "jumps[1]" = "dropper" }').target(EMPTY).members
    assert source(member).tuning.tails == (Tail("jumps", 1, "dropper"),)
    for line, what in (
        ('tail = "jumps[1]=dropper"', "tail: not a table of programs"),
        ('tail = { jumps = "dropper" }', "tail: 'jumps' is no place in a program array"),
        ('tail = { "jumps[1]" = 1 }', "tail: not a text"),
        ('tail = { "jumps[1]" = "passer", "jumps[01]" = "dropper" }', "tail: said twice"),
        ('tail = { "jumps[9]" = "dropper" }', "hops.o cannot be set so"),
    ):
        with pytest.raises(XdpctlError) as caught:
            read(text + line)
        assert what in caught.value.what


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("constants = 5", "constants: not a table"),
        ("constants = { verdict = 1.5 }", "constants: verdict: not a number"),
        ("constants = { none = 1 }", "cannot be set so"),
        ("constants = { verdict = true }", "cannot be set so"),
        ("entries = [5]", "entries: not a table"),
        ("entries = { flows = 0 }", "not a number from 1"),
        ('entries = { flows = "64" }', "not a number from 1"),
        ("entries = { none = 64 }", "cannot be set so"),
        ('pin-path = "/pins"', "nothing is to be pinned in /pins"),
    ],
)
def test_values_that_are_none(read: Read, here: Path, line: str, what: str) -> None:
    shutil.copy(built("tuned"), here)
    with pytest.raises(XdpctlError) as caught:
        read(f'[[program]]\nfile = "tuned.o"\n{line}')
    assert what in caught.value.what
