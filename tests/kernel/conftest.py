"""Fixtures for tests on a real kernel, in a guest of tests/vm or on any machine that allows it.

Capabilities are asked of the kernel, never of its version: `needs("frags")` skips a test and names
what is missing. Without "ext" and "xdp_link" nothing here can run, and the directory skips as one.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel import net, oracle
from tests.kernel.tool import Tool

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent


def needs(*capabilities: str) -> pytest.MarkDecorator:
    """A mark: skip unless the kernel has these (oracle.PROBES: ext, frags, …)."""
    return pytest.mark.needs(*capabilities)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs(*capabilities): skip unless the kernel has them")
    config.addinivalue_line("markers", "leaks_ok: BPF objects may be left over by this test")


def pytest_runtest_setup(item: pytest.Item) -> None:
    if HERE not in item.path.parents:
        return
    if os.geteuid():
        pytest.skip("missing: root")
    wanted = ["xdp_link", "ext"]
    for mark in item.iter_markers("needs"):
        wanted += mark.args
    for capability in wanted:
        if reason := oracle.lacks(capability):
            pytest.skip(f"missing: {capability} ({reason})")


@pytest.fixture(autouse=True)
def clean_kernel(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail the test that leaves programs, links, maps or pins behind, with a list of them."""
    # A predecessor that failed may still be dying: what it leaves is not this test's doing.
    before = oracle.snapshot()
    yield
    oracle.close_all()
    if request.node.get_closest_marker("leaks_ok"):
        return
    after = oracle.settle(before, exact=False)
    if after.added(before):
        pytest.fail("left behind:\n" + before.diff(after), pytrace=False)


@pytest.fixture
def bpffs(tmp_path: Path, clean_kernel: None) -> Iterator[Path]:
    """A fresh bpffs instance, unmounted at the end, which drops every pin in it."""
    path = tmp_path / "bpffs"
    path.mkdir()
    subprocess.run(["mount", "-t", "bpf", "-o", "mode=0700", "bpf", path], check=True)
    yield path
    subprocess.run(["umount", "-l", path], check=True)


@pytest.fixture
def veth(clean_kernel: None) -> Iterator[net.Veth]:
    """A veth pair, deleted at the end and its XDP programs with it."""
    with net.Veth() as pair:
        yield pair


class Objects(dict[str, Path]):
    """{"count": …/build/tests/bpf/count.o, …}"""

    def __missing__(self, name: str) -> Path:
        raise KeyError(f"no tests/bpf/{name}.c, or not built: there are {', '.join(self)}")


@pytest.fixture(scope="session")
def objects() -> Objects:
    """The compiled test programs by name, built if they are not up to date."""
    subprocess.run(["make", "-s", "-C", ROOT / "tests" / "bpf"], check=True, capture_output=True)
    return Objects({one.stem: one for one in sorted((ROOT / "build/tests/bpf").glob("*.o"))})


@pytest.fixture(scope="session")
def debian() -> Path:
    """Where Debian's xdp-tools keeps its objects (xdpfilt_*.o, xdpdump_*.o, …)."""
    for path in [*sorted(Path("/usr/lib").glob("*/bpf")), Path("/usr/lib/bpf")]:
        if (path / "xdp-dispatcher.o").exists():
            return path
    pytest.skip("missing: the objects of xdp-tools")


@pytest.fixture
def tool(bpffs: Path) -> Tool:
    """xdpctl, with a bpffs of the test's own."""
    return Tool(bpffs)
