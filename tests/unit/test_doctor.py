"""xdpctl.doctor.checks: facts of many machines, made by hand, and what they mean."""

from __future__ import annotations

import errno
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pyroute2.netlink.generic import GenericNetlinkSocket

from tests.unit.samples import INTERFACE
from tests.unit.terminal import on_terminal, without_colour
from xdpctl.cli.run import run
from xdpctl.doctor import ethtool, experiments, interface_checks, probes
from xdpctl.doctor.check import Check, Diagnosis
from xdpctl.doctor.checks import examine, verdict
from xdpctl.doctor.experiments import NOT_TRIED, Experiment
from xdpctl.doctor.features import Features
from xdpctl.doctor.probes import Machine, Nic
from xdpctl.errors import BpffsError, HookBusyError, UnsupportedError
from xdpctl.host import rights
from xdpctl.kernel import libbpf, rings
from xdpctl.kernel.netlink import Neighbour
from xdpctl.view import doctor

WORKS = Experiment()
EPERM = Experiment("Operation not permitted (EPERM)", errno.EPERM)
GOOD = Machine(
    release="6.12.1-amd64",
    arch="x86_64",
    libbpf="v1.1",
    xdp=WORKS,
    jited=True,
    ext=WORKS,
    fused=WORKS,
    device="veth",
    link=WORKS,
    netlink=WORKS,
    generic=WORKS,
    frags=WORKS,
    frags_native=WORKS,
    grace_period=True,
    btf=True,
    lockdown="none",
    lsms="lockdown,capability,bpf",
    config=dict.fromkeys(probes.CONFIG_OPTIONS, "y"),
    bpffs="/sys/fs/bpf",
    clang="14.0.6",
    cache="/var/cache/xdpctl",
    cache_safe=True,
    bcc="/usr/lib/python3/dist-packages/bcc",
    headers="/lib/modules/6.12.1-amd64/build",
    nics=[Nic("eth0", "virtio_net", "", 1500, 4, 4, Features(INTERFACE, 43))],
)
NO_BPFFS = BpffsError("/x is no BPF file system", why="pins", hint="mount -t bpf bpf /x")
BUSY = HookBusyError("another tool's program is on the hook", why="program 9", hint="remove it")


def judged(name: str, *, named: bool = False, **changes: Any) -> Check:
    """One check of a machine that is good but for some doctor."""
    (check,) = [
        one for one in examine(replace(GOOD, **changes), named=named).checks if one.name == name
    ]
    return check


def judged_nic(name: str, *, named: bool = False, **changes: Any) -> Check:
    return judged(name, named=named, nics=[replace(GOOD.nics[0], **changes)])


def test_a_good_machine() -> None:
    found = examine(GOOD, named=True)
    assert {check.state for check in found.checks} == {"ok"}
    assert not any(check.consequence or check.remedy for check in found.checks)
    assert (found.kind, found.exit_code) == ("ext", 0)
    assert "EXT" in verdict(found)


