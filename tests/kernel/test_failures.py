"""Y's construction made to fail at each step: the chain of before, untouched, each time."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator

import pytest
from _pytest.mark import ParameterSet

from tests.kernel import net, oracle
from tests.kernel.conftest import Objects, kinds, one_guest
from tests.kernel.test_bad_input import Before, failing
from tests.kernel.tool import Tool
from xdpctl.errors import KernelError
from xdpctl.host.locks import DEFAULT_TIMEOUT
from xdpctl.kernel import libbpf, maps, xdp
from xdpctl.model.chain import Kind
from xdpctl.roots import dispatcher

pytestmark = one_guest

FRAMES = net.udps(10)


def refused(code: int) -> Callable[..., int]:
    def call(*_arguments: object) -> int:
        raise KernelError("refused", code)

    return call


STEPS = {
    "root": (libbpf, "prog_info", errno.ENOMEM),
    "hook": (libbpf, "link_ext", errno.EINVAL),
    "image": (maps, "lookup", errno.ENOMEM),
    "pin": (libbpf, "pin", errno.ENOSPC),
    "found": (libbpf, "prog_fd", errno.EPERM),
}
# What there is for one kind alone: links, a compiled root; and code that is fused.
OF_ONE_KIND: dict[str, Kind] = {"hook": "ext", "compile": "ext", "image": "fused"}


def cases() -> Iterator[ParameterSet]:
    """Each step on a root by link, the flip by netlink as well; the rest is for the soak test.

    What comes before the flip knows nothing of how a root is attached.
    """
    for attach in ("link", "netlink"):
        for step in (*STEPS, "compile", "flip"):
            marks = [kinds(OF_ONE_KIND[step])] if step in OF_ONE_KIND else []
            if attach == "netlink" and step != "flip":
                marks.append(pytest.mark.soak)
            yield pytest.param(attach, step, marks=marks)


@pytest.mark.parametrize("confirm", [False, True])
@pytest.mark.parametrize(("attach", "step"), [*cases()])
def test_each_step_may_fail(
    tool: Tool,
    veth: net.Veth,
    objects: Objects,
    monkeypatch: pytest.MonkeyPatch,
    attach: str,
    step: str,
    confirm: bool,
) -> None:
    """The n-th call of a step is refused, for each n until the change comes through."""
    tool("load", "--attach", attach, veth.dev, objects["count"], objects["pass"])
    words: tuple[object, ...] = ("load", veth.dev, objects["count"])
    if confirm:
        words += ("--confirm-within", "1h")
    hook = (libbpf, "link_update") if attach == "link" else (xdp, "attach")
    flip = (*hook, errno.ENOMEM)
    owner, name, code = {**STEPS, "compile": (libbpf, "", 0), "flip": flip}[step]
    refusals = 0
    for nth in range(1, 40):
        before = Before(tool, veth)
        with monkeypatch.context() as patch:
            calls = 0
            if step == "compile":
                patch.setattr(dispatcher, "object_for", lambda *_shape: b"\x7fELF")
            else:
                real = getattr(owner, name)

                def once(
                    *arguments: object, real: Callable[..., object] = real, nth: int = nth
                ) -> object:
                    nonlocal calls
                    calls += 1
                    return refused(code)() if calls == nth else real(*arguments)

                patch.setattr(owner, name, once)
            began = time.monotonic()
            result = tool.try_(*words)
        assert time.monotonic() - began < DEFAULT_TIMEOUT / 2, "waited for the lock that it holds"
        if result.code == 0:
            break
        refusals += 1
        before.check()
        assert tool.status(veth.dev)["residue"] == []
        assert net.exchange(veth, FRAMES) == FRAMES
        if step == "compile":
            break
    print(f"{step} ({attach}): refused {refusals} times, nothing changed")
    assert refusals
    if confirm and step != "compile":
        tool("confirm", veth.dev)


@pytest.mark.parametrize("attach", [pytest.param("link", marks=pytest.mark.soak), "netlink"])
def test_sockets_may_fail(tool: Tool, veth: net.Veth, objects: Objects, attach: str) -> None:
    """Netlink and everything else that is sent, refused one after another, by the kernel itself."""
    tool("load", "--attach", attach, veth.dev, objects["count"])
    failed = 0
    for nth in range(1, 20):
        before = Before(tool, veth)
        code, said = failing(tool, "sendto", "EPERM", nth, "load", veth.dev, objects["pass"])
        if code == 0:
            break
        failed += 1
        assert "xdpctl: " in said
        before.check()
    else:
        pytest.fail("it never came through")
    assert failed >= (2 if attach == "netlink" else 1)
    assert len(tool.chain(veth.ifindex)) == 2


def test_what_fails_after_the_flip(
    tool: Tool, veth: net.Veth, objects: Objects, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The change is live and told as such; the next command does the rest."""
    tool("load", veth.dev, objects["count"])
    root, _mode = oracle.xdp_prog_id(veth.ifindex)
    real = os.rmdir

    def rmdir(path: str) -> None:
        if f"dispatch-{veth.ifindex}-{root}" in str(path):
            raise OSError(errno.EIO, "injected")
        real(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "rmdir", rmdir)
        loaded = tool("load", veth.dev, objects["pass"])
    assert "the change is live" in loaded.err
    status = tool.status(veth.dev)
    assert [one["name"] for one in status["programs"]] == ["count", "pass"]
    assert any(str(root) in path for path in status["residue"])
    assert "removed what was left over" in tool("swap-dispatcher", veth.dev).err
    assert tool.status(veth.dev)["residue"] == []
