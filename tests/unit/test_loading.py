"""xdpctl.programs.loading: the second way to load as EXT, and what refusals say."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest

from tests.unit.samples import compiled
from xdpctl.errors import KernelError, UnsupportedError, VerifierError, XdpctlError
from xdpctl.model.source import Source
from xdpctl.programs import loading, refusal, sharing

RETURNS = 'SEC("xdp") int {0}(struct xdp_md *ctx) {{ return 2; }}'

pytestmark = pytest.mark.usefixtures("nothing_is_left")


def test_maps_that_cannot_be_shared_are_no_fault_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the child says of them comes back as a refusal with the reason."""

    def share(_handle: int, _source: Source, _ordered: object) -> None:
        raise KernelError(sharing.SHARING, 22, "map packets: this, that")

    monkeypatch.setattr(loading, "share_maps", share)
    path = compiled(tmp_path, RETURNS.format("f"))
    source = Source(path, Path(path).read_bytes(), "f", maps_of=11)
    with pytest.raises(UnsupportedError, match="cannot share the maps of program 11") as caught:
        loading.load(source, frags=False)
    assert caught.value.why == "map packets: this, that"
    assert "loaded from" in caught.value.hint


# --- a second way, where libbpf's is refused ----------------------------------------------------

Attempt = tuple[tuple[int, str] | None, KernelError | None]


NOTHING: dict[str, Any] = {
    "arrays": [],
    "pinned": [],
    "maps": [],
    "callees": [],
    "empty": {},
    "replaced": [],
}


def loaded(
    patch: pytest.MonkeyPatch,
    first: KernelError | None,
    second: KernelError | None = None,
    target: tuple[int, str] | None = (5, "prog0"),
) -> tuple[loading.Loaded | XdpctlError, list[Attempt]]:
    """What becomes of a load whose attempts end so; the attempts, each with why it is made."""
    tried: list[Attempt] = []

    def load(
        _source: Source,
        _frags: bool,
        target: tuple[int, str] | None,
        refused: KernelError | None = None,
        **_apart: bool,
    ) -> tuple[Any, list[int]]:
        fault = second if tried else first
        tried.append((target, refused))
        if fault:
            raise fault
        return NOTHING, [70 + len(tried)]

    patch.setattr(loading, "_load", load)
    patch.setattr(loading, "in_child", lambda _path, work: work())
    try:
        return loading.load(Source("/old.o", b"", "old"), False, target), tried
    except XdpctlError as error:
        return error, tried


INVALID = KernelError("verifier", errno.EINVAL, "Program extension requires BTF\n")


def test_one_way_is_enough_where_it_works(monkeypatch: pytest.MonkeyPatch) -> None:
    result, tried = loaded(monkeypatch, None)
    assert isinstance(result, loading.Loaded)
    assert (result.program.fd, result.arrays, result.maps) == (71, {}, {})
    assert tried == [((5, "prog0"), None)]


def test_what_btf_is_refused_for_is_loaded_without(monkeypatch: pytest.MonkeyPatch) -> None:
    result, tried = loaded(monkeypatch, INVALID)
    assert isinstance(result, loading.Loaded)
    assert (result.program.fd, result.arrays, result.maps) == (72, {}, {})
    assert tried == [((5, "prog0"), None), ((5, "prog0"), INVALID)]


@pytest.mark.parametrize(
    "fault",
    [
        KernelError("bpf_prog_load", errno.EPERM),
        KernelError("verifier", errno.EACCES, "invalid access to packet"),
        KernelError("bpf_object__load", errno.ENOMEM),
        KernelError(sharing.SHARING, errno.EINVAL, "map packets: 2 maps of that name run"),
        KernelError(refusal.FILLING, errno.EINVAL),
    ],
)
def test_other_refusals_are_final(fault: KernelError, monkeypatch: pytest.MonkeyPatch) -> None:
    result, tried = loaded(monkeypatch, fault)
    assert isinstance(result, XdpctlError)
    assert len(tried) == 1


def test_a_program_of_its_own_has_one_way(monkeypatch: pytest.MonkeyPatch) -> None:
    result, tried = loaded(monkeypatch, INVALID, target=None)
    assert isinstance(result, VerifierError)
    assert len(tried) == 1


def test_the_reason_is_that_of_the_second_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """The code's own fault, rather than what the kernel looks at before it."""
    fault = KernelError("verifier", errno.EACCES, "R1 invalid mem access\n")
    result, _tried = loaded(monkeypatch, INVALID, fault)
    assert isinstance(result, VerifierError)
    assert result.why == "R1 invalid mem access"
    result, _tried = loaded(monkeypatch, INVALID, KernelError(refusal.CALLING, errno.EINVAL))
    assert isinstance(result, UnsupportedError)
    assert result.what == "old of /old.o cannot replace a function of a dispatcher"
    assert "tail calls" in result.why
    assert "--root fused" in result.hint