@pytest.mark.parametrize(
    ("changes", "kind", "code", "culprit"),
    [
        ({"ext": EPERM}, "fused", 0, ""),
        ({"fused": EPERM}, "ext", 0, ""),
        ({"ext": EPERM, "fused": EPERM}, None, 7, "fused"),
        ({"missing": ["CAP_BPF", "CAP_PERFMON"]}, None, 6, "rights"),
        ({"missing": ["CAP_BPF"], "bpffs_problem": NO_BPFFS}, None, 6, "rights"),
        ({"libbpf": "", "libbpf_problem": "no such file"}, None, 7, "libbpf"),
        ({"xdp": EPERM}, None, 7, "xdp"),
        ({"link": EPERM}, "ext", 0, ""),
        ({"netlink": EPERM}, "ext", 0, ""),
        ({"link": EPERM, "netlink": EPERM}, None, 7, "link"),
        ({"link": NOT_TRIED, "netlink": NOT_TRIED}, "ext", 0, ""),
        ({"bpffs_problem": NO_BPFFS}, None, 9, "bpffs"),
        ({"bpffs_problem": NO_BPFFS, "bpffs_mountable": True}, "ext", 0, ""),
        ({"bpffs_problem": NO_BPFFS, "xdp": EPERM}, None, 7, "xdp"),
        ({"clang": "", "clang_problem": "no clang", "ext": Experiment("no clang")}, "fused", 0, ""),
        ({"frags": EPERM, "btf": False, "grace_period": False, "jited": False}, "ext", 0, ""),
        ({"bcc": "", "headers": "", "cache_safe": False}, "ext", 0, ""),
    ],
)
def test_what_stands_in_the_way(
    changes: dict[str, Any], kind: str | None, code: int, culprit: str
) -> None:
    found = examine(replace(GOOD, **changes), named=True)
    assert (found.kind, found.exit_code) == (kind, code)
    if code:
        assert verdict(found).endswith(f"see {culprit} (exit status {code})")
    for check in found.checks:
        assert (check.state == "ok") <= (not check.exit_code)
        if check.state == "failed":
            assert check.consequence
            assert check.remedy


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("rights", {"missing": ["CAP_BPF"]}),
        ("rights", {"own_user_namespace": True}),
        ("kernel", {"config": {"XDP_SOCKETS": "n"}}),
        ("jit", {"jited": False}),
        ("ext", {"ext": EPERM}),
        ("ext", {"ext": Experiment("Unknown error 524", 524), "jited": False}),
        ("ext", {"ext": Experiment("Invalid argument", errno.EINVAL)}),
        ("fused", {"fused": EPERM}),
        ("link", {"link": EPERM}),
        ("netlink", {"netlink": EPERM}),
        ("generic", {"generic": EPERM}),
        ("frags", {"frags": EPERM}),
        ("frags", {"frags_native": Experiment("Numerical result out of range", errno.ERANGE)}),
        ("membarrier", {"grace_period": False}),
        ("btf", {"btf": False}),
        ("policy", {"ext": EPERM}),
        ("bpffs", {"bpffs_problem": NO_BPFFS}),
        ("clang", {"clang": "", "clang_problem": "clang: No such file"}),
        ("cache", {"cache_safe": False}),
        ("cache", {"cache_bad": ["source-0.kept"]}),
        ("bcc", {"bcc": ""}),
        ("headers", {"headers": ""}),
    ],
)
def test_what_is_not_in_order_has_a_consequence_and_a_remedy(
    name: str, changes: dict[str, Any]
) -> None:
    check = judged(name, **changes)
    assert check.state != "ok"
    assert check.found
    assert check.consequence
    assert check.remedy


def test_a_policy_against_ext_is_told_as_such() -> None:
    check = judged("ext", ext=EPERM)
    assert check.state == "warning"
    assert "policy" in check.found
    assert "EPERM" in check.found
    assert "fused" in check.consequence
    assert judged("ext", ext=EPERM, fused=EPERM).state == "failed"


def test_without_rights_the_kernel_is_not_judged() -> None:
    found = examine(replace(GOOD, missing=["CAP_BPF"], ext=EPERM), named=False)
    states = {check.name: check for check in found.checks}
    assert states["ext"].found == "not tried"
    assert "hook" not in states


def test_a_container_s_rights_are_a_user_namespace_s() -> None:
    assert "initial user namespace" in judged("xdp", xdp=EPERM, own_user_namespace=True).remedy


# --- interfaces ---------------------------------------------------------------------------------


def test_native_xdp_is_told_by_flags_or_by_the_driver_s_name() -> None:
    bridge: dict[str, Any] = {
        "driver": "bridge",
        "kind": "bridge",
        "features": Features(INTERFACE, 0),
    }
    assert judged_nic("native").state == "ok"
    assert judged_nic("native", **bridge).remedy == "load -m skb"
    assert "probably" in judged_nic("native", features=None).found
    for features in (bridge["features"], None):
        loopback = replace(GOOD.nics[0], name="lo", driver="", kind="", features=features)
        for nic in (loopback, replace(loopback, name="ifb0", kind="ifb")):
            found = judged("native", nics=[nic])
            assert (found.state, "load -m skb" in found.found) == ("ok", True)
    unknown = judged_nic("native", driver="", kind="wireguard", features=None)
    assert (unknown.state, unknown.interface) == ("warning", "eth0")
    assert "not known" in unknown.found


@pytest.mark.parametrize(
    ("mtu", "flags", "frags", "text"),
    [
        (1500, 1, WORKS, ""),
        (9000, 0, WORKS, ""),  # generic mode alone, which has no such limit
        (9000, 1 | 1 << 5, WORKS, "xdp.frags"),
        (9000, 1, WORKS, "the driver"),
        (9000, 1 | 1 << 5, EPERM, "the kernel"),
    ],
)
def test_a_large_mtu_needs_fragments(mtu: int, flags: int, frags: Experiment, text: str) -> None:
    nic = replace(GOOD.nics[0], mtu=mtu, features=Features(INTERFACE, flags))
    check = judged("mtu", nics=[nic], frags=frags)
    assert check.state == ("warning" if text else "ok")
    assert text in check.found + check.remedy
    assert bool(check.remedy) == bool(text)


def test_a_hook_of_others_blocks_the_interface_that_was_asked_about() -> None:
    for named, state, code in ((True, "failed", 8), (False, "warning", 0)):
        check = judged_nic("hook", named=named, busy=BUSY, runs="a program of another tool")
        assert (check.state, check.exit_code, check.remedy) == (state, code, "remove it")
    nics = [replace(GOOD.nics[0], busy=BUSY)]
    found = examine(replace(GOOD, nics=nics), named=True)
    assert verdict(found).endswith("see hook of eth0 (exit status 8)")


