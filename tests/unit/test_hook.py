"""xdpctl.roots.hook: what it means when the kernel refuses to flip, for a link and over netlink."""

from __future__ import annotations

import contextlib
import errno
import os
import re

import pytest

from tests.unit.samples import GONE, LOOPBACK, chain_of, fresh, plan_of, running, state_of
from xdpctl.bpffs import homes
from xdpctl.bpffs.mount import Bpffs
from xdpctl.errors import HookBusyError, KernelError, UnsupportedError, VanishedError, XdpctlError
from xdpctl.host.interfaces import Interface
from xdpctl.kernel import netlink
from xdpctl.kernel.program import Program
from xdpctl.model.labels import Attach
from xdpctl.model.request import AskedMode
from xdpctl.model.state import State
from xdpctl.roots.hook import MODE_FLAGS, Hook, LostRace

ATTACHES: list[Attach] = ["link", "netlink"]
FLIPS = ["attach", "update", "detach"]


def hook(
    attach: Attach = "link",
    interface: Interface = LOOPBACK,
    mode: AskedMode | None = None,
    *,
    frags: bool = False,
) -> Hook:
    """The hook of a bare interface that two programs are for, the second with `frags` or not."""
    paths = homes.of(Bpffs("/bpffs"), interface)
    state = State(interface, None, (), paths.home)
    target = chain_of(fresh("whole", frags=True), fresh("plain", frags=frags))
    plan = plan_of(state, target, mode, attach)
    return Hook(interface, plan, paths, None, contextlib.ExitStack())


@pytest.mark.parametrize("attach", ATTACHES)
@pytest.mark.parametrize("flip", FLIPS)
@pytest.mark.parametrize("number", [errno.EBUSY, errno.EEXIST, errno.ENOENT, errno.ENOLINK])
def test_lost_races_are_no_errors(attach: Attach, flip: str, number: int) -> None:
    with pytest.raises(LostRace) as caught, hook(attach)._refusals(flip):
        raise KernelError("bpf", number)
    assert isinstance(caught.value.__cause__, KernelError)


@pytest.mark.parametrize("flip", FLIPS)
def test_a_link_runs_another_program_than_was_expected(flip: str) -> None:
    """EPERM says so for a link; netlink says it with EEXIST, and means rights by EPERM."""
    with pytest.raises(LostRace), hook("link")._refusals(flip):
        raise KernelError("bpf_link_update", errno.EPERM)
    with pytest.raises(XdpctlError) as caught, hook("netlink")._refusals(flip):
        raise KernelError("bpf_xdp_attach", errno.EPERM)
    assert type(caught.value) is XdpctlError
    assert caught.value.what == f"cannot {flip} the root of lo"
    assert "EPERM" in caught.value.why


@pytest.mark.parametrize("attach", ATTACHES)
@pytest.mark.parametrize(
    ("number", "kind", "text"),
    [
        (errno.ERANGE, UnsupportedError, "plain lacks it"),
        (errno.EOPNOTSUPP, UnsupportedError, "-m skb"),
        (errno.EINVAL, UnsupportedError, "native mode"),
        (errno.ENOMEM, XdpctlError, "cannot attach"),
    ],
)
def test_refusals_to_attach(
    attach: Attach, number: int, kind: type[XdpctlError], text: str
) -> None:
    with pytest.raises(XdpctlError) as caught, hook(attach)._refusals("attach"):
        raise KernelError("bpf_link_create", number, "")
    assert type(caught.value) is kind
    error = caught.value
    assert text in f"{error.what} {error.why} {error.hint}"
    assert re.search(r"\blo\b", error.what)


@pytest.mark.parametrize("attach", ATTACHES)
@pytest.mark.parametrize("flip", ["update", "detach"])
def test_what_the_kernel_said_is_quoted(attach: Attach, flip: str) -> None:
    with pytest.raises(XdpctlError) as caught, hook(attach)._refusals(flip):
        raise KernelError("bpf_link_update", errno.EINVAL, "libbpf: the reason\n")
    assert caught.value.why == "libbpf: the reason"
    assert type(caught.value) is XdpctlError  # -m skb would be no remedy for an update


@pytest.mark.parametrize("attach", ATTACHES)
@pytest.mark.parametrize("flip", ["attach", "update"])
def test_generic_mode_takes_less_than_native_mode(attach: Attach, flip: str) -> None:
    """What lacks there is a newer kernel or other maps, not another mode."""
    refusals = hook(attach, mode="skb")._refusals(flip)
    with pytest.raises(UnsupportedError, match="to lo in skb mode") as caught, refusals:
        raise KernelError("bpf_link_update", errno.EINVAL)
    assert "room for programs" in caught.value.hint


@pytest.mark.parametrize("attach", ATTACHES)
def test_an_mtu_is_too_large_for_an_update_too(attach: Attach) -> None:
    with pytest.raises(UnsupportedError, match="MTU of lo"), hook(attach)._refusals("update"):
        raise KernelError("bpf_link_update", errno.ERANGE)


@pytest.mark.parametrize("attach", ATTACHES)
@pytest.mark.parametrize(
    "number", [errno.ENODEV, errno.ENOLINK, errno.EINVAL, errno.ERANGE, errno.EPERM]
)
def test_an_interface_that_went_away(attach: Attach, number: int) -> None:
    gone = hook(attach, GONE)
    with pytest.raises(VanishedError, match="gone0 went away"), gone._refusals("update"):
        raise KernelError("bpf_link_update", number)


