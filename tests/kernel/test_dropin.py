"""xdpctl under the name xdp-loader, side by side with the real one: codes, rows, shell scripts.

A difference is either in DIFFERENT, and then in xdpctl-xdp-loader(8) too, or a bug.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.kernel import net, oracle, turns
from tests.kernel.conftest import Objects, kinds, one_guest
from tests.kernel.tool import ROOT, Result, Tool
from xdpctl.cli import xdp_loader

# The real one knows no other kind of root.
pytestmark = [kinds("ext"), one_guest]

SYSTEM_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def real() -> None:
    if shutil.which("xdp-loader", path=SYSTEM_PATH) is None:
        pytest.skip("missing: xdp-loader")


def theirs(*words: str) -> Result:
    done = subprocess.run(
        ["xdp-loader", *words],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PATH": SYSTEM_PATH},
    )
    return Result(done.returncode, done.stdout, done.stderr)


def ours(*words: str) -> Result:
    """In this process, for speed; what the name does is for test_the_name and the scripts."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = xdp_loader.run(words)
    assert "Traceback" not in err.getvalue(), err.getvalue()
    return Result(code, out.getvalue(), err.getvalue())


def without_ids(text: str) -> list[str]:
    """Status rows, with neither what differs from load to load nor the root's own tag."""
    found = []
    for line in text.splitlines():
        line = re.sub(r"(xdp_dispatcher +\S+ +)\d+ +[0-9a-f]{16}", r"\1", line)
        line = re.sub(r" \d+ +(?=[0-9a-f]{16})", " ID ", line)
        found.append(line.rstrip())
    return found


# --- cases --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """Command lines in order; the last one is what it is about."""

    lines: tuple[str, ...]
    code: int  # xdp-loader 1.3.1's, as measured
    ours: int | None = None  # where xdpctl differs, on purpose

    @property
    def id(self) -> str:
        return " ; ".join(self.lines)


def case(*lines: str, code: int, ours: int | None = None) -> Case:
    return Case(lines, code, ours)