# --- reading ------------------------------------------------------------------------------------


def test_the_kernel_s_configuration() -> None:
    text = "# CONFIG_XDP_SOCKETS is not set\nCONFIG_BPF_JIT=y\nCONFIG_BPF_JIT_DEFAULT_ON=y\n"
    assert probes.config_of(text) == {
        "BPF_SYSCALL": "n",
        "BPF_JIT": "y",
        "XDP_SOCKETS": "n",
        "DEBUG_INFO_BTF": "n",
    }
    assert probes.config_of("") == {}


def test_the_lockdown_that_is_marked() -> None:
    assert probes.bracketed("none [integrity] confidentiality") == "integrity"
    assert probes.bracketed("") == ""


def test_a_version_of_debian_s() -> None:
    status = (
        "Package: xdp\nStatus: install ok installed\nVersion: 9\n\n"
        "Package: xdp-tools\nStatus: install ok installed\nDepends: a,\n b\nVersion: 1.3.1-1\n\n"
        "Package: gone\nStatus: deinstall ok config-files\nVersion: 2\n"
    )
    assert probes.debian_version(status, "xdp-tools") == "1.3.1-1"
    assert probes.debian_version(status, "gone") == ""
    assert probes.debian_version(status, "nosuch") == ""


class Message(dict[str, Any]):
    """A netlink message as pyroute2 gives it, as far as it is asked."""

    def get_attr(self, name: str) -> Any:
        return self.get(name)


def test_an_interface_s_message() -> None:
    kind = Message(IFLA_INFO_KIND="veth")
    link = Message(IFLA_MTU=9000, IFLA_NUM_RX_QUEUES=2, IFLA_NUM_TX_QUEUES=4, IFLA_LINKINFO=kind)
    assert probes.nic_of("va", link) == Nic("va", "", "veth", 9000, 2, 4)
    assert probes.nic_of("lo", Message()) == Nic("lo")


def test_the_child_s_answer() -> None:
    told = {"device": "veth", "link": ["", 0, True], "netlink": ["no", 1, True]}
    found = experiments.attached(json.dumps(told).encode())
    assert found.link.works
    assert found.netlink == Experiment("no", 1)
    assert not found.frags.tried
    assert not experiments.attached(b"").link.tried
    assert "EPERM" in experiments.attached(b'{"problem": "unshare: EPERM"}').link.refusal


def test_a_trial_tells_an_errno_or_a_reason() -> None:
    def refuse() -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    def give_up() -> None:
        raise BUSY

    assert experiments.tried(lambda: None).works
    assert experiments.tried(refuse).errno == errno.EPERM
    assert experiments.tried(give_up) == Experiment(
        "another tool's program is on the hook: program 9"
    )


def test_no_clang(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    version, problem = probes._clang()
    assert (bool(version), problem) == (True, "")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert probes._clang() == ("", "clang: No such file or directory")


# --- what is shown ------------------------------------------------------------------------------

FAILED = examine(replace(GOOD, ext=EPERM, bpffs_problem=NO_BPFFS), named=False)


def test_lines_for_scripts(capsys: pytest.CaptureFixture[str]) -> None:
    doctor.diagnosis(FAILED, quiet=False)
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split(None, 2) for line in lines if not line.startswith(" ")][:-1]
    assert [row[:2] for row in rows][:3] == [["ok", "rights"], ["ok", "kernel"], ["ok", "libbpf"]]
    assert ["failed", "bpffs"] in [row[:2] for row in rows]
    assert ["ok", "eth0:native"] in [row[:2] for row in rows]
    place = lines.index(next(line for line in lines if line.startswith("failed")))
    assert lines[place + 2] == "         do: mount -t bpf bpf /x"
    assert lines[-1] == "no chain can be run here: see bpffs (exit status 9)"


def test_quiet_shows_what_is_not_in_order(capsys: pytest.CaptureFixture[str]) -> None:
    doctor.diagnosis(FAILED, quiet=True)
    out = capsys.readouterr().out
    assert "\nok" not in out
    assert out.startswith("warning  ext ")
    assert "no chain" in out


def test_a_found_text_of_several_lines_stays_one_line() -> None:
    assert doctor.check_lines(Check("clang", "warning", "one\n two\n"))[0].endswith("one; two")


def test_a_terminal_gets_a_table() -> None:
    found = Diagnosis((Check("xdp", "failed", "[bold]no[/]", "so what", "go"),), "ext")
    text = without_colour(on_terminal(lambda: doctor.diagnosis(found, quiet=False)))
    for part in ("failed", "xdp", "[bold]no[/]", "so: so what", "do: go", "can be run"):
        assert part in text


