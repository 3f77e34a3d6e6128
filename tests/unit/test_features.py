"""xdpctl.doctor.features: from recorded answers of the kernel to names, lines and JSON."""

from __future__ import annotations

import errno
import subprocess
import sys
from typing import Any

import pytest

from tests.unit.samples import INTERFACE, LOOPBACK, ROOT
from tests.unit.terminal import on_terminal
from xdpctl.cli.run import run
from xdpctl.doctor import features
from xdpctl.doctor.features import RX_METADATA, XDP_ACT, XSK, Features
from xdpctl.errors import KernelError, UnsupportedError, VanishedError
from xdpctl.host.interfaces import Interface
from xdpctl.kernel import netdev
from xdpctl.view import features as views

HEADER = {"length": 72, "type": 20, "flags": 2, "sequence_number": 255, "error": None}
# A virtio_net card and a loopback on Linux 6.18, as pyroute2 gave them.
CARD: dict[str, Any] = {
    "attrs": [
        ("NETDEV_A_DEV_IFINDEX", 7),
        ("NETDEV_A_DEV_XDP_FEATURES", 43),
        ("NETDEV_A_DEV_XDP_RX_METADATA_FEATURES", 0),
        ("NETDEV_A_DEV_XSK_FEATURES", 0),
        ("NETDEV_A_DEV_XDP_ZC_MAX_SEGS", 1),
    ],
    "header": HEADER,
    "cmd": 1,
    "version": 1,
}
LO: dict[str, Any] = {
    "attrs": [
        ("NETDEV_A_DEV_IFINDEX", 1),
        ("NETDEV_A_DEV_PAD", None),
        ("NETDEV_A_DEV_XDP_FEATURES", 0),
        ("UNKNOWN", {"header": {"length": 8, "type": 99}}),
    ],
    "header": HEADER,
    "cmd": 1,
    "version": 1,
}
SEVEN = """\
NETDEV_XDP_ACT_BASIC:\t\tyes
NETDEV_XDP_ACT_REDIRECT:\tyes
NETDEV_XDP_ACT_NDO_XMIT:\tno
NETDEV_XDP_ACT_XSK_ZEROCOPY:\tyes
NETDEV_XDP_ACT_HW_OFFLOAD:\tno
NETDEV_XDP_ACT_RX_SG:\t\tyes
NETDEV_XDP_ACT_NDO_XMIT_SG:\tno
"""
OTHERS = """\
NETDEV_A_DEV_XDP_ZC_MAX_SEGS:\t1
NETDEV_XDP_RX_METADATA_TIMESTAMP:\tno
NETDEV_XDP_RX_METADATA_HASH:\tno
NETDEV_XDP_RX_METADATA_VLAN_TAG:\tno
NETDEV_XSK_FLAGS_TX_TIMESTAMP:\tno
NETDEV_XSK_FLAGS_TX_CHECKSUM:\tno
NETDEV_XSK_FLAGS_TX_LAUNCH_TIME_FIFO:\tno
"""


def card() -> Features:
    return Features.of(INTERFACE, netdev.attributes(CARD))


def test_an_answer_becomes_numbers_by_name() -> None:
    assert netdev.attributes(LO) == {"NETDEV_A_DEV_IFINDEX": 1, "NETDEV_A_DEV_XDP_FEATURES": 0}
    assert card() == Features(INTERFACE, 43, 1, 0, 0)
    assert card().has("RX_SG")
    assert not card().has("NDO_XMIT")


def test_the_names_are_those_of_the_family_s_header() -> None:
    assert [XDP_ACT.name(bit) for bit in (0, 6)] == [
        "NETDEV_XDP_ACT_BASIC",
        "NETDEV_XDP_ACT_NDO_XMIT_SG",
    ]
    assert RX_METADATA.name(2) == "NETDEV_XDP_RX_METADATA_VLAN_TAG"
    assert XSK.name(1) == "NETDEV_XSK_FLAGS_TX_CHECKSUM"


