"""systemd/: the services run commands that exist, and may do what these have to."""

from __future__ import annotations

import re
import shutil
import subprocess
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

import pytest

from tests.unit.docs.pages import TIMER, UNITS, commands, names, page, read
from tests.unit.samples import ROOT
from xdpctl.bpffs.mount import DEFAULT_BPFFS
from xdpctl.host import hints, locks, rights
from xdpctl.host.cache import CACHE

WATCH, APPLY, METRICS, TEXTFILE = UNITS
INSTALL = "docs/install.md"
PACKAGE = ROOT / "xdpctl"


@cache
def unit(path: str) -> dict[str, list[str]]:
    """The settings of a unit file; those that may be repeated add up."""
    found: dict[str, list[str]] = {}
    for name, value in re.findall(r"^(\w+)=(.*)$", read(path), flags=re.MULTILINE):
        found.setdefault(name, []).extend(value.split())
    return found


@pytest.mark.parametrize("path", UNITS)
def test_a_service_is_as_systemd_wants_it(path: str, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("missing: systemd-analyze")
    name = Path(path).name.replace("@.", "@eth0.")
    # The program need not be installed where the tests run.
    (tmp_path / name).write_text(re.sub(r"=xdpctl ", "=/bin/true ", read(path)))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", tmp_path / name],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout + done.stderr, done.returncode) == ("", 0)


@pytest.mark.parametrize("path", UNITS)
def test_a_service_runs_a_command_that_exists(path: str) -> None:
    starts = [value for name in ("ExecStart", "ExecReload") for value in unit(path).get(name, [])]
    program, verb, *words = unit(path)["ExecStart"]
    assert starts == [program, verb, *words] * (2 if path == APPLY else 1)
    # systemd looks for it in /usr/local/sbin, /usr/local/bin, /usr/sbin and /usr/bin.
    assert program == "xdpctl"
    told = re.findall(r"^install -m 0644 (.*) /etc/systemd/system/", read(INSTALL), re.MULTILINE)
    assert any(fnmatch(path, one) for line in told for one in line.split())
    command = dict(commands())[verb]
    given = {word.partition("=")[0] for word in words if word.startswith("-")}
    assert given <= names(command)
    assert command.make_context(verb, [re.sub("%I", "eth0", word) for word in words])


@pytest.mark.parametrize("path", [WATCH, METRICS])
def test_what_runs_for_long_says_when_it_is_ready(path: str) -> None:
    assert unit(path)["Type"] == ["notify"]
    assert any("sd_notify" in path.read_text() for path in PACKAGE.rglob("*.py"))


def test_a_chain_comes_with_its_interface_and_before_the_network() -> None:
    settings = unit(APPLY)
    device = "sys-subsystem-net-devices-%i.device"
    assert (settings["Type"], settings["RemainAfterExit"]) == (["oneshot"], ["yes"])
    assert settings["BindsTo"] == [device]
    assert device in settings["After"]
    assert device in settings["WantedBy"]
    assert "network-pre.target" in settings["Before"]
    assert settings["Wants"] == ["network-pre.target"]
    # Without it the unit waits for basic.target, and some of that for the network.
    assert settings["DefaultDependencies"] == ["no"]
    assert "ExecStop" not in settings
    # Not %i: a dash in a name is escaped there.
    interface, path = settings["ExecStart"][-2:]
    assert (interface, path) == ("%I", "/etc/xdpctl/%I.toml")
    directory = path.rpartition("/")[0]
    assert f".It Pa {directory}/ Ns Ar interface Ns Pa .toml\n" in page()["FILES"]
    assert f"{directory}/eth0.toml" in read("README.md")
    (seconds,) = settings["TimeoutStartSec"]
    assert int(seconds) > locks.DEFAULT_TIMEOUT


@pytest.mark.parametrize("path", UNITS)
def test_a_service_may_do_what_it_has_to(path: str) -> None:
    settings = unit(path)
    assert set(rights.NEEDED) <= set(settings["CapabilityBoundingSet"])
    families = {
        one for path in PACKAGE.rglob("*.py") for one in re.findall(r"\bAF_\w+", path.read_text())
    }
    assert families == set(settings["RestrictAddressFamilies"])
    assert settings["RestrictNamespaces"] == ["net"]
    assert settings["RequiresMountsFor"] == [DEFAULT_BPFFS]
    (cache_name,) = settings["CacheDirectory"]
    assert f"/var/cache/{cache_name}" == CACHE
    # Each of them would hide what it has to see, or /sys/fs/bpf from its hands.
    blind = {"PrivateNetwork", "PrivateUsers", "PrivatePIDs", "ProtectProc", "ProcSubset"}
    assert not settings.keys() & {*blind, "ProtectKernelTunables", "MemoryDenyWriteExecute"}


def test_the_services_are_shut_in_alike() -> None:
    """What a command may do does not depend on who starts it."""
    first, *others = (
        {
            name: value
            for name, value in unit(path).items()
            if re.match("Capab|Limit|Lock|NoNew|Private|Protect|Restrict[A-Z]|System|UMask", name)
        }
        for path in UNITS
    )
    assert others == [first] * (len(UNITS) - 1)


@pytest.mark.parametrize("path", UNITS)
def test_a_service_leaves_hints_where_metrics_look_for_them(path: str) -> None:
    settings = unit(path)
    (name,) = settings["RuntimeDirectory"]
    assert f"/run/{name}" == hints.DIRECTORY
    assert settings["RuntimeDirectoryPreserve"] == ["yes"]
    assert settings["RuntimeDirectoryMode"] == ["0700"]


def test_the_timer_starts_the_service_that_writes_for_node_exporter() -> None:
    assert TIMER.removesuffix("timer") == TEXTFILE.removesuffix("service")
    settings = unit(TEXTFILE)
    assert settings["ExecStart"][-1].endswith(".prom")
    assert settings["ReadWritePaths"] == ["-" + str(Path(settings["ExecStart"][-1]).parent)]
    assert unit(TIMER)["WantedBy"] == ["timers.target"]
    assert f"systemctl enable --now {Path(TIMER).name}" in read(TIMER)
