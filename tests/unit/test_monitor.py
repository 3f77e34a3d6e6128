"""xdpctl.traffic.monitor and incidents: what a kernel has to tell, and what its counts mean."""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.unit.samples import GONE, LOOPBACK, ROOT, needs_root, running, state_of
from xdpctl.bpffs.mount import Bpffs
from xdpctl.errors import KernelError, NotFoundError, UnsupportedError, VanishedError
from xdpctl.host.interfaces import Interface
from xdpctl.kernel import uapi
from xdpctl.kernel.btf import BTF_KIND_PTR, Btf
from xdpctl.traffic import incidents, monitor
from xdpctl.traffic.incidents import Incident, NamedMap, NamedProgram, Scene
from xdpctl.traffic.monitor import Monitor, Tally, What

SOURCE = (ROOT / "bpf/monitor.c").read_text()
NETNS = os.stat("/proc/thread-self/ns/net").st_ino
MEMBER = running("count", 11, label="wall")
LO = What(monitor.EXCEPTION, LOOPBACK.ifindex, NETNS, 500, 0, 0, 0, 0)


# --- the kernel ---------------------------------------------------------------------------------


def test_the_source_numbers_events_alike() -> None:
    (names,) = re.findall(r"^enum {(.*)};$", SOURCE, flags=re.MULTILINE)
    assert [getattr(monitor, name.strip()) for name in names.split(",")] == [*range(6)]
    assert f"#define ODD_VERDICT {monitor.ODD_VERDICT}\t" in SOURCE


def test_the_source_has_a_program_for_each_tracepoint() -> None:
    found = re.findall(r"^RAW_TRACEPOINT_PROBE\((\w+)\)$", SOURCE, flags=re.MULTILINE)
    assert found == [*monitor._TRACEPOINTS]
    assert {name for name in monitor._PLACES if name not in SOURCE} == set()


class Types:
    """A kernel's types: the kinds of its tracepoints' arguments; every member lies at 8."""

    def __init__(self, **tracepoints: list[int]) -> None:
        self.tracepoints = tracepoints

    def __enter__(self) -> Types:
        return self

    def __exit__(self, *_exception: object) -> None:
        pass

    def arguments(self, tracepoint: str) -> list[int] | None:
        return self.tracepoints.get(tracepoint)

    def offset(self, _structure: str, _member: str) -> int:
        return 8


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[list[str], list[str]]]:
    def look(**tracepoints: list[int]) -> tuple[list[str], list[str]]:
        monkeypatch.setattr(Btf, "of_kernel", lambda: Types(**tracepoints))
        return monitor._kernel()

    return look


def test_what_a_kernel_has_not_is_left_out(kernel: Callable[..., Any]) -> None:
    there, flags = kernel(xdp_exception=[2, 2, 8], xdp_bulk_tx=[2, 1, 1, 1, 1])
    assert there == ["xdp_exception"]
    assert {"-DNET_INUM=16", "-DDEV_NET=8"} <= set(flags)
    with pytest.raises(UnsupportedError) as caught:
        kernel()
    assert "CONFIG_TRACEPOINTS" in caught.value.hint


def test_both_forms_of_a_redirect_are_known(kernel: Callable[..., Any]) -> None:
    macro = "-DREDIRECT_TELLS_POINTER"
    assert macro in kernel(xdp_redirect_err=[2, 2, 2, 1, BTF_KIND_PTR, 8])[1]
    assert macro not in kernel(xdp_redirect_err=[2, 2, 2, 1, 6, 8, 8])[1]
    assert kernel(xdp_exception=[2, 2, 8], xdp_redirect_err=[2, 2, 2, 1])[0] == ["xdp_exception"]


def test_a_kernel_without_types_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> Btf:
        raise KernelError("btf__load_vmlinux_btf", errno.ENOENT)

    monkeypatch.setattr(Btf, "of_kernel", absent)
    with pytest.raises(UnsupportedError) as caught:
        Monitor().__enter__()
    assert "CONFIG_DEBUG_INFO_BTF" in caught.value.hint


@needs_root
def test_without_bcc_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDPCTL_CACHE", str(tmp_path))
    monkeypatch.setitem(sys.modules, "bcc", None)
    with pytest.raises(UnsupportedError) as caught:
        Monitor().__enter__()
    assert caught.value.what == "what monitor counts with needs BCC"
    assert "python3-bpfcc" in caught.value.hint
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (KernelError("verifier", errno.EINVAL, "unknown func bpf_probe_read_kernel#113"), "memory"),
        (KernelError("bpf_prog_load", errno.EINVAL), "bpf_prog_load"),
    ],
)
def test_a_refusal_names_the_tracepoint(
    monkeypatch: pytest.MonkeyPatch, error: KernelError, text: str
) -> None:
    def load(*_arguments: object, **_values: object) -> int:
        raise error

    monkeypatch.setattr("xdpctl.kernel.program.Program.load", load)
    with pytest.raises(UnsupportedError) as caught:
        monitor._attached("xdp_exception", b"")
    assert "xdp_exception" in caught.value.what
    assert text in caught.value.why


