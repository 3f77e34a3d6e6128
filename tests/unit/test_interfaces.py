"""xdpctl.host.interfaces: names, numbers, patterns and network namespaces."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Iterator

import pytest

from tests.unit.samples import GONE, LOOPBACK, needs_root
from xdpctl.errors import NotFoundError
from xdpctl.host import interfaces
from xdpctl.host.interfaces import Interface


def test_interfaces_have_the_kernels_numbers() -> None:
    everything = Interface.all()
    assert [(one.ifindex, one.name) for one in everything] == sorted(socket.if_nameindex())
    assert {one.netns for one in everything} == {interfaces.current()}
    for one in everything:
        assert Interface.named(one.name) == one


@pytest.mark.parametrize("name", ["nosuch0", "", "a" * 300, "lo ", "\udcff"])
def test_an_interface_that_is_not_there(name: str) -> None:
    with pytest.raises(NotFoundError, match="no interface named"):
        Interface.named(name)
    with pytest.raises(NotFoundError, match="no interface named"):
        Interface.matching(name)


def test_an_interface_exists_until_it_is_gone() -> None:
    assert all(one.exists() for one in Interface.all())
    assert not GONE.exists()


# --- patterns -----------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["*", "eth*", "eth?", "eth[01]", "[", "?"])
def test_a_pattern(text: str) -> None:
    assert interfaces.is_pattern(text)


@pytest.mark.parametrize("text", ["", "lo", "eth0.100", "br-12ab", "a]", "eth0@if7", "veth_x"])
def test_a_name_is_no_pattern(text: str) -> None:
    assert not interfaces.is_pattern(text)


@pytest.mark.parametrize("pattern", ["lo", "l?", "[l]o", "lo*"])
def test_patterns_match_as_in_a_shell(pattern: str) -> None:
    found = Interface.matching(pattern)
    assert LOOPBACK in found
    assert all(one.name.startswith("lo") or pattern == "l?" for one in found)


def test_everything_matches_a_star_in_the_order_of_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Interface.matching("*") == Interface.all()
    names = [(12, "eth1"), (3, "eth10"), (7, "Eth0"), (5, "eth"), (9, "wlan0")]
    monkeypatch.setattr("xdpctl.host.interfaces.socket.if_nameindex", lambda: names)
    assert [one.name for one in Interface.matching("eth*")] == ["eth10", "eth", "eth1"]
    assert [one.name for one in Interface.matching("eth?")] == ["eth1"]
    assert [one.name for one in Interface.matching("[Ew]*0")] == ["Eth0", "wlan0"]
    assert [one.name for one in Interface.matching("[!e]*")] == ["Eth0", "wlan0"]


@pytest.mark.parametrize("pattern", ["nosuch*", "LO*", "?", "lo[", "*/*"])
def test_a_pattern_that_matches_nothing(pattern: str) -> None:
    with pytest.raises(NotFoundError) as caught:
        Interface.matching(pattern)
    assert caught.value.what == f"no interface matches {pattern}"
    assert caught.value.exit_code == 3


def named(monkeypatch: pytest.MonkeyPatch, names: list[tuple[int, str]]) -> None:
    """Have interfaces of these numbers and names, and no others."""
    numbers = {name: number for number, name in names}
    found = "xdpctl.host.interfaces.socket"
    monkeypatch.setattr(f"{found}.if_nameindex", lambda: names)
    monkeypatch.setattr(f"{found}.if_nametoindex", lambda name: numbers.get(name, 0))
    monkeypatch.setattr(f"{found}.if_indextoname", lambda number: dict(names)[number])


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("eth1,eth0", ["eth1", "eth0"]),
        ("eth0,eth0", ["eth0"]),
        ("wlan0,eth*", ["wlan0", "eth0", "eth1"]),
        ("eth[0,1],a,b", ["eth0", "eth1", "a", "b"]),
        ("eth[0,1]", ["eth0", "eth1"]),
        ("a,c", ["a,c"]),
        ("a", ["a"]),
    ],
)
def test_a_list_means_its_parts_in_order(
    monkeypatch: pytest.MonkeyPatch, text: str, names: list[str]
) -> None:
    """The very name of an interface is no list, and a comma in brackets parts none."""
    named(monkeypatch, [(2, "eth0"), (3, "eth1"), (4, "wlan0"), (5, "a"), (6, "b"), (7, "a,c")])
    assert [one.name for one in Interface.matching(text)] == names
    assert interfaces.is_several(text) == (text not in ("a,c", "a"))
    assert interfaces.is_pattern(text) == ("*" in text or "[" in text)


@pytest.mark.parametrize(
    ("text", "missing"), [("eth0,nosuch0", "named nosuch0"), ("eth0,", "named "), (",", "named ")]
)
def test_a_list_has_to_be_there_in_full(
    monkeypatch: pytest.MonkeyPatch, text: str, missing: str
) -> None:
    named(monkeypatch, [(2, "eth0")])
    with pytest.raises(NotFoundError, match=f"no interface {missing}"):
        Interface.matching(text)
    with pytest.raises(NotFoundError, match="no interface matches nosuch"):
        Interface.matching("eth0,nosuch*")


# --- network namespaces -------------------------------------------------------------------------


@pytest.fixture
def other() -> Iterator[str]:
    """The path of a network namespace that has a process and no name."""
    with contextlib.ExitStack() as ending:
        command = ["unshare", "--net", "sleep", "60"]
        process = ending.enter_context(subprocess.Popen(command))
        ending.callback(process.kill)
        path = f"/proc/{process.pid}/ns/net"
        while os.readlink(path) == os.readlink("/proc/self/ns/net"):
            assert process.poll() is None
            time.sleep(0.01)
        yield path


def test_a_namespace_keeps_its_name() -> None:
    assert interfaces.current() == interfaces.current() == LOOPBACK.netns
    assert "-" not in interfaces.current()  # pins.py: xdpctl-<netns>-<ifindex>


@needs_root
def test_one_enters_a_namespace_and_comes_back(other: str) -> None:
    home = interfaces.current()
    with interfaces.entered(other):
        inside = interfaces.current()
        assert inside != home
        assert Interface.named("lo").netns == inside
        assert {one.netns for one in Interface.all()} == {inside}
    assert interfaces.current() == home
    with pytest.raises(ZeroDivisionError), interfaces.entered(other):
        assert 1 / 0
    assert interfaces.current() == home


@needs_root
@pytest.mark.parametrize("path", ["/nonexistent", "/etc/passwd", "/proc/self/ns/mnt"])
def test_what_is_no_network_namespace_is_not_entered(path: str) -> None:
    home, count = interfaces.current(), len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match=r"\[Errno"), interfaces.entered(path):
        pytest.fail("entered")
    assert interfaces.current() == home
    assert len(os.listdir("/proc/self/fd")) == count


@needs_root
def test_namespaces_that_can_be_seen(other: str) -> None:
    """The current one first, and each once, whatever number of processes lives in it."""
    home = interfaces.current()
    with interfaces.entered(other):
        inside = interfaces.current()
    found = list(interfaces.visible())
    assert found[0][0] == home
    names = [name for name, _path in found]
    assert len(set(names)) == len(names)
    assert inside in names
    assert interfaces.current() == home
    for name, path in found:
        with interfaces.entered(path):
            assert interfaces.current() == name


@needs_root
def test_a_walk_over_namespaces_is_left_in_the_middle(other: str) -> None:
    home = interfaces.current()
    for name, _path in interfaces.visible():
        assert name == home
        break
    assert interfaces.current() == home


@pytest.mark.parametrize("initial", [True, False])
def test_what_may_not_be_looked_at_is_told(initial: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that may not be read, and processes of other pid namespaces; who is gone is not."""
    own = os.stat("/proc/self/ns/pid").st_ino
    monkeypatch.setattr(interfaces, "_INITIAL_PID_NAMESPACE", own if initial else own + 1)
    monkeypatch.setattr(interfaces, "_mounted", lambda: iter(["/secret/net", "/gone/net"]))
    monkeypatch.setattr(os, "listdir", lambda _path: ["1", "self", "2"])
    real = os.stat

    def stat(path: str) -> os.stat_result:
        if path in ("/secret/net", "/proc/1/ns/net"):
            raise PermissionError(path)
        if path in ("/gone/net", "/proc/2/ns/net"):
            raise FileNotFoundError(path)
        return real(path)

    monkeypatch.setattr(os, "stat", stat)
    monkeypatch.setattr(interfaces, "entered", lambda _path: contextlib.nullcontext())
    refused: list[str] = []
    names = [name for name, _path in interfaces.visible(refused)]
    assert names == [interfaces.current()]
    assert refused == [*([] if initial else ["/proc"]), "/secret/net", "/proc/1/ns/net"]
    assert [name for name, _path in interfaces.visible()] == names