# {x} is the path of tests/bpf/x.c's object, DEV the interface, ID the first program's id; ROOT is
# that of the root.
CASES = {
    "the command": [
        case("", code=255),  # no word at all
        case("help", code=255),
        case("help load", code=255),
        case("help --nosuch", code=255),
        case("h", code=255),
        case("-h", code=1),
        case("--help", code=1),
        case("--version", code=1),
        case("-v", code=1),
        case("nosuch", code=1),
        case("loads", code=1),
        case("Load", code=1),
        case("swap-dispatcher DEV", code=1),
        case("watch", code=1),
    ],
    "help and version": [
        *[
            case(f"{name} {word}", code=1)
            for name in ("load", "unload", "status", "clean")
            for word in ("-h", "--help", "--version", "--vers", "--usage", "-vh")
        ],
    ],
    "words that are missing, too many, or make no sense": [
        case("load", code=1),
        case("load DEV", code=1),
        case("load nosuch0 {pass}", code=1),
        case("load nosuch0 /nonexistent.o", code=1),
        case("load 'x*' {pass}", code=1),
        case("load '' {pass}", code=1),
        case("load -x DEV {pass}", code=1),
        case("load --nosuch DEV {pass}", code=1),
        case("load --json DEV {pass}", code=1),
        case("load --attach=link DEV {pass}", code=1),
        case("load --dry-run DEV {pass}", code=1),
        case("load DEV {pass} -P", code=1),
        case("load --p 9 DEV {pass}", code=1),
        case("load --verbose=3 DEV {pass}", code=1),
        case("load -s xdp -n pass DEV {pass}", code=1),
        case("load -m fast DEV {pass}", code=1),
        case("load -m nat DEV {pass}", code=1),
        case("load -P -1 DEV {pass}", code=1),
        case("load -P 4294967296 DEV {pass}", code=1),
        case("load -A FOO DEV {pass}", code=1),
        case("load -A PASS DEV {pass}", code=1),
        case("load -A xdp_pass DEV {pass}", code=1),
        case("load -A 'XDP_PASS, XDP_DROP' DEV {pass}", code=1),
        case("status nosuch0", code=1),
        case("status ''", code=1),
        case("status DEV lo", code=1),
        case("status --v DEV", code=1),
        case("clean nosuch0", code=1),
        case("clean DEV lo", code=1),
        case("unload", code=1),
        case("unload DEV", code=1),
        case("unload -a", code=1),
        case("unload -i 5", code=1),
        case("unload nosuch0 -a", code=1),
        case("unload DEV lo -a", code=1),
        case("unload DEV -i", code=1),
        case("unload DEV -i x", code=1),
        case("unload DEV -i 0", code=1),
        case("unload DEV -i -3", code=1),
        case("unload DEV -n pass", code=1),
    ],
    "what is not there, or cannot be had": [
        case("load DEV /nonexistent.o", code=254),
        case("load DEV {pass} /nonexistent.o", code=254),
        case("load DEV /etc/passwd", code=95),
        case("load DEV /dev/null", code=95),
        case("load DEV /tmp", code=96),
        case("load DEV {noprog}", code=254),
        case("load DEV {wrongtype}", code=234),
        case("load DEV {config_bad}", code=161),
        case("load -s nosuch DEV {pass}", code=254),
        case("load -n nosuch DEV {pass}", code=254),
        case("load DEV {refuse}", code=243),
        case("load -m hw DEV {pass}", code=234),
        case("load -p /tmp DEV {pinned}", code=234),
        case("load DEV " + "{pass} " * 11, code=249),
        case("load -m skb DEV {pass}", "load -m native DEV {drop}", code=240),
        case("load -m skb DEV {pass}", "load DEV {drop}", code=240),
        case("load -m native DEV {pass}", "load -m skb DEV {drop}", code=240),
        case("load -m native DEV {pass}", "load -m hw DEV {drop}", code=234),
        case("unload DEV -a", code=1),
        case("unload DEV -i 5", code=1),
        case("load DEV {pass}", "unload DEV -i 99999", code=1),
    ],
    "what works": [
        case("status", code=0),
        case("s", code=0),
        case("stat DEV", code=0),
        case("status --verb DEV", code=0),
        case("clean", code=0),
        case("c DEV", code=0),
        case("clean -v DEV", code=0),
        case("load DEV {pass}", code=0),
        case("l DEV {pass}", code=0),
        case("lo -- DEV {pass}", code=0),
        case("load DEV {pass} {pass}", code=0),
        case("load DEV {drop} {count} {pass}", code=0),
        case("load DEV {longname}", code=0),
        case("load DEV {config}", code=0),
        case("load DEV {frags}", code=0),
        case("load DEV {several}", code=0),  # the first of three
        case("load -s xdp/second DEV {several}", code=0),
        case("load -n third DEV {several}", code=0),
        case("load DEV {pinned}", code=0),
        case("load -p /tmp DEV {pass}", code=0),
        case("load -vv DEV {pass}", code=0),
        case("load -v DEV -v {pass}", code=0),
        case("load DEV {pass} -P 7 --actions=XDP_DROP", code=0),
        case("load DEV -P7 {pass} -AXDP_PASS,XDP_TX", code=0),
        case("load --pri 9 --act XDP_TX DEV {pass}", code=0),
        case("load -P 4 -P 7 DEV {pass}", code=0),
        case("load -A XDP_PASS -A XDP_DROP DEV {pass}", code=0),
        case("load -A XDP_PASS, DEV {pass}", code=0),
        case("load -A '' DEV {config}", code=0),
        case("load -P '' DEV {config}", code=0),
        case("load -P high DEV {pass}", code=0),
        case("load -P 5x DEV {pass}", code=0),
        case("load -P +5 DEV {pass}", code=0),
        case("load -P ' 5' DEV {pass}", code=0),
        case("load -P 0x10 DEV {pass}", code=0),
        case("load -m skb DEV {pass}", "load -m skb DEV {drop}", code=0),
        case("load -m unspecified DEV {pass}", code=0),
        case("load DEV {pass}", "load -m unspecified DEV {drop}", code=0),
        case("load DEV {pass}", "load -P 1 DEV {drop}", "load -P 99 DEV {count}", code=0),
        case("load DEV {pass}", "unload DEV -a", code=0),
        case("load DEV {pass} {drop}", "unload -a DEV", code=0),
        case("load DEV {pass}", "unload --al DEV -i 5", code=0),
        case("load DEV {pass} {drop}", "unload DEV -i ID", code=0),
        case("load DEV {pass} {drop}", "u -i 99999 -i ID DEV", code=0),
        case("load DEV {pass}", "un DEV --id=ID", code=0),
        case("load DEV {pass}", "clean", code=0),
    ],
    "on purpose otherwise: xdpctl-xdp-loader(8)": [
        case("load -A none DEV {pass}", code=1, ours=0),
        case("load DEV {devmap}", code=0, ours=234),
        case("load -m skb DEV {pass}", "load -m unspecified DEV {drop}", code=240, ours=0),
    ],
}