def test_members_of_what_has_no_name_are_found() -> None:
    """struct net_device keeps its first members in groups without a name on newer kernels."""
    if not os.path.exists("/sys/kernel/btf/vmlinux"):
        pytest.skip("missing: /sys/kernel/btf/vmlinux")
    with Btf.of_kernel() as btf:
        assert btf.offset("sk_buff", "next") == 0
        assert 0 < btf.offset("sk_buff", "dev") < btf.offset("sk_buff", "len")
        assert btf.arguments("no_such_tracepoint") is None
        with pytest.raises(KernelError, match="no_such"):
            btf.offset("sk_buff", "no_such")
        with pytest.raises(KernelError):
            btf.offset("no_such", "next")


# --- the meaning --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "code", "text"),
    [
        ("exception", 0, "XDP_ABORTED"),
        ("exception", 3, "XDP_TX failed"),
        ("exception", 200, "200 is no verdict"),
        ("exception", 256, "codes that are no verdict"),
        ("redirect", -errno.ENETDOWN, "its target is down"),
        ("xsk", -errno.ENOBUFS, "the socket's receive ring is full"),
        ("devmap", -errno.EIO, "Input/output error"),
        ("cpumap_enqueue", 0, "the CPU's queue is full"),
    ],
)
def test_reasons(event: str, code: int, text: str) -> None:
    assert incidents.reason(event, code) == text


class Counts:
    """A monitor that has read these, one after the other."""

    def __init__(self, *counts: Mapping[What, int], lost: int = 0) -> None:
        self.readings = (Tally(10.0 + 2 * at, dict(one), lost) for at, one in enumerate(counts))

    def read(self) -> Tally:
        return next(self.readings)


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Scene]:
    """A scene in which lo runs root 500, of count."""
    monkeypatch.setattr(incidents, "observe", lambda *_arguments, **_view: state_of([MEMBER]))

    def make(*counts: Mapping[What, int], asked: str | None = "lo", lost: int = 0) -> Scene:
        counted: Any = Counts({}, *counts, lost=lost)
        return Scene(counted, Bpffs("/bpffs"), asked)

    return make


@needs_root  # the kernel is asked for names
def test_what_there_is_more_of(scene: Callable[..., Scene]) -> None:
    odd = LO._replace(code=200)
    seen = scene({LO: 10}, {odd: 3, LO: 10}, {odd: 3, LO: 30}, lost=4)
    (first,) = seen.look()
    assert (first.packets, first.total, first.rate) == (10, 10, 5)
    assert (first.event, first.interface, first.verdict) == ("exception", "lo", "XDP_ABORTED")
    assert first.program == NamedProgram(500, "xdp_dispatcher", "ext", (MEMBER,))
    for totals in ([(0, 10), (3, 3)], [(20, 30), (0, 3)]):
        assert [(one.packets, one.total) for one in seen.look()] == totals
    assert seen.lost == 4


@needs_root  # the kernel is asked for names
def test_only_what_is_asked_for(scene: Callable[..., Scene]) -> None:
    elsewhere = LO._replace(netns=NETNS + 1)
    other = LO._replace(ifindex=GONE.ifindex)
    cpu = What(monitor.CPUMAP, 0, 0, 0, 0, 0, 2**31 - 2, 1)
    counts = dict.fromkeys((LO, elsewhere, other, cpu), 1)
    (one,) = scene(counts).look()
    assert one.ifindex == LOOPBACK.ifindex
    found = scene(counts, asked=None).look()
    assert [(one.event, one.interface, one.map, one.to) for one in found] == [
        ("exception", "lo", None, None),
        ("cpumap_enqueue", None, NamedMap(2**31 - 2), ("cpu", 1)),
    ]


def test_what_is_below_is_counted_too(
    scene: Callable[..., Scene], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it is at each look: a device may join later."""
    eth = Interface("eth77", 77, LOOPBACK.netns)
    monkeypatch.setattr(Interface, "all", lambda: [LOOPBACK, eth])
    below = [set[int](), {77}, {77}]
    monkeypatch.setattr("xdpctl.kernel.netlink.below", lambda _numbers: below.pop(0))
    event = LO._replace(ifindex=77)
    seen = scene({LO: 1, event: 2}, {LO: 1, event: 3})
    assert [(one.interface, one.total) for one in seen.look()] == [("lo", 1), ("eth77", 2)]


@needs_root  # the kernel is asked for names
def test_targets(scene: Callable[..., Scene]) -> None:
    missing = 2**31 - 2
    redirect = What(monitor.REDIRECT, LOOPBACK.ifindex, NETNS, missing, -errno.ENETDOWN, 0, 0, 0)
    kinds = (
        redirect,
        redirect._replace(to=LOOPBACK.ifindex),
        redirect._replace(map=missing, map_type=uapi.BPF_MAP_TYPE_XSKMAP, to=3),
    )
    found = scene(dict.fromkeys(kinds, 1)).look()
    assert [(one.event, one.error, one.to, one.target) for one in found] == [
        ("redirect", "ENETDOWN", None, None),
        ("redirect", "ENETDOWN", ("interface", LOOPBACK.ifindex), "lo"),
        ("xsk", "ENETDOWN", ("entry", 3), None),
    ]
    assert found[0].program == NamedProgram(missing)
    assert isinstance(found[0], Incident)


@needs_root  # the kernel is asked for names
def test_an_interface_that_is_not_there_or_goes(
    monkeypatch: pytest.MonkeyPatch, scene: Callable[..., Scene]
) -> None:
    with pytest.raises(NotFoundError):
        scene(asked=GONE.name)
    seen = scene({})
    monkeypatch.setattr("_socket.if_indextoname", lambda _number: "")
    with pytest.raises(VanishedError):
        seen.look()