def test_a_flag_of_the_future_goes_by_its_bit() -> None:
    one = Features(INTERFACE, 1 << 0 | 1 << 9 | 1 << 63, None, 1 << 5, None)
    found = one.answers()
    assert list(found)[7:9] == ["NETDEV_XDP_ACT_bit9", "NETDEV_XDP_ACT_bit63"]
    assert "NETDEV_XDP_ACT_bit8" not in found
    assert found["NETDEV_XDP_RX_METADATA_bit5"] is True
    assert views.features_data(one)["xdp_features"] == [
        "NETDEV_XDP_ACT_BASIC",
        "NETDEV_XDP_ACT_bit9",
        "NETDEV_XDP_ACT_bit63",
    ]


def test_what_a_kernel_does_not_tell_is_left_out() -> None:
    """Linux 6.3 knows the seven alone."""
    old = Features.of(LOOPBACK, netdev.attributes(LO))
    assert list(old.answers()) == [XDP_ACT.name(bit) for bit in range(7)]
    data = views.features_data(old)
    assert data["xdp_features"] == []
    assert data["xdp_rx_metadata_features"] is data["xsk_features"] is None
    assert data["xdp_zc_max_segs"] is None


def test_lines_are_xdp_loader_s_then_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    views.features([card()], named=False)
    assert capsys.readouterr().out == SEVEN + OTHERS


def test_lines_of_several_begin_with_the_name(capsys: pytest.CaptureFixture[str]) -> None:
    views.features([card(), Features(LOOPBACK, 0)], named=True)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["veth7", "NETDEV_XDP_ACT_BASIC:", "yes"]
    assert lines[-1].split() == ["lo", "NETDEV_XDP_ACT_NDO_XMIT_SG:", "no"]
    assert len(lines) == 14 + 7


def test_a_terminal_gets_a_table() -> None:
    text = on_terminal(lambda: views.features([card(), Features(LOOPBACK, 0)], named=True))
    assert "BASIC, REDIRECT, XSK_ZEROCOPY, RX_SG" in text
    assert "not told" in text
    assert "NETDEV_" not in text


# --- asking -------------------------------------------------------------------------------------


def answering(monkeypatch: pytest.MonkeyPatch, answer: list[dict[str, int]] | int) -> list[Any]:
    """Have the kernel answer with this, or with an errno; returns what it was asked for."""
    asked: list[Any] = []

    def devices(ifindex: int | None = None) -> list[dict[str, int]]:
        asked.append(ifindex)
        if isinstance(answer, int):
            raise KernelError("netdev dev-get", answer)
        return answer

    monkeypatch.setattr(netdev, "devices", devices)
    return asked


def test_one_is_asked_for_and_many_are_dumped(monkeypatch: pytest.MonkeyPatch) -> None:
    other = Interface("gone0", 99, INTERFACE.netns)
    told = [netdev.attributes(LO), netdev.attributes(CARD)]
    asked = answering(monkeypatch, told)
    assert features.read([INTERFACE]) == [card()]
    found = features.read([INTERFACE, other, LOOPBACK])
    assert [one.interface for one in found] == [INTERFACE, LOOPBACK]
    assert asked == [7, None]


def test_a_kernel_without_the_family(monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, errno.ENOENT)
    with pytest.raises(UnsupportedError) as caught:
        features.read([INTERFACE])
    assert "6.3" in caught.value.why
    assert caught.value.hint


def test_an_interface_that_goes_away(monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, errno.ENODEV)
    with pytest.raises(VanishedError):
        features.read([INTERFACE])


@pytest.mark.parametrize(
    ("words", "answer", "code"),
    [
        (["lo"], [netdev.attributes(LO)], 0),
        ([], [netdev.attributes(LO)], 0),
        (["l*", "--json"], [netdev.attributes(LO)], 0),
        (["lo"], errno.ENOENT, 7),
        (["--json"], errno.ENOENT, 7),
        (["nosuch0"], [], 3),
        (["nosuch*"], [], 3),
        (["lo"], errno.EACCES, 1),
    ],
)
def test_exit_codes(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    answer: list[dict[str, int]] | int,
    code: int,
) -> None:
    answering(monkeypatch, answer)
    assert run(["features", *words]) == code
    captured = capsys.readouterr()
    assert bool(captured.err) == bool(code)
    assert "Traceback" not in captured.err
    assert captured.out or code


def test_other_commands_do_not_pay_for_it() -> None:
    code = (
        "import sys, xdpctl.cli.commands.status; print([m for m in sys.modules if 'pyroute2' in m])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
