"""xdpctl.kernel.btf: what libbpf's writer makes, read back; it is not given to a kernel."""

from __future__ import annotations

from typing import Any

import pytest

from xdpctl.errors import KernelError
from xdpctl.kernel import btf, libbpf
from xdpctl.kernel.btf import (
    BTF_FUNC_GLOBAL,
    BTF_FUNC_STATIC,
    BTF_KIND_FUNC,
    BTF_KIND_PTR,
    Btf,
    of_functions,
)

BTF_KIND_STRUCT = 4


class Writer:
    """Keeps what would be loaded, and says whether it is freed."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.made: list[int] = []
        self.refusal: KernelError | None = None
        real = libbpf.call

        def call(name: str, *arguments: Any) -> int:
            if name != "btf__load_into_kernel":
                return real(name, *arguments)
            self.made += arguments
            if self.refusal:
                raise self.refusal
            return 0

        patch.setattr(libbpf, "call", call)


@pytest.fixture
def writer(monkeypatch: pytest.MonkeyPatch) -> Writer:
    return Writer(monkeypatch)


@pytest.mark.parametrize("names", [["root"], ["root", *(f"prog{n}_f" for n in range(255))]])
def test_the_types_of_functions(writer: Writer, names: list[str]) -> None:
    with of_functions(names) as (_fd, ids):
        (handle,) = writer.made
        found = Btf(handle, borrowed=True)
        assert [found.name(number) for number in ids] == names
        functions = [found.type(number) for number in ids]
        assert {one.kind for one in functions} == {BTF_KIND_FUNC}
        linkage = [BTF_FUNC_GLOBAL, *[BTF_FUNC_STATIC] * (len(names) - 1)]
        assert [one.vlen for one in functions] == linkage
        # The first is what the verifier takes for an XDP program: int f(struct xdp_md *ctx).
        entry = found.type(functions[0].size_or_type)
        ((parameter, kind),) = found.records(entry, entry.vlen, 2)
        pointer = found.type(kind)
        context = found.type(pointer.size_or_type)
        assert found.string(parameter) == "ctx"
        assert (pointer.kind, context.kind) == (BTF_KIND_PTR, BTF_KIND_STRUCT)
        assert found.string(context.name_off) == "xdp_md"
        members = found.records(context, context.vlen, 3)
        assert [found.string(name) for name, _type, _bits in members] == [*btf._CONTEXT]
        assert [bits for _name, _type, bits in members] == [32 * n for n in range(6)]
        assert context.size_or_type == 24


@pytest.mark.usefixtures("nothing_is_left")
def test_types_are_freed_also_where_the_kernel_refuses_them(
    writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    freed: list[int] = []
    real = libbpf.lib().btf__free

    def free(handle: int) -> None:
        freed.append(handle)
        real(handle)

    monkeypatch.setattr(libbpf.lib(), "btf__free", free)
    with of_functions(["root"]):
        assert freed == []
    writer.refusal = KernelError("btf__load_into_kernel", 22)
    with pytest.raises(KernelError, match="btf__load_into_kernel"), of_functions(["root"]):
        pass
    assert freed == writer.made