@dataclass(frozen=True)
class Outcome:
    """What one tool made of a case."""

    codes: list[int]
    out: list[str]
    rows: list[str]


def play(run: Run, veth: net.Veth, objects: Objects, one: Case) -> Outcome:
    """Run a case on an interface that has nothing, and take all away again."""
    codes, out, rows = [], "", ""
    for line in one.lines:
        words = [word.format_map(objects) for word in shlex.split(line)]
        for name, first in (("ID", " =>"), ("ROOT", veth.dev)):
            if name in line:
                listed = run("status", veth.dev).out.splitlines()
                number = next(row.split()[3] for row in listed if row.startswith(first))
                words = [word.replace(name, number) for word in words]
        result = run(*[veth.dev if word == "DEV" else word for word in words])
        codes.append(result.code)
        out = result.out
    if oracle.xdp_prog_id(veth.ifindex)[0]:
        rows = run("status", veth.dev).out
        assert run("unload", veth.dev, "-a").code == 0, f"{one.id}: left behind"
    return Outcome(codes, without_ids(out), without_ids(rows))


@pytest.mark.parametrize("group", CASES)
def test_the_same_code_and_the_same_rows(
    tool: Tool, veth: net.Veth, objects: Objects, group: str
) -> None:
    """All that differs is told at once: a case takes long in a guest, and no harm to the next."""
    different = []
    for one in turns.part(CASES[group], tool.kind):
        real, mine = play(theirs, veth, objects, one), play(ours, veth, objects, one)
        print(f"{real.codes[-1]:>4} {mine.codes[-1]:>4}  xdp-loader {one.id}")
        if real.codes[-1] != one.code:
            different.append(f"{one.id}: not like 1.3.1: {real}")
        elif one.ours is not None:
            if mine.codes[-1] != one.ours:
                different.append(f"{one.id}: {mine.codes} for {one.ours}")
        elif (mine.codes, mine.rows) != (real.codes, real.rows):
            different.append(f"{one.id}: {mine} for {real}")
        elif one.code == 0 and mine.out != real.out:
            different.append(f"{one.id}: {mine.out} for {real.out}")
    assert not different, "\n".join(different)


def test_errors_of_the_hook(tool: Tool, veth: net.Veth, objects: Objects) -> None:
    """A program of somebody else's is there; a large MTU."""
    foreign = oracle.xdp_load(oracle.returning(2))
    link = oracle.xdp_attach(foreign, veth.ifindex)
    for run in (theirs, ours):
        assert run("load", veth.dev, str(objects["pass"])).code == 240
        # A bare program has a row of its own kind.
        assert without_ids(run("status", veth.dev).out) == without_ids(
            theirs("status", veth.dev).out
        )
    link.close()
    foreign.close()
    for name in (veth.dev, veth.peer):
        net.ip("link", "set", name, "mtu", "9000")
    for run in (theirs, ours):
        assert run("load", veth.dev, str(objects["pass"])).code == 222
    if not oracle.lacks("frags"):
        # 1.3.1 refuses a program with frags, too.
        assert ours("load", veth.dev, str(objects["frags"])).code == 0
        assert ours("unload", veth.dev, "-a").code == 0


