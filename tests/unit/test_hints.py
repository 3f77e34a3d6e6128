"""xdpctl.host.hints: files that nothing but what is shown depends on."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from tests.unit.samples import INTERFACE, needs_root
from xdpctl.change import failures
from xdpctl.errors import NotFoundError, UsageError, VerifierError
from xdpctl.host import hints

pytestmark = needs_root


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "run"
    monkeypatch.setenv("XDPCTL_RUN", str(path))
    return path


def test_what_is_written_is_read(run: Path) -> None:
    assert hints.read("one") is None
    hints.write("one", {"a": [1, "\udce9"]})
    assert hints.read("one") == {"a": [1, "\udce9"]}
    assert run.stat().st_mode & 0o777 == 0o700
    hints.write("only", {})
    assert [*hints.every("on")] == [("e", {"a": [1, "\udce9"]}), ("ly", {})]
    hints.remove("one")
    hints.remove("one")
    assert os.listdir(run) == ["only"]


@pytest.mark.parametrize("text", [b"", b"{", b"[1]", b'"x"', b"\xff", b"[" * 100_000])
def test_what_is_no_hint_is_not_there(run: Path, text: bytes) -> None:
    run.mkdir(mode=0o700)
    (run / "one").write_bytes(text)
    assert hints.read("one") is None
    with hints.changed("one") as found:
        assert found == {}
        found["a"] = 1
    assert hints.read("one") == {"a": 1}


def test_what_others_may_write_is_not_believed(run: Path) -> None:
    hints.write("one", {"a": 1})
    (run / "one").chmod(0o666)
    assert hints.read("one") is None
    (run / "one").chmod(0o600)
    run.chmod(0o777)
    assert hints.read("one") is None
    hints.write("two", {})
    assert os.listdir(run) == ["one"]


def test_without_a_place_it_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDPCTL_RUN", "/dev/null/run")
    hints.write("one", {"a": 1})
    hints.remove("one")
    assert hints.read("one") is None
    assert [*hints.every("")] == []
    with hints.changed("one") as found:
        assert found == {}


def test_one_at_a_time_changes_it(run: Path) -> None:
    def add() -> None:
        for _ in range(20):
            with hints.changed("one") as found:
                found["n"] = found.get("n", 0) + 1

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert hints.read("one") == {"n": 80}


def test_who_holds_the_lock_for_long_is_not_waited_for(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hints, "_PATIENCE", 0.1)
    hints.write("one", {"n": 1})
    with hints.changed("one") as found, hints.changed("one") as other:
        other["n"] = 100  # is not kept
        found["n"] = 2
    assert hints.read("one") == {"n": 2}


def test_only_failures_are_noted(run: Path) -> None:
    def last(netns: str = INTERFACE.netns) -> set[int]:
        return set(failures.last(netns, [INTERFACE.ifindex, 9]))

    for error in (UsageError("no"), NotFoundError("no")):
        failures.note(INTERFACE, error)
    assert last() == set()
    failures.note(INTERFACE, VerifierError("no"))
    assert last() == {INTERFACE.ifindex}
    assert last("other") == set()
    hints.write(f"failed-{INTERFACE.netns}-9", {"time": "never"})
    assert last() == {INTERFACE.ifindex}


def test_failures_of_what_is_gone_are_forgotten(run: Path) -> None:
    failures.note(INTERFACE, VerifierError("no"))
    kept = f"failed-{INTERFACE.netns}-{INTERFACE.ifindex}"
    for name in ("8", "x", "", "07", "\u00b2"):
        hints.write(f"failed-{INTERFACE.netns}-{name}", {"time": 1})
    hints.write("failed-other-8", {"time": 1})
    assert failures.last(INTERFACE.netns, [INTERFACE.ifindex]).keys() == {INTERFACE.ifindex}
    assert sorted(os.listdir(run)) == sorted([kept, "failed-other-8"])