@pytest.mark.parametrize("attach", ATTACHES)
def test_other_errors_pass(attach: Attach) -> None:
    with pytest.raises(ZeroDivisionError), hook(attach)._refusals("update"):
        assert 1 / 0
    with hook(attach)._refusals("update"):
        pass


@pytest.mark.parametrize("link_id", [0, 77], ids=ATTACHES[::-1])
def test_a_root_that_is_gone_is_a_lost_race(link_id: int) -> None:
    """Its link, or the program itself, is to be opened before anything is made."""
    state = state_of([running("m", 8)], link_id=link_id)
    plan = plan_of(state, chain_of(running("m", 8)))
    paths = homes.of(Bpffs("/nonexistent"), state.interface)
    assert state.root is not None
    with contextlib.ExitStack() as closing, pytest.raises(LostRace):
        Hook(state.interface, plan, paths, state.root, closing)


def test_every_mode_that_a_root_can_have() -> None:
    """The numbers of <linux/if_link.h>, which test_libbpf.py compares with ours."""
    assert MODE_FLAGS == {"unspecified": 0, "native": 4, "skb": 2, "hw": 8}


# --- the driver's own words ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "said", "text"),
    [
        (errno.EOPNOTSUPP, "virtio_net: Can't set XDP while host is implementing LRO", "lro off"),
        (errno.EINVAL, "virtio_net: disable GRO_HW/CSUM first", "rx-gro-hw off"),
        (errno.EINVAL, "bnxt: HDS is on", "tcp-data-split off"),
        (errno.ENOSPC, "veth: XDP expects number of rx queues not less than", "ethtool -L lo"),
        (errno.ENOMEM, "virtio_net: Too few free TX rings available", "ethtool -L lo"),
        (errno.EOPNOTSUPP, "bonding: No Native XDP support", "-m skb"),
        (errno.EINVAL, "virtio_net: MTU too large to enable XDP without frags", "mtu 1500"),
        (errno.EOPNOTSUPP, "vmxnet3: MTU too large for XDP", "mtu 1500"),
    ],
)
def test_the_driver_s_words_and_the_remedy_for_them(
    monkeypatch: pytest.MonkeyPatch, number: int, said: str, text: str
) -> None:
    """Over netlink they come with the refusal, for a link they are asked for."""
    log = f"libbpf: Kernel error message: {said}\n"

    def refuse(*_arguments: object) -> None:
        raise KernelError("bpf_xdp_attach", number, log)

    monkeypatch.setattr(Program, "load", lambda *_, **__: Program(os.dup(0)))
    monkeypatch.setattr("xdpctl.kernel.xdp.attach", refuse)
    for attach in ATTACHES:
        given = log if attach == "netlink" else ""
        with pytest.raises(UnsupportedError) as caught, hook(attach)._refusals("attach"):
            raise KernelError("bpf", number, given)
        assert said in caught.value.why
        assert text in caught.value.hint
        assert "-m skb" in caught.value.hint


@pytest.mark.parametrize("attach", ATTACHES)
def test_a_driver_that_takes_no_fragments(attach: Attach) -> None:
    """Nobody is told to build programs anew that are as they should be."""
    said = "vmxnet3: MTU 9000 too large for XDP"
    log = f"libbpf: Kernel error message: {said}\n"
    refusals = hook(attach, frags=True)._refusals("attach")
    with pytest.raises(UnsupportedError, match="too large for its driver") as caught, refusals:
        raise KernelError("bpf_xdp_attach", errno.EOPNOTSUPP, log)
    assert said in caught.value.why
    assert "xdp.frags" not in caught.value.hint
    assert "mtu 1500" in caught.value.hint
    assert "-m skb" in caught.value.hint


def test_a_link_does_not_tell_that_fragments_are_no_longer_taken() -> None:
    """Its update is refused without words, and the hook is in use."""
    state = state_of([running("whole", 8, frags=True)], link_id=77)
    target = chain_of(running("whole", 8, frags=True), fresh("plain"))
    paths = homes.of(Bpffs("/bpffs"), LOOPBACK)
    updating = Hook(LOOPBACK, plan_of(state, target), paths, None, contextlib.ExitStack())
    refusals = updating._refusals("update")
    with pytest.raises(UnsupportedError, match="MTU of lo") as caught, refusals:
        raise KernelError("bpf_link_update", errno.EINVAL)
    assert "plain lacks it" in caught.value.why


def test_what_is_taken_against_all_odds_goes_again(monkeypatch: pytest.MonkeyPatch) -> None:
    did = list[str]()
    monkeypatch.setattr(Program, "load", lambda *_, **__: Program(os.dup(0)))
    monkeypatch.setattr("xdpctl.kernel.xdp.attach", lambda *_: did.append("attached"))
    monkeypatch.setattr("xdpctl.kernel.xdp.detach", lambda *_: did.append("detached"))
    with pytest.raises(UnsupportedError, match="in native mode"), hook()._refusals("attach"):
        raise KernelError("bpf_link_create", errno.EINVAL)
    assert did == ["attached", "detached"]


def test_a_relative_that_has_the_hook_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for program in (0, 77):
        found = [(netlink.Neighbour("bond0", program=program), "above")]
        monkeypatch.setattr(netlink, "relatives", lambda _number, found=found: found)
        kind: type[Exception] = HookBusyError if program else LostRace
        with pytest.raises(kind) as caught, hook()._refusals("attach"):
            raise KernelError("bpf_link_create", errno.EEXIST)
        assert not program or "bond0, above lo, has an XDP program" in str(caught.value)
