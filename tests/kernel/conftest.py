"""Fixtures for tests on a real kernel, in a guest of tests/vm or on any machine that allows it.

Capabilities are asked of the kernel, never of its version: `needs("frags")` skips a test and names
what is missing. Without "xdp_link" nothing here can run, and the directory skips as one.

A test of the tool runs for both kinds of root; those of one kind alone say so, and why, with
`kinds("ext")`. XDPCTL_KINDS=fused in the environment leaves the other kind out altogether: the
tests then run natively where EXT programs are refused, beside whatever else the machine does.
Guests of `make test` share the tests, which take turns: see turns.py.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.kernel import net, oracle, platforms, served, turns, wires
from tests.kernel.tool import Tool
from xdpctl.model.chain import Kind

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent


KINDS: tuple[Kind, ...] = ("ext", "fused")
EXT_ALONE = ("link_target", "shared_arrays")


def needs(*capabilities: str) -> pytest.MarkDecorator:
    """A mark: skip unless the kernel has these (oracle.PROBES: ext, frags, …).

    What is in EXT_ALONE, tests on a fused root do not need.
    """
    return pytest.mark.needs(*capabilities)


def kinds(*only: Kind) -> pytest.MarkDecorator:
    """A mark, of a test or of one of its parameters: it is about roots of these kinds alone."""
    return pytest.mark.kinds(*only)


one_guest = pytest.mark.one_guest
"""A mark: what it tests is xdpctl's own logic, and the same on each kernel that can run it."""
every_kernel = pytest.mark.every_kernel
"""A mark: all guests run it in each turn, on fused roots, too, or on roots of the kinds named."""


def one_of(fixture: str, count: int) -> pytest.MarkDecorator:
    """A mark: in `make test`, one of the `count` parameters of this fixture has its turn."""
    return pytest.mark.one_of(fixture, count)


def pytest_configure(config: pytest.Config) -> None:
    # A shell lets what it runs in the background ignore it, and scripts would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ["XDPCTL_RUN"] = "/dev/null"  # hints of a test go to a place of its own, or nowhere
    asked = os.environ.get("XDPCTL_SERVER")
    if asked == "yes" or (asked != "no" and not oracle.lacks("own_machine")):
        served.start()
    config.addinivalue_line("markers", "kinds(*kinds): run for these kinds of root alone")
    config.addinivalue_line("markers", "needs(*capabilities): skip unless the kernel has them")
    config.addinivalue_line("markers", "one_guest: the same on each kernel that can run it")
    config.addinivalue_line("markers", "every_kernel(*kinds): not shared between guests")
    config.addinivalue_line("markers", "one_of(fixture, count): not with each parameter each turn")
    config.addinivalue_line("markers", "cards: needs the cards of a guest of tests/vm --cards")
    config.addinivalue_line("markers", "leaks_ok: BPF objects may be left over by this test")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what uses the tool for each kind of root."""
    if "kind" in metafunc.fixturenames:
        metafunc.parametrize("kind", KINDS, indirect=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out kinds that a test is not about: such a test does not exist, and is not skipped.

    Nor do those for cards where there are none.
    """
    wanted = os.environ.get("XDPCTL_KINDS", ",".join(KINDS)).split(",")
    chosen, others = list[pytest.Item](), list[pytest.Item]()
    for item in items:
        kind, mark = _kind_of(item), item.get_closest_marker("kinds")
        meant = kind is None or (kind in wanted and (mark is None or kind in mark.args))
        meant = meant and (bool(wires.NAMES) or not item.get_closest_marker("cards"))
        (chosen if meant and _has_turn(item) else others).append(item)
    mine = [item for item in chosen if HERE in item.path.parents]
    platforms.tell_features(mine)
    if mine == chosen:
        left = platforms.first_of_each(chosen)
        others += [item for item in chosen if item not in left]
        chosen = left
    if place := turns.here():
        chosen = turns.arranged(chosen, [turns.rank(_traits(item), place) for item in chosen])
    items[:] = chosen
    config.hook.pytest_deselected(items=others)


def _kind_of(item: pytest.Item) -> Kind | None:
    callspec = getattr(item, "callspec", None)
    return callspec.params.get("kind") if callspec and HERE in item.path.parents else None


def _traits(item: pytest.Item) -> turns.Traits:
    needed = {one for mark in item.iter_markers("needs") for one in mark.args}
    return turns.traits(item, _kind_of(item), frozenset(needed.difference(EXT_ALONE)))


def _has_turn(item: pytest.Item) -> bool:
    place = turns.here()
    if (mark := item.get_closest_marker("one_of")) and not turns.is_the_one(item, *mark.args):
        return False
    return place is None or turns.has_turn(_traits(item), place)


def _claimed(item: pytest.Item) -> bool:
    """Whether no other guest has come to this test before, or it is for all of them."""
    place = turns.here()
    if place is None or _traits(item).every_kernel:
        return True
    try:
        os.mkdir(os.path.join(place.shared, turns.digest(item.nodeid)))
    except FileExistsError:
        return False
    return True


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    # One that this kernel cannot run is left to the others, and reported as skipped by this one.
    if _missing(item) or _claimed(item):
        return None
    item.session._setupstate.teardown_exact(nextitem)  # which the test would have done
    return True


def pytest_runtest_setup(item: pytest.Item) -> None:
    if HERE in item.path.parents and (missing := _missing(item)):
        pytest.skip(f"missing: {missing}")


def _missing(item: pytest.Item) -> str:
    """What a test needs and this kernel or user lacks; "" if it can run."""
    if os.geteuid():
        return "root"
    kind, wanted = _kind_of(item), ["xdp_link"]
    for mark in item.iter_markers("needs"):
        wanted += mark.args
    if kind == "ext":
        wanted.append("ext")
    elif kind == "fused":
        wanted = [capability for capability in wanted if capability not in EXT_ALONE]
    for capability in wanted:
        if reason := oracle.lacks(capability):
            return f"{capability} ({reason})"
    return ""


@pytest.fixture(scope="session", autouse=True)
def _platform(record_testsuite_property: Callable[[str, object], None]) -> None:
    """Have the report say what it is of."""
    for name, value in platforms.this_platform().items():
        record_testsuite_property(name, value)


@pytest.fixture(autouse=True)
def clean_kernel(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail the test that leaves programs, links, maps or pins behind, with a list of them.

    And the one that leaves this process in another network namespace.
    """
    # A predecessor that failed may still be dying: what it leaves is not this test's doing.
    before, home = oracle.snapshot(), os.stat("/proc/thread-self/ns/net").st_ino
    yield
    oracle.close_all()
    assert os.stat("/proc/thread-self/ns/net").st_ino == home
    if request.node.get_closest_marker("leaks_ok"):
        return
    after = oracle.settle(before)
    if after.added(before):
        pytest.fail("left behind:\n" + before.diff(after), pytrace=False)


@pytest.fixture
def bpffs(tmp_path: Path, clean_kernel: None) -> Iterator[Path]:
    """A fresh bpffs instance, unmounted at the end, which drops every pin in it."""
    path = tmp_path / "bpffs"
    path.mkdir()
    oracle.mount("bpf", path, "mode=0700")
    yield path
    oracle.unmount(path)


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
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Kind:
    """The kind that first roots are of in this test."""
    chosen: Kind = request.param
    monkeypatch.setenv("XDPCTL_ROOT", chosen)
    return chosen


@pytest.fixture
def tool(bpffs: Path, kind: Kind) -> Tool:
    """xdpctl, with a bpffs of the test's own."""
    return Tool(bpffs, kind)
