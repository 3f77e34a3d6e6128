"""examples/fleet: the whole story, as its user runs it."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel import net
from tests.kernel.conftest import Objects, kinds, needs
from tests.kernel.test_ansible import runs
from tests.kernel.test_holders import until
from tests.kernel.test_metrics import prometheus
from tests.kernel.test_registry import host, pushed
from tests.kernel.tool import ROOT, Tool

# As test_ansible.py: plays take minutes in an emulated guest.
pytestmark = [needs("no_guest"), kinds("fused"), pytest.mark.usefixtures("kind")]
__all__ = ["host"]  # a fixture
RUN = ROOT / "examples/fleet/run"


@pytest.fixture
def path(tmp_path: Path) -> str:
    """PATH with what the story wants, from where tests/setup puts it."""
    for library in ("cryptography", "prometheus_client", "requests"):
        pytest.importorskip(library, reason=f"missing: {library}")
    if shutil.which("docker-registry") is None:
        pytest.skip("missing: docker-registry")
    newest, oldest = (ROOT / f".venv-ansible-{which}/bin" for which in ("newest", "oldest"))
    ansible = newest if runs(newest) else oldest
    if not runs(ansible):
        pytest.skip("missing: ansible (tests/setup installs it)")
    (tmp_path / "ansible-playbook").symlink_to(ansible / "ansible-playbook")
    (tmp_path / "prometheus").symlink_to(prometheus() / "prometheus")
    peers = [str(ROOT / "tests/peers"), "path"]
    told = subprocess.run(peers, capture_output=True, text=True, check=False).stdout.strip()
    if told and (cosign := Path(told) / "cosign").exists():
        (tmp_path / "cosign").symlink_to(cosign)
    script = tmp_path / "xdpctl"
    script.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m xdpctl "$@"\n')
    script.chmod(0o755)
    return f"{tmp_path}:{os.environ['PATH']}:/usr/sbin:/sbin"


@contextlib.contextmanager
def running(path: str) -> Iterator[subprocess.Popen[str]]:
    """The story, with what it says in its standard output."""
    environment = {name: value for name, value in os.environ.items() if name != "XDPCTL_RUN"}
    with subprocess.Popen(
        [RUN], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**environment, "PATH": path},
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.kill()


def left(path: str) -> list[str]:
    """The processes that have the first directory of this PATH in their environment."""
    directory = path.partition(":")[0].encode()
    found = []
    for one in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            if directory in one.read_bytes():
                found.append(one.parent.name)
    return found


def test_the_story(path: str, clean_kernel: None) -> None:
    """It ends well, says so, and leaves nothing."""
    with running(path) as process:
        told = process.communicate()[0]
    print(told)
    assert process.returncode == 0
    until(lambda: not left(path))
    found = re.search(r" 0 of (\d+) packets missed$", told.splitlines()[-1])
    assert found
    assert int(found[1]) > 5 * 100
    assert "refused by the trial, and no host has changed" in told


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_however_it_ends_nothing_is_left(
    path: str, clean_kernel: None, how: signal.Signals
) -> None:
    with running(path) as process:
        assert process.stdout
        while "hosts h1" not in (line := process.stdout.readline()):
            assert line, "it ended by itself"
        assert len(left(path)) > 5
        process.send_signal(how)
        process.wait(20)
        until(lambda: not left(path))
        told = process.stdout.read()
    assert process.returncode == (-how if how == signal.SIGKILL else 130)
    assert told.endswith("run: interrupted\n") == (how != signal.SIGKILL)


def test_a_signature_by_openssl(
    tool: Tool, veth: net.Veth, host: str, objects: Objects, tmp_path: Path
) -> None:
    image = pushed(tool, f"oci://{host}/xdp/count:1", objects["count"])
    key, public = tmp_path / "key.pem", tmp_path / "key.pub"
    curve = ("-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256")
    name = f"http://{host}/xdp/count@{image.partition('@')[2]}"
    load = ("load", veth.dev, f"oci://{host}/xdp/count:1", "--verify-key", public, "--dry-run")
    subprocess.run(["openssl", "genpkey", *curve, "-out", key], check=True)
    subprocess.run(["openssl", "pkey", "-in", key, "-pubout", "-out", public], check=True)
    assert tool.try_(*load).code == 19
    script = [sys.executable, str(RUN.with_name("sign.py")), str(key)]
    done = subprocess.run([*script, "nonsense"], capture_output=True, text=True, check=False)
    assert (done.returncode, "usage" in done.stderr) == (1, True)
    subprocess.run([*script, name], check=True)
    tool(*load)
