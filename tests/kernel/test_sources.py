"""C sources as members of a chain: libbpf's C, BCC's dialect, and a script's own bcc.BPF."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.kernel import net, oracle
from tests.kernel.api_holder import Holder
from tests.kernel.conftest import Objects, kinds, needs, one_guest
from tests.kernel.test_holders import gone, until
from tests.kernel.test_trial import record
from tests.kernel.tool import ROOT, Tool

pytestmark = one_guest

FRAMES = net.udps(10)
SOURCES = ROOT / "tests/bpf"
SEEN = ROOT / "tests/bcc/seen.c"
TABLE = "packets_seen_by_bcc"


def table(tool: Tool, program_id: int) -> int:
    """The id of the map that is pinned for a program of BCC's: the one that it uses."""
    (path,) = tool.bpffs.glob(f"xdp/xdpctl-*/map-{program_id}-*")
    assert path.name == f"map-{program_id}-{TABLE}"
    return oracle.pinned_map(path).id


@kinds("fused")  # clang is slow in a guest, and knows of no root
def test_a_c_source_is_a_member_like_any(
    tool: Tool, veth: net.Veth, objects: Objects, tmp_path: Path
) -> None:
    source, header = tmp_path / "mine.c", tmp_path / "sub/verdict.h"
    source.write_text(
        '#include "common.h"\n#include "verdict.h"\nCOUNTER(BPF_MAP_TYPE_ARRAY);\n'
        'SEC("xdp") int mine(struct xdp_md *ctx) { COUNT(); return VERDICT(ASKED); }\n'
    )
    header.parent.mkdir()
    header.write_text("#define PASTE(what) XDP_##what\n#define VERDICT(what) PASTE(what)\n")
    words = (source, "-I", SOURCES, "-I", header.parent)
    tool("load", veth.dev, objects["count"])
    tool("load", veth.dev, *words, "-D", "ASKED=PASS")
    before, pins = tool.chain(veth.ifindex), tool.pins()
    assert net.exchange(veth, FRAMES) == FRAMES
    assert oracle.packets(before[1]) == len(FRAMES)

    failed = tool.try_("load", veth.dev, *words, "-D", "ASKED=NOTHING")
    assert failed.code == 4
    assert "undeclared identifier 'XDP_NOTHING'" in failed.err
    assert "expanded from macro 'VERDICT'" in failed.err
    assert (tool.chain(veth.ifindex), tool.pins()) == (before, pins)

    # The same file again, with another header: other code in the same place, with the same map.
    header.write_text("#define VERDICT(what) XDP_DROP\n")
    tool("replace", veth.dev, "mine", *words, "-D", "ASKED=PASS")
    assert net.exchange(veth, FRAMES) == []
    after = tool.chain(veth.ifindex)
    assert after[0] == before[0]
    assert oracle.packets(after[1]) == 2 * len(FRAMES)
    tool("unload", veth.dev, "-a")


@needs("bcc")
@kinds("ext")  # BCC is slower still; the other kind comes later
def test_a_source_in_bcc_s_dialect(
    tool: Tool, veth: net.Veth, objects: Objects, tmp_path: Path
) -> None:
    """Beside an object of libbpf's, through swaps and from one kind of root to the other."""
    tool("load", veth.dev, objects["count"])
    # A trial is on copies of its maps, which are there before it is loaded.
    capture = record(tmp_path / "trace.pcap", FRAMES)
    tool("load", veth.dev, SEEN, "-n", "seen", "-P", "90", "--must-pass", capture)
    number, sent = table(tool, tool.ids(veth.dev)[1]), 0
    for words in ((), ("-q",), ("--root", "fused"), ("--root", "ext")):
        assert net.exchange(veth, FRAMES) == FRAMES
        sent += len(FRAMES)
        assert oracle.packets(tool.ids(veth.dev)[0]) == oracle.array_counter(number) == sent
        tool("swap-dispatcher", veth.dev, *words)
        assert table(tool, tool.ids(veth.dev)[1]) == number
    tool("unload", veth.dev, "-a")
    assert tool.pins() == []


