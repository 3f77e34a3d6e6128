"""What goes wrong leaves everything as it was, and says what to do."""

from __future__ import annotations

import contextlib
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel import net, oracle
from tests.kernel.conftest import Objects, kinds, one_guest
from tests.kernel.policy import refusing_ext
from tests.kernel.tool import Tool
from xdpctl.bpffs.mount import Bpffs
from xdpctl.change.transact import transact
from xdpctl.errors import VanishedError, XdpctlError
from xdpctl.host.interfaces import Interface
from xdpctl.model.chain import Chain
from xdpctl.model.record import LIBXDP_SLOTS, MAX_SLOTS
from xdpctl.model.state import State
from xdpctl.programs import objects as objects_of_xdpctl

pytestmark = one_guest

FRAMES = net.udps(10)


class Before:
    """An interface and the kernel as they are now, to be compared with later."""

    def __init__(self, tool: Tool, veth: net.Veth) -> None:
        self.tool, self.veth = tool, veth
        self.snapshot = oracle.snapshot(tool.bpffs)
        self.running = self._running()

    def _running(self) -> tuple[tuple[int, str], list[int]]:
        return oracle.xdp_prog_id(self.veth.ifindex), self.tool.chain(self.veth.ifindex)

    def check(self) -> None:
        """The interface runs what it ran; bpffs is as it was, and nothing new in the kernel."""
        after = oracle.settle(self.snapshot)
        same = after.pins == self.snapshot.pins and not after.added(self.snapshot)
        assert same, self.snapshot.diff(after)
        assert self._running() == self.running


@contextlib.contextmanager
def unchanged(tool: Tool, veth: net.Veth) -> Iterator[None]:
    """What happens in the block changes nothing."""
    before = Before(tool, veth)
    yield
    before.check()


@pytest.fixture(params=["empty", "busy"])
def dev(request: pytest.FixtureRequest, tool: Tool, veth: net.Veth, objects: Objects) -> net.Veth:
    """An interface without a chain, and one with two programs."""
    if request.param == "busy":
        tool("load", veth.dev, objects["count"], objects["pass"])
    return veth


CASES: list[tuple[list[str], int, str]] = [
    (["{missing}"], 3, "no such file"),
    (["{text}"], 4, "not an ELF"),
    (["{noprog}"], 4, "no XDP program"),
    (["{wrongtype}"], 4, "no XDP program"),
    (["{wrongtype}", "-s", "tc"], 4, "XDP hook"),
    (["{devmap}"], 4, "no XDP program"),
    (["{devmap}", "-s", "xdp/devmap"], 4, "devmap"),
    (["{ret}"], 2, "several XDP programs"),
    (["{ret}", "-n", "nobody"], 3, "no program nobody"),
    (["{pass}", "-s", "nowhere"], 3, "no section nowhere"),
    (["{pass}", "-s", "xdp", "-n", "pass"], 2, "exclude each other"),
    (["{refuse}"], 5, "invalid access to packet"),
    (["{config_bad}"], 4, "unknown member"),
    (["{pass}", "-A", "XDP_FLY"], 2, "unknown chain action"),
    (["{pass}", "-P", "-1"], 2, "-P"),
    (["{pass}", "-P", "4294967296"], 2, "range"),
    (["{pass}", "-m", "hw"], 7, "offload"),
    (["{pass}", "{refuse}"], 5, "refuse"),
    (["{pass}", "{missing}"], 3, "no such file"),
    (["{full}", "{pass}"], 10, "slots"),
]


def test_loads_that_fail(tool: Tool, dev: net.Veth, objects: Objects, tmp_path: Path) -> None:
    """One after the other, as they leave nothing."""
    text = tmp_path / "text.o"
    text.write_text("int main(void) { return 0; }\n")
    names = {**objects, "missing": tmp_path / "missing.o", "text": text}
    before = Before(tool, dev)
    for words, code, said in CASES:
        line: list[object] = []
        for word in words:
            # A dispatcher would take as many as a fused root, which takes a while: less will do.
            limit = ["--protocol", 2, *[objects["pass"]] * LIBXDP_SLOTS]
            full = limit if tool.kind == "ext" else [objects["pass"]] * MAX_SLOTS
            line += full if word == "{full}" else [word.format_map(names)]
        result = tool.try_("load", dev.dev, *line)
        print(*words, result, sep="\n  ")
        before.check()
        assert (result.code, result.out) == (code, "")
        assert said in result.err
        assert result.err.startswith("xdpctl: ")


