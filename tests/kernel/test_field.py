"""What others' objects have: each feature as a small program of our own, in all that is done to it.

Each passes every packet, and aborts if it finds what it keeps in disorder.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel import net, oracle
from tests.kernel.conftest import Objects, every_kernel, kinds, needs, one_guest
from tests.kernel.test_adopt import bare
from tests.kernel.tool import Tool
from tests.unit.samples import compiled
from xdpctl.model.chain import Kind

pytestmark = one_guest  # what a kernel lacks is asked for by name

FIELD: dict[str, tuple[str, ...]] = {
    "count": (),
    "devmaps": (),
    "devpinned": (),
    "frags": (),
    "global": (),
    "hops": (),
    "kfunc": ("bpf_dynptr_from_xdp",),
    "legacies": (),
    "legacyjumps": (),
    "mapflags": (),
    "mapkinds": (),
    "maps40": (),
    "metadata": ("bpf_xdp_metadata_rx_hash",),
    "oddsection": (),
    "ownmeta": (),
    "percpu": (),
    "pinned": (),
    "subprogs": (),
    "tailcall": (),
    "timer": ("bpf_timer_init",),
    "twins": (),
    "xsk": (),
}
"""The objects, of tests/bpf/<name>.c, each with the kernel functions that it calls."""

CALLING = ("hops", "legacyjumps", "tailcall")
OURS = (*CALLING, "devpinned", "legacies", "metadata", "pinned", "timer")
"""What iproute2 cannot load, or pins elsewhere."""
UNTRIED = (*CALLING, "mapflags", "metadata")
"""Neither queues nor program arrays can be copied, and the kernel makes no test runs of what is
bound to a device."""
SECTIONS = {"frags": "xdp.frags", "oddsection": "prog"}
FRAMES = net.udps(6)
APPLIED = '[[program]]\nfile = "{}"\nname = "it"{}\n[[program]]\nfile = "{}"\nname = "last"\n'


def lacks(name: str) -> str:
    """A function that an object calls and this kernel does not have; "" if it has all."""
    return next((one for one in FIELD[name] if one not in _functions()), "")


@functools.cache
def _functions() -> frozenset[str]:
    """The kernel's. A line is "ADDRESS TYPE NAME", and "<tab>[MODULE]" behind it for a module's."""
    lines = Path("/proc/kallsyms").read_text().splitlines()
    return frozenset(line.split(maxsplit=3)[2] for line in lines)


def lacking(name: str) -> None:
    if function := lacks(name):
        pytest.skip(f"missing: the kernel function {function}")


@every_kernel
def test_functions_that_this_kernel_lacks(tool: Tool, veth: net.Veth, objects: Objects) -> None:
    names = [name for name in ("kfunc", "metadata") if lacks(name)]
    if not names:
        pytest.skip("missing: a kernel that lacks a function")
    for name in names:
        result = tool.try_("load", veth.dev, objects[name])
        assert (result.code, lacks(name) in result.err) == (7, True), result.err
    assert tool.ids(veth.dev) == []


def passes(veth: net.Veth) -> None:
    assert net.exchange(veth, FRAMES) == FRAMES


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=every_kernel("ext")) if functions or name in CALLING else name
        for name, functions in FIELD.items()
    ],
)
def test_an_object_of_the_field(
    tool: Tool, veth: net.Veth, objects: Objects, name: str, tmp_path: Path
) -> None:
    """Alone, between two others, replaced by itself, applied twice and adopted: it works on."""
    lacking(name)
    if name in CALLING and oracle.lacks("shared_arrays") and tool.kind == "ext":
        pytest.skip("missing: shared_arrays")
    if name == "hops" and oracle.lacks("frags"):
        pytest.skip("missing: frags")
    which = ("-n", name) if name in CALLING else ()
    tool("load", veth.dev, objects[name], *which)
    passes(veth)
    tool("load", "-P", 10, veth.dev, objects["count"])
    tool("load", "-P", 90, veth.dev, objects["pass"])
    assert len(tool.ids(veth.dev)) == 3
    passes(veth)
    result = tool.try_("test", veth.dev, "load", objects["pass"])
    assert result.code == (7 if name in UNTRIED else 0), result.err
    it = tool.ids(veth.dev)[1]
    tool("replace", veth.dev, it, objects[name], *which)
    assert tool.ids(veth.dev)[1] != it
    passes(veth)
    tool("unload", veth.dev, "--all")
    chain = tmp_path / "chain.toml"
    named = f'\nprog-name = "{name}"' if name in CALLING else ""
    chain.write_text(APPLIED.format(objects[name], named, objects["pass"]))
    for _time in range(2):
        tool("apply", veth.dev, chain)
        passes(veth)
    tool("unload", veth.dev, "--all")
    adopt(tool, veth, objects[name])


def adopt(tool: Tool, veth: net.Veth, path: Path) -> None:
    bound = path.stem == "metadata"
    running_by = (
        bare(tool, veth, path, bound=bound) if path.stem in OURS else by_ip(tool, veth, path)
    )
    with running_by as running, contextlib.ExitStack() as holding:
        info = oracle.prog(running)
        for one in info.map_ids:  # a timer stops with the last user of its map
            holding.enter_context(oracle.map_fd(one))
        passes(veth)
        maps = {one for one in info.map_ids if oracle.map(one).name != "xdpctl_image"}
        named = ("-n", path.stem) if path.stem in CALLING else ()
        if tool.try_("adopt", veth.dev, "--object", path, *named).code == 7 and named:
            return  # the kernel ties its array to the type and the attach type of XDP programs
        passes(veth)
        (member,) = tool.ids(veth.dev)
        assert maps <= set(oracle.prog(member).map_ids)
        tool("load", veth.dev, path.with_name("pass.o"))
        passes(veth)
        tool("unload", veth.dev, "--all")


@contextlib.contextmanager
def by_ip(tool: Tool, veth: net.Veth, path: Path) -> Iterator[int]:
    section = SECTIONS.get(path.stem, "xdp")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TC_BPF_MNT", str(tool.bpffs))  # it makes directories there
        net.ip("link", "set", "dev", veth.dev, "xdpdrv", "object", str(path), "section", section)
    try:
        yield oracle.xdp_prog_id(veth.ifindex)[0]
    finally:
        net.ip("link", "set", "dev", veth.dev, "xdpdrv", "off")


# --- loaders that name no attach type -----------------------------------------------------------


@needs("link_target")
def test_a_program_array_of_callers_without_the_attach_type(
    tool: Tool, veth: net.Veth, objects: Objects, kind: Kind
) -> None:
    """It goes together with EXT programs, which have none; else the cause is named."""
    pin = tool.bpffs / "jumps"
    with oracle.map_create(3, 4, 4, 2, "jumps") as array:
        oracle.pin(array, pin)
        call = oracle.insn(0x18, 2, 1, imm=array) + oracle.insn(0) + oracle.mov(3, 1)
        code = call + oracle.insn(0x85, imm=12) + oracle.returning(2)
        with oracle.xdp_load(code, expected_attach_type=0):
            result = tool.try_("load", veth.dev, objects["jumps"])
            if result.code:
                assert (result.code, kind) == (7, "fused"), result.err
                assert "cannot call through the program array jumps" in result.err
                assert "expected attach type" in result.err
            passes(veth)
    pin.unlink()
    if not result.code:
        tool("unload", veth.dev, "--all")


@kinds("fused")
def test_a_link_of_a_program_without_the_attach_type(
    tool: Tool, veth: net.Veth, objects: Objects
) -> None:
    """The kernel keeps a link to what it began with; over netlink all goes well."""
    with (
        oracle.xdp_load(oracle.returning(2), expected_attach_type=0) as program,
        oracle.xdp_attach(program, veth.ifindex),
    ):
        result = tool.try_("adopt", veth.dev, "--object", objects["pass"], "--force")
        assert (result.code, "loaded without the attach type XDP" in result.err) == (7, True)
        passes(veth)


# --- what their own loaders set -----------------------------------------------------------------

TUNED = """[[program]]
file = "{}"
constants = {{ verdict = "XDP_PASS" }}
entries = {{ flows = 64 }}
"""


def test_values_and_sizes(tool: Tool, veth: net.Veth, objects: Objects, tmp_path: Path) -> None:
    """On the command line and in a file; a program that replaces another has its own values."""
    path = objects["tuned"]
    assert "map flows has 0 entries" in tool.try_("load", veth.dev, path).err
    tool("load", veth.dev, path, "-g", "verdict=1", "--entries", "flows=64")
    assert net.exchange(veth, FRAMES) == []
    (first,) = tool.ids(veth.dev)
    flows = oracle.prog_map(first, "flows")
    assert oracle.map(flows).max_entries == 64
    result = tool.try_("replace", veth.dev, "tuned", path, "--entries", "flows=65")
    assert (result.code, "65 entries" in result.err) == (7, True), result.err
    tool("replace", veth.dev, "tuned", path, "-g", "verdict=XDP_PASS", "--entries", "flows=64")
    passes(veth)
    assert oracle.prog_map(tool.ids(veth.dev)[0], "flows") == flows
    words = ("-g", "verdict=1", "-g", "unused=0", "--entries", "flows=64")
    result = tool.try_("replace", veth.dev, "tuned", path, *words)
    assert (result.code, "unused stays what it is" in result.err) == (7, True), result.err
    result = tool.try_("load", veth.dev, path, "-g", "verdicts=1")
    assert (result.code, "there is no variable verdicts" in result.err) == (2, True), result.err
    tool("unload", veth.dev, "--all")
    chain = tmp_path / "chain.toml"
    chain.write_text(TUNED.format(path))
    for _time in range(2):
        tool("apply", veth.dev, chain)
        passes(veth)


# --- what is told of objects that cannot run ----------------------------------------------------

_F = 'SEC("xdp") int f(struct xdp_md *ctx) {{ {0} }}'
_HASH = "struct {{ int (*type)[{0}]; int (*key_size)[4]; int (*value_size)[8]; }}"
_LOOKUP = "static void *(*lookup)(void *, const void *) = (void *)1;"
_KSYM = '__attribute__((section(".ksyms")))'


def has_config() -> bool:
    """Whether the configuration of the kernel can be read."""
    return any(map(os.path.exists, ("/proc/config.gz", f"/boot/config-{os.uname().release}")))


TOLD: dict[str, tuple[str, int, str]] = {
    "a function of no kernel": (
        f"extern int bpf_none(void *) {_KSYM};" + _F.format("return bpf_none(ctx);"),
        7,
        "have no bpf_none, which it uses",
    ),
    "a variable of no kernel": (
        f"extern const int none {_KSYM};" + _F.format("return none;"),
        7,
        "have no none, which it uses",
    ),
    "a symbol of no kernel": (
        f"extern const void none {_KSYM};" + _F.format("return (long)&none;"),
        7,
        "no symbol none",
    ),
    "a configuration of no kernel": (
        'extern int CONFIG_NONE __attribute__((section(".kconfig")));'
        + _F.format("return CONFIG_NONE;"),
        7,
        # A guest sees neither of the two files.
        "it wants to know " + ("CONFIG_NONE" if has_config() else "the configuration"),
    ),
    "a map of no entries": (
        f'{_HASH.format(1)} flows SEC(".maps"); {_LOOKUP}'
        + _F.format("int key = 0; return lookup(&flows, &key) ? 2 : 1;"),
        4,
        "map flows has 0 entries",
    ),
    "an array of no entries": (
        f'{_HASH.format(2)} flows SEC(".maps"); {_LOOKUP}'
        + _F.format("int key = 0; return lookup(&flows, &key) ? 2 : 1;"),
        4,
        "map flows has 0 entries",
    ),
    "a helper of no kernel": (
        "static int (*helper)(void *) = (void *)9999;" + _F.format("return helper(ctx);"),
        5,
        "helper 9999 is one of another kernel",
    ),
}


@kinds("fused")
@pytest.mark.parametrize("case", TOLD)
def test_what_is_told_of_an_object(tool: Tool, veth: net.Veth, tmp_path: Path, case: str) -> None:
    source, code, text = TOLD[case]
    result = tool.try_("load", veth.dev, compiled(tmp_path, source, "-Wno-everything"))
    assert (result.code, text in result.err) == (code, True), result.err


@kinds("fused")
def test_a_pin_is_no_object(tool: Tool, veth: net.Veth, objects: Objects) -> None:
    """Reading one gives an input/output error, which is nobody's fault."""
    tool("load", veth.dev, objects["pinned"])
    with oracle.prog_fd(tool.ids(veth.dev)[0]) as program:
        oracle.pin(program, tool.bpffs / "program")
    for name, kind in (("packets", "map"), ("program", "program")):
        result = tool.try_("load", veth.dev, tool.bpffs / name)
        assert (result.code, f"the pin of a {kind}" in result.err) == (4, True), result.err
    (tool.bpffs / "program").unlink()


@kinds("fused")
def test_a_pin_of_another_map(tool: Tool, veth: net.Veth, objects: Objects) -> None:
    """What is said is what helps: the pin is in the way of new maps, too."""
    tool("load", veth.dev, objects["pass"])
    with oracle.map_create(2, 4, 8, 3) as other:
        oracle.pin(other, tool.bpffs / "packets")
    result = tool.try_("load", veth.dev, objects["pinned"])
    assert (result.code, "-p DIR pins its maps elsewhere" in result.err) == (7, True), result.err
    assert f"3 entries, flags 0x0 at {tool.bpffs}/packets" in result.err
    result = tool.try_("replace", veth.dev, "pass", objects["pinned"], "--maps", "new")
    assert (result.code, "--maps MAP=new" in result.err) == (7, True), result.err
    tool("load", veth.dev, objects["pinned"], "-p", tool.bpffs / "elsewhere")