PINNED = """#include "verdict.h"
BPF_TABLE_PINNED("array", u32, u64, kept, 1, "{pin}");
int f(struct xdp_md *ctx) {{
    int key = 0;
    u64 *seen = kept.lookup(&key);
    {code}
    return VERDICT;
}}
"""


@needs("bcc")
@kinds("fused")
def test_what_bcc_pins_and_where_it_looks(
    tool: Tool, veth: net.Veth, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relative -I is the caller's. A pin goes with a load that fails, or changes nothing."""
    pin, source = tool.bpffs / "kept", tmp_path / "source/f.c"
    for one in ("source", "include"):
        (tmp_path / one).mkdir()
    (tmp_path / "include/verdict.h").write_text("#define VERDICT XDP_PASS\n")
    monkeypatch.chdir(tmp_path)
    words = ("load", veth.dev, source, "-I", "include")
    source.write_text(PINNED.format(pin=pin, code="if (*(char *)(long)ctx->data) return 0;"))
    result = tool.try_(*words)
    assert (result.code, pin.exists()) == (5, False), result.err
    source.write_text(PINNED.format(pin=pin, code="if (seen) *seen += 1;"))
    tool(*words, "--dry-run")
    assert not pin.exists()
    monkeypatch.setenv("CPATH", str(tmp_path / "include"))
    assert tool.try_("load", veth.dev, source).code == 4
    assert not pin.exists()
    tool(*words)
    assert pin.exists()
    result = tool.try_("load", veth.dev, source, "-I", "include", "-n", "none")
    assert (result.code, pin.exists()) == (3, True), result.err
    tool("unload", veth.dev, "--all")
    pin.unlink()


@needs("bcc", "link_target")
@kinds("ext")
def test_a_script_of_bcc_s_is_a_good_neighbour(
    tool: Tool, veth: net.Veth, objects: Objects
) -> None:
    """It goes on using its table, through every swap, and takes its program along when it dies."""
    tool("load", veth.dev, objects["count"])
    (first,) = tool.ids(veth.dev)
    with Holder(SEEN, veth.dev, 90) as script:
        assert tool.chain(veth.ifindex) == [first, script.prog_id]
        for sent in range(1, 4):
            assert net.exchange(veth, FRAMES) == FRAMES
            assert script.ask("count")["count"] == oracle.packets(first) == sent * len(FRAMES)
            tool("swap-dispatcher", veth.dev)
            script.settle(oracle.xdp_prog_id(veth.ifindex)[0])
            assert tool.chain(veth.ifindex) == [first, script.prog_id]
        script.kill()
    until(lambda: tool.status(veth.dev)["programs"][1]["vacant"])
    assert net.exchange(veth, FRAMES) == FRAMES
    tool("swap-dispatcher", veth.dev)
    assert tool.ids(veth.dev) == [first]
    gone(script.prog_id)
    tool("unload", veth.dev, "-a")


@needs("link_target")
def test_the_bytes_of_an_object(tool: Tool, veth: net.Veth, objects: Objects) -> None:
    code = (
        "import sys, xdpctl\n"
        "data = sys.stdin.buffer.read()\n"
        "with xdpctl.attach(data, sys.argv[1], priority=7) as one:\n"
        "    print(one.program_id, one.slot, 'bcc' in sys.modules)\n"
    )
    tool("load", veth.dev, objects["count"])
    done = subprocess.run(
        [sys.executable, "-c", code, veth.dev],
        input=objects["pass"].read_bytes(),
        stdout=subprocess.PIPE,
        check=True,
        cwd=ROOT,
    )
    assert done.stdout.split()[1:] == [b"0", b"False"]
    assert len(tool.chain(veth.ifindex)) == 1
    tool("unload", veth.dev, "-a")