def test_other_commands_that_fail(tool: Tool, dev: net.Veth, objects: Objects) -> None:
    loaded = bool(tool.chain(dev.ifindex))
    with unchanged(tool, dev):
        for words, code in (
            (("load", "nosuchdev0", objects["pass"]), 3),
            (("status", "nosuchdev0"), 3),
            (("unload", "nosuchdev0", "--all"), 3),
            (("unload", dev.dev), 2),
            (("unload", dev.dev, "-i", "1", "--all"), 2),
            (("unload", dev.dev, "-i", "999999"), 3),
            (("unload", dev.dev, "-n", "nobody"), 3),
            (("swap-dispatcher", "nosuchdev0"), 3),
            (("--netns", "nosuchns", "status"), 3),
            *([] if loaded else [(("swap-dispatcher", dev.dev), 3)]),
        ):
            result = tool.try_(*words)
            assert result.code == code, (words, result.err)
            assert result.err.startswith("xdpctl: "), words


def test_corrupt_objects(tool: Tool, veth: net.Veth, objects: Objects, tmp_path: Path) -> None:
    """Truncated and bit-flipped objects: a load works or is refused, and nothing else happens."""
    good = objects["count"].read_bytes()
    path = tmp_path / "corrupt.o"
    outcomes: dict[str, int] = {}
    count = 40 if tool.kind == "ext" else 16  # they are read before there is any root
    for seed in range(count):
        choice = random.Random(seed)
        data = bytearray(good)
        if seed % 4 == 0:
            data = data[: choice.randrange(len(data))]
        else:
            for _ in range(1 << choice.randrange(6)):
                data[choice.randrange(len(data))] ^= 1 << choice.randrange(8)
        path.write_bytes(data)
        with unchanged(tool, veth):
            result = tool.try_("load", veth.dev, path)
            if result.code == 0:
                tool("unload", veth.dev, "--all")
        outcomes[str(result.code)] = outcomes.get(str(result.code), 0) + 1
        assert result.code in (0, 1, 3, 4, 5, 7), (seed, result.err)
    print(f"{count} corrupt objects, exit codes: {outcomes}")
    assert outcomes.get("4", 0) > count // 8


def test_no_rights(tool: Tool, dev: net.Veth, objects: Objects) -> None:
    """Without capabilities: exit code 6 and the names of those that are missing."""
    prefix = ("setpriv", "--bounding-set=-all", "--inh-caps=-all", "--")
    with unchanged(tool, dev):
        for words in (("load", dev.dev, objects["pass"]), ("status",), ("unload", dev.dev, "-a")):
            result = tool.process(*words, prefix=prefix)
            assert result.code == 6, result.err
            assert "CAP_NET_ADMIN" in result.err
            assert "Traceback" not in result.err


def test_no_bpffs(tool: Tool, veth: net.Veth, objects: Objects, tmp_path: Path) -> None:
    with unchanged(tool, veth):
        result = tool.try_("--bpffs", tmp_path, "load", veth.dev, objects["pass"])
        assert result.code == 9
        assert "mount -t bpf" in result.err
        assert list(tmp_path.glob("xdp")) == []