def test_json_and_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(probes, "gather", lambda *_: replace(GOOD, bpffs_problem=NO_BPFFS))
    assert run(["doctor", "lo", "--json"]) == 9
    document = json.loads(capsys.readouterr().out)
    assert (document["works"], document["kind"], document["exit_code"]) == (False, None, 9)
    (check,) = [one for one in document["checks"] if one["name"] == "bpffs"]
    assert check["state"] == "failed"
    assert set(check) == set(Check._fields)
    assert run(["doctor", "nosuch0"]) == 3


@pytest.mark.parametrize(
    ("name", "nic", "text"),
    [
        ("offloads", {"lro": True, "vlan": True}, "ethtool -K va lro off"),
        ("offloads", {"lro": False, "vlan": True, "split": False}, ""),
        ("offloads", {"split": True}, "ethtool -G va tcp-data-split off"),
        ("offloads", {"lro": True, "split": True}, "ethtool -K va lro off && ethtool -G va"),
        ("queues", {"channels": (2, 2), "kind": "virtio_net"}, "ethtool -L va combined 8"),
        ("queues", {"channels": (8, 8), "kind": "virtio_net"}, ""),
        ("queues", {"channels": None}, ""),
        ("queues", {"kind": "veth", "channels": (1, 1), "peer_channels": (4, 4)}, "-L va rx 4"),
        ("mtu", {"kind": "veth", "mtu": 1500, "peer_mtu": 9000}, "frags"),
        ("mtu", {"kind": "veth", "mtu": 9000, "peer_mtu": 1500}, ""),
        ("mtu", {"kind": "veth", "mtu": 1500, "peer": Neighbour("")}, ""),
        ("queues", {"kind": "veth", "channels": (1, 1), "peer": Neighbour("")}, ""),
    ],
)
def test_offloads_queues_and_the_peer_of_a_veth(name: str, nic: dict[str, Any], text: str) -> None:
    peer = Neighbour("vb", nic.pop("peer_mtu", 1500))
    made = Nic("va", **{"driver": nic.get("kind", "igb"), "peer": peer, **nic})
    found = examine(replace(GOOD, processors=8, nics=[made]), named=False)
    (check,) = [one for one in found.checks if one.name == name]
    assert (check.state == "warning", text in check.remedy) == (bool(text), True)
    assert ("another network namespace" in check.found) == (made.peer == Neighbour(""))


def test_what_the_driver_of_lo_tells() -> None:
    assert ethtool.driver("lo") == ""
    assert ethtool.channels("lo") is None
    assert ethtool.offloads("nosuch0") == (None, None)
    lro, _vlan = ethtool.offloads("lo")
    assert lro is False
    assert rings.data_split([1, 1 << 30]) == {}


@pytest.mark.parametrize(("state", "found"), [(0, {}), (1, {4: False}), (2, {4: True})])
def test_what_a_driver_tells_of_its_rings(
    monkeypatch: pytest.MonkeyPatch, state: int, found: dict[int, bool]
) -> None:
    """The request is put into bytes, and the answer read from some, as the kernel would."""

    def request(_socket: object, asked: Any, **_values: object) -> list[Any]:
        asked["header"]["sequence_number"] = 1
        asked.encode()
        message = rings.RingsMessage(bytes(asked.data))
        message.decode()
        (device,) = (value for name, value in message["attrs"] if name.endswith("HEADER"))
        assert device.get_attr("ETHTOOL_A_HEADER_DEV_INDEX") == 4
        answer = rings.RingsMessage()
        answer["attrs"] = [("ETHTOOL_A_RINGS_RX", 512)]
        if state:
            answer["attrs"].append(("ETHTOOL_A_RINGS_TCP_DATA_SPLIT", state))
        answer.encode()
        read = rings.RingsMessage(bytes(answer.data))
        read.decode()
        return [read]

    monkeypatch.setattr(GenericNetlinkSocket, "nlm_request", request)
    assert rings.data_split([4]) == found


def test_every_driver_s_name_is_there_once() -> None:
    assert len(interface_checks._DRIVERS.split()) == len(interface_checks.NATIVE_DRIVERS)


def test_without_libbpf_it_still_comes_to_its_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing() -> str:
        raise UnsupportedError("libbpf is not there", why="libbpf.so.1: no such file")

    monkeypatch.setattr(libbpf, "version", missing)
    monkeypatch.setattr(libbpf, "lib", missing)
    assert run(["doctor", "lo"]) == (6 if rights.missing() else 7)
    captured = capsys.readouterr()
    assert "libbpf.so.1: no such file" in captured.out
    assert captured.err == ""