def test_without_a_place_for_pins(
    tool: Tool, veth: net.Veth, objects: Objects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real one attaches the bare program then; xdpctl refuses. LIBXDP_BPFFS_AUTOMOUNT helps."""
    monkeypatch.setenv("LIBXDP_BPFFS", str(tmp_path))
    for run in (theirs, ours):
        assert run("clean").code == 254
        assert run("unload", veth.dev, "-a").code == 1
        assert run("status", veth.dev).code == 0
    assert ours("load", veth.dev, str(objects["pass"])).code == 254
    monkeypatch.setenv("LIBXDP_BPFFS_AUTOMOUNT", "1")
    for name, run in (("theirs", theirs), ("ours", ours)):
        path = tmp_path / name
        path.mkdir()
        monkeypatch.setenv("LIBXDP_BPFFS", str(path))
        assert run("load", veth.dev, str(objects["pass"])).code == 0
        assert path.is_mount()
        assert run("unload", veth.dev, "-a").code == 0
        subprocess.run(["umount", "-l", path], check=True)


def test_maps_are_pinned_where_it_is_said_and_nowhere_else(
    tool: Tool, veth: net.Veth, objects: Objects
) -> None:
    for run, name in ((theirs, "theirs"), (ours, "ours")):
        assert run("load", veth.dev, str(objects["pinned"])).code == 0
        assert [path.name for path in tool.bpffs.iterdir() if path.is_file()] == []
        path = tool.bpffs / name
        assert run("load", "-p", str(path), veth.dev, str(objects["pinned"])).code == 0
        assert [one.name for one in path.iterdir()] == ["packets"]
        assert run("unload", veth.dev, "-a").code == 0


def test_what_xdp_loader_ignores(tool: Tool, veth: net.Veth, objects: Objects) -> None:
    """Priority 0 is its default there; -A none it does not know. Here both mean what they say."""
    path = str(objects["pass"])
    assert ours("load", "-P", "0", "-A", "none", veth.dev, path).code == 0
    (program,) = tool.status(veth.dev)["programs"]
    assert (program["priority"], program["actions"]) == (0, [])


def test_a_single_program_without_a_dispatcher(
    tool: Tool, veth: net.Veth, objects: Objects, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LIBXDP_SKIP_DISPATCHER=1: it has the hook to itself, several have a dispatcher all the same.

    The codes and the rows are those of the real one.
    """
    monkeypatch.setenv("LIBXDP_SKIP_DISPATCHER", "1")
    for one in (
        case("load -m skb -P 5 -A XDP_DROP DEV {drop}", "load -m skb DEV {pass}", code=240),
        case("load -m unspecified DEV {pass}", "status DEV", code=0),
        case("load DEV {pass}", "load DEV {drop} {pass}", code=240),
        case("load DEV {pass}", "load -m hw DEV {drop}", code=234),
        case("load DEV {pass}", "unload DEV -i 99999", code=1),
        case("load DEV {pass}", "unload DEV -i ROOT", "status DEV", code=0),
        case("load DEV {pass} {drop}", "load DEV {pass}", code=240),
        case("load -m hw DEV {pass} {drop}", code=1),
    ):
        real, mine = play(theirs, veth, objects, one), play(ours, veth, objects, one)
        assert real.codes[-1] == one.code, one.id
        assert (mine.codes, mine.rows) == (real.codes, real.rows), one.id
        assert one.code or mine.out == real.out, one.id
    assert ours("load", veth.dev, str(objects["pass"])) == Result(0, "", "")
    assert oracle.prog(oracle.xdp_prog_id(veth.ifindex)[0]).name == "pass"
    monkeypatch.delenv("LIBXDP_SKIP_DISPATCHER")
    for run in (theirs, ours):
        assert run("load", veth.dev, str(objects["drop"])).code == 240
    # The real one takes off what ours attached.
    assert theirs("unload", veth.dev, "-a").code == 0
    assert ours("clean").code == 0
    assert tool.pins() == []


def test_quiet_but_for_errors(tool: Tool, veth: net.Veth, objects: Objects) -> None:
    """Not a word from what works; with -v on standard error, as the real one."""
    lines = (["load", veth.dev, str(objects["pass"])], ["unload", veth.dev, "-a"])
    for run in (theirs, ours):
        for words in lines:
            assert run(*words) == Result(0, "", "")
        for words in lines:
            result = run(*words, "-v")
            assert (result.code, result.out) == (0, "")
            assert result.err


def test_the_rest_of_the_system_may_go_on(tool: Tool, veth: net.Veth, objects: Objects) -> None:
    """A root over netlink: ip-link(8) and the real xdp-loader remove what ours loaded."""
    path = str(objects["pass"])
    assert ours("load", veth.dev, path).code == 0
    assert theirs("unload", veth.dev, "-a").code == 0
    assert ours("load", veth.dev, path).code == 0
    net.ip("link", "set", "dev", veth.dev, "xdp", "off")
    assert "<No XDP program loaded!>" in ours("status", veth.dev).out
    assert ours("load", veth.dev, path).code == 0
    assert ours("unload", veth.dev, "-a").code == 0


def test_a_chain_of_xdpctl_stays_as_it_is(tool: Tool, veth: net.Veth, objects: Objects) -> None:
    tool("load", veth.dev, objects["count"])
    assert ours("load", veth.dev, str(objects["pass"])).code == 0
    assert tool.status(veth.dev)["root"]["attach"] == "link"
    assert ours("unload", veth.dev, "-a").code == 0


# --- scripts ------------------------------------------------------------------------------------


@pytest.fixture
def named(tmp_path: Path) -> Path:
    """A directory with what pip installs as xdpctl, and a link to it named xdp-loader."""
    script = tmp_path / "bin" / "xdpctl"
    script.parent.mkdir()
    lines = [f"#!{sys.executable}", "import sys", f"sys.path.insert(0, {str(ROOT)!r})"]
    script.write_text("\n".join([*lines, "from xdpctl.cli import main", "main()", ""]))
    script.chmod(0o755)
    (script.parent / "xdp-loader").symlink_to("xdpctl")
    return script.parent


SCRIPTS = {
    "count and take out one by one": """
        set -e
        xdp-loader load $dev $pass $drop
        xdp-loader load -P 10 $dev $count
        echo loaded $(xdp-loader status $dev | grep -c '=>')
        xdp-loader status $dev | awk '/=>/ {print $2, $3, $6}'
        for id in $(xdp-loader status $dev | awk '$1 == "=>" {print $4}'); do
            xdp-loader unload $dev -i $id
            echo left $(xdp-loader status $dev | grep -c '=>')
        done
        xdp-loader s $dev | grep -q 'No XDP program loaded' && echo empty
    """,
    "load unless it is there": """
        ensure() {
            if xdp-loader status $dev | grep -qw "$2"; then echo "$2 is there"; return 0; fi
            xdp-loader load "$dev" "$1" || { echo "failed: $?"; exit 1; }
            echo "$2 loaded"
        }
        ensure $pass pass
        ensure $pass pass
        ensure $drop drop
        xdp-loader unload -a $dev
        echo $?
    """,
    "codes decide": """
        xdp-loader unload $dev --all 2>/dev/null || echo nothing to unload: $?
        xdp-loader load $dev /nonexistent.o 2>/dev/null; echo $?
        xdp-loader load -m skb $dev $pass; echo $?
        xdp-loader load -m native $dev $drop 2>/dev/null
        case $? in 240) echo busy ;; *) echo other ;; esac
        xdp-loader load nosuch0 $pass >/dev/null 2>&1; echo $?
        if out=$(xdp-loader unload $dev -a 2>&1); then echo "ok [$out]"; fi
        xdp-loader >/dev/null 2>&1; echo $?
    """,
    "errexit stops at the first failure": """
        trap 'echo trapped $?; xdp-loader unload $dev -a; exit 0' ERR
        set -eE
        xdp-loader load --prio 5 --actions XDP_PASS,XDP_TX $dev $pass
        xdp-loader load -s nosuch $dev $pass 2>/dev/null
        echo never
    """,
    "the id of one by its name, mode and root by column": """
        xdp-loader l $dev $pass $count $drop
        id=$(xdp-loader status $dev | awk '$3 == "count" {print $4}')
        xdp-loader u -i "$id" $dev && echo out
        xdp-loader status | awk -v dev=$dev '$1 == dev {print $2, $3}'
        xdp-loader status $dev | sed -n '/=>/s/.*XDP_/XDP_/p'
        xdp-loader status $dev | tail -n +6 | head -n 2 | cut -c 1-42
        [ "$(xdp-loader status $dev 2>&1 >/dev/null)" = "" ] && echo silent
        xdp-loader unload "$dev" -a; xdp-loader clean; echo $?
    """,
}


def test_scripts_give_the_same(tool: Tool, veth: net.Veth, objects: Objects, named: Path) -> None:
    for name in turns.part([*SCRIPTS], tool.kind):
        results = []
        for path in (SYSTEM_PATH, f"{named}:{SYSTEM_PATH}"):
            variables = {one: str(objects[one]) for one in ("pass", "drop", "count")}
            done = subprocess.run(
                ["bash", "-c", SCRIPTS[name]],
                capture_output=True,
                text=True,
                check=False,
                env={**os.environ, **variables, "dev": veth.dev, "PATH": path},
            )
            results.append((done.returncode, done.stdout, done.stderr))
        if oracle.lacks("frags"):  # which the real one finds out by a trial, and tells of it
            code, out, told = results[0]
            results[0] = code, out, re.sub(r"^ *libbpf: .*\n", "", told, flags=re.MULTILINE)
        assert results[0] == results[1], name
        assert results[0][1], name
        assert tool.chain(veth.ifindex) == [], name


def test_the_name(tool: Tool, named: Path) -> None:
    """The link makes the difference, wherever it stands; xdpctl itself stays right."""
    codes = [
        subprocess.run([named / name, "help"], capture_output=True, check=False).returncode
        for name in ("xdp-loader", "xdpctl")
    ]
    assert codes == [255, 0]
