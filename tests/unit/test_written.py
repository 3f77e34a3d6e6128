"""Object files of programs that run: what libbpf reads of them, and what is refused."""

from __future__ import annotations

import pytest

from xdpctl.errors import UnsupportedError
from xdpctl.kernel import asm, uapi
from xdpctl.kernel.asm import R0, R1, Label, call, exit_, map_of, map_value, mov32
from xdpctl.kernel.records import MapInfo
from xdpctl.model.source import Image
from xdpctl.programs.loading import open_object
from xdpctl.programs.written import UsedMap, written

FUNCTION = Label()
CODE = asm.assemble(
    [
        map_of(R1, 7),
        map_value(R1, 8, 4),
        call(FUNCTION),
        mov32(R0, 2),
        exit_(),
        FUNCTION,
        map_of(R1, 7),
        mov32(R0, 1),
        exit_(),
    ]
)
HASH = UsedMap("flows", MapInfo(7, uapi.BPF_MAP_TYPE_HASH, "flows", 8, 4, 64))
DATA = UsedMap(
    "object.rodata", MapInfo(8, uapi.BPF_MAP_TYPE_ARRAY, "object.rodata", 8), b"\1\2\3\4\5\6\7\10"
)


@pytest.mark.parametrize("frags", [False, True])
def test_libbpf_reads_it(frags: bool) -> None:
    data = written("it", Image(CODE, frags, gpl=True), {7: HASH, 8: DATA})
    with open_object("it.o", data) as parsed:
        assert [one.name for one in parsed.programs] == ["it"]
        (program,) = parsed.programs
        assert program.section == ("xdp.frags" if frags else "xdp")
        shapes = {one.raw_name.decode(): one.shape for one in parsed.maps}
        assert shapes["flows"] == HASH.info.shape
        assert shapes["it.rodata"].value_size == 8


def test_the_same_is_written_each_time() -> None:
    image = Image(CODE, frags=False, gpl=False)
    first = written("it", image, {7: HASH, 8: DATA})
    assert written("it", image, {7: HASH, 8: DATA}) == first
    assert DATA.data in first


@pytest.mark.parametrize(
    ("other", "why"),
    [
        (DATA._replace(name="flows", data=b""), "called flows"),
        (DATA._replace(data=b""), "is none"),
        (DATA._replace(name="map"), "the inside of a map"),
    ],
)
def test_what_would_mean_something_else(other: UsedMap, why: str) -> None:
    with pytest.raises(UnsupportedError) as caught:
        written("it", Image(CODE, frags=False, gpl=True), {7: HASH, 8: other})
    assert why in caught.value.why


def test_functions_of_this_kernel() -> None:
    code = bytearray(asm.assemble([call(FUNCTION), exit_(), FUNCTION, exit_()]))
    # The half of the byte that says what is called: 1 is a function of the program, 2 the kernel's.
    assert code[1] in (uapi.BPF_PSEUDO_CALL, uapi.BPF_PSEUDO_CALL << 4)
    code[1] *= uapi.BPF_PSEUDO_KFUNC_CALL
    with pytest.raises(UnsupportedError) as caught:
        written("it", Image(bytes(code), frags=False, gpl=True), {})
    assert "this very kernel" in caught.value.why