def test_bpffs_is_mounted_on_request(
    tool: Tool,
    veth: net.Veth,
    objects: Objects,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LIBXDP_BPFFS_AUTOMOUNT", "1")
    path = tmp_path / "new"
    try:
        tool("--bpffs", path, "load", veth.dev, objects["pass"])
        assert (path / "xdp").is_dir()
        tool("--bpffs", path, "unload", veth.dev, "-a")
    finally:
        subprocess.run(["umount", path], check=True)


def test_read_only_bpffs(tool: Tool, dev: net.Veth, objects: Objects) -> None:
    with unchanged(tool, dev):
        subprocess.run(["mount", "-o", "remount,ro", tool.bpffs], check=True)
        try:
            for words in (("load", dev.dev, objects["pass"]), ("unload", dev.dev, "--all")):
                result = tool.try_(*words)
                assert result.code == 9, result.err
                assert "remount,rw" in result.err
        finally:
            subprocess.run(["mount", "-o", "remount,rw", tool.bpffs], check=True)


def test_another_tools_program(tool: Tool, veth: net.Veth, objects: Objects) -> None:
    """A bare program, by link and over netlink, is named and left alone."""
    with oracle.xdp_load(oracle.returning(oracle.XDP_PASS), name="theirs") as program:
        number = oracle.prog(program).id
        with oracle.xdp_attach(program, veth.ifindex) as held, unchanged(tool, veth):
            result = tool.try_("load", veth.dev, objects["pass"])
            assert result.code == 8
            assert f"program {number} (theirs)" in result.err
            assert f"bpf_link {oracle.link(held).id}" in result.err
            assert tool.try_("unload", veth.dev, "--all").code == 8
            status = tool.status(veth.dev)
            assert (status["root"]["owner"], status["programs"]) == ("other", [])
        pinned = tool.bpffs / "theirs"
        oracle.pin(program, pinned)
    net.ip("link", "set", "dev", veth.dev, "xdpdrv", "pinned", str(pinned))
    with unchanged(tool, veth):
        result = tool.try_("load", veth.dev, objects["pass"])
        assert result.code == 8
        assert "netlink" in result.err
        assert f"ip link set dev {veth.dev} xdpdrv off" in result.err
    net.ip("link", "set", "dev", veth.dev, "xdpdrv", "off")
    pinned.unlink()
    tool("load", veth.dev, objects["pass"])


def test_large_mtu(tool: Tool, objects: Objects) -> None:
    """A chain without frags on jumbo frames: refused, with the names of who lacks it."""
    with net.Veth(mtu=9000) as veth, unchanged(tool, veth):
        result = tool.try_("load", veth.dev, objects["count"])
        assert result.code == 7
        assert "MTU" in result.err
        assert "count lacks it" in result.err


@pytest.mark.parametrize("loaded", [False, True], ids=["first", "later"])
def test_the_interface_vanishes(tool: Tool, veth: net.Veth, objects: Objects, loaded: bool) -> None:
    """Between plan and commit. What hung on it is residue of an interface that is gone."""
    if loaded:
        tool("load", veth.dev, objects["count"])
    before = oracle.snapshot(tool.bpffs)
    member = objects_of_xdpctl.member(str(objects["pass"]))

    def target(state: State) -> Chain:
        veth.delete()
        return state.chain.with_added([member])

    bpffs, interface = Bpffs(str(tool.bpffs)), Interface.named(veth.dev)
    with pytest.raises(VanishedError):
        transact(bpffs, interface, target)
    after = oracle.settle(before)
    assert not after.progs - before.progs
    assert not after.pins - before.pins


def failing(tool: Tool, call: str, error: str, nth: int, *words: object) -> tuple[int, str]:
    """Run a command line whose nth call of a kind fails; its exit code and what it said."""
    inject = f"inject={call}:error={error}:when={nth}"
    prefix = ("strace", "-f", "-o", "/dev/null", "-e", f"trace={call}", "-e", inject)
    result = tool.process(*words, prefix=prefix)
    assert "Traceback" not in result.err, result.err
    return result.code, result.err


def test_a_full_bpffs(tool: Tool, dev: net.Veth, objects: Objects) -> None:
    """No space for a directory, a record or any of the pins."""
    words = ("load", dev.dev, objects["pass"])
    failed = 0
    for call, number in (("mkdir", 3), ("symlink", 1)):
        for nth in range(1, number + 1):
            before = Before(tool, dev)
            code, said = failing(tool, call, "ENOSPC", nth, *words)
            if code == 0:
                tool("unload", dev.dev, "-i", tool.ids(dev.dev)[-1])
                continue
            failed += 1
            assert (code, "No space" in said) == (9, True), said
            before.check()
    assert failed >= 3


@kinds("ext")  # the other kind does without
def test_a_kernel_that_refuses_ext(tool: Tool, dev: net.Veth, objects: Objects) -> None:
    """EPERM for the EXT program while the dispatcher loads: told as the policy that it is."""
    with unchanged(tool, dev):
        command = [sys.executable, "-m", "xdpctl", "load", dev.dev, str(objects["pass"])]
        code, _out, said = refusing_ext(command)
    assert code == 7, said
    assert "refuses EXT programs" in said
    assert "--root fused" in said


def test_errors_as_data(tool: Tool, dev: net.Veth, objects: Objects) -> None:
    with unchanged(tool, dev):
        result = tool.try_("load", "--json", dev.dev, objects["refuse"])
    error = result.json["error"]
    assert (error["error"], error["exit_code"]) == ("VerifierError", 5)
    assert "invalid access to packet" in error["why"]
    assert isinstance(XdpctlError("x").as_dict()["hint"], str)
