"""docs/records.md: names, numbers and layouts are the code's."""

from __future__ import annotations

import ast
import re
import struct

from tests.unit.docs.pages import headings, read, table, tables
from tests.unit.samples import ROOT, fresh
from xdpctl.kernel import uapi
from xdpctl.model import record, source
from xdpctl.model.chain import VACANT
from xdpctl.roots import count_code

PAGE = "docs/records.md"
Layout = list[tuple[int, int]]


def layouts(section: str) -> list[Layout]:
    """The tables of offsets and sizes that a section has, in its order."""
    return [
        [(int(row["Offset"]), int(row["Bytes"])) for row in rows]
        for rows in tables(headings(PAGE)[section])
        if "Offset" in rows[0]
    ]


def heads(section: str) -> list[tuple[str, int]]:
    """The magic and the version that the heads of records have, in a section's order."""
    found = re.findall(
        r"^\| 0 \| 4 \| `(\w+)` \|\n\| 4 \| 2 \| version, (\d+) \|$",
        headings(PAGE)[section],
        flags=re.MULTILINE,
    )
    return [(magic, int(version)) for magic, version in found]


def fields(struct_: struct.Struct) -> Layout:
    """The offset and size of each field of a structure."""
    found, offset = [], 0
    for text in re.findall(
        r"\d*s|[A-Z]", re.sub(r"(\d+)I", lambda m: "I" * int(m[1]), struct_.format)
    ):
        size = struct.calcsize(f"={text}")
        found.append((offset, size))
        offset += size
    assert offset == struct_.size
    return found


def test_the_layout_of_a_wide_dispatchers_record_is_the_code_s() -> None:
    section = "A wide dispatcher"
    assert layouts(section) == [fields(record._OWN), fields(record._WIDE_SLOT)]
    assert heads(section) == [(record._WIDE_MAGIC.decode(), record._OWN_VERSION)]


def test_the_layout_of_a_fused_roots_record_is_the_code_s() -> None:
    section = "The chain of a root"
    assert layouts(section) == [fields(record._OWN), fields(record._FUSED_SLOT)]
    assert heads(section) == [(record._FUSED_MAGIC.decode(), record._OWN_VERSION)]


def test_the_layout_of_an_image_is_the_code_s() -> None:
    section = "The image of a program"
    assert layouts(section) == [fields(source._HEAD)]
    assert heads(section) == [(source._MAGIC.decode(), source._VERSION)]


def test_the_records_of_libxdps_protocols_are_as_long_as_described() -> None:
    rows = {int(row["Protocol"]): row for row in table(PAGE, "Protocol")}
    packed = {one: record.Config.of([fresh()], one).pack() for one in record.PROTOCOLS}
    assert {one: int(row["Bytes"]) for one, row in rows.items()} == {
        one: len(data) for one, data in packed.items()
    }
    for one, at in ((2, "{magic} at 0; {one} at 1"), (3, "{one} at 1")):
        assert at.format(magic=record.MAGIC, one=one) in rows[one]["Layout"]
    assert packed[2][:2] == bytes([record.MAGIC, 2])


def test_the_row_of_a_counted_program_is_as_long_as_described() -> None:
    told = sum(int(row["Numbers"]) for row in table(PAGE, "Numbers"))
    assert told * 8 == count_code.ROW_SIZE
    (said,) = re.findall(r"a row of (\d+) numbers of 8 bytes", read(PAGE))
    assert int(said) == told


def test_the_roots_have_the_names_that_are_told() -> None:
    told = {row["Name of the program"] for row in table(PAGE, "Root")}
    known = (record.ENTRY, record.WIDE, record.FUSED)
    assert told == {*(f"`{one}`" for one in known), "that of the program"}
    few, many = record.LIBXDP_SLOTS, record.MAX_SLOTS
    spans = [re.findall(r"\d+", row["Root"]) for row in table(PAGE, "Root")]
    assert spans[:2] == [[str(few)], [str(few + 1), str(many)]]
    assert f"`prog{many - 1}`" in headings(PAGE)["A wide dispatcher"]
    source = (ROOT / "bpf/dispatcher.c").read_text(encoding="utf-8")
    assert f"#define xdp_dispatcher {record.WIDE}\n" in source


def test_every_name_in_the_kernel_is_told() -> None:
    told = {name for row in table(PAGE, "Name") for name in re.findall(r"`(\w+)`", row["Name"])}
    used = set()
    for path in (ROOT / "xdpctl").rglob("*.py"):
        if path.name == "families.py":
            continue  # metrics are called so as well, and are not in the kernel
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                used |= set(re.findall(r"^xdpctl_\w*$", node.value))
    # The name of the tracing programs is put together.
    assert used - {"xdpctl_"} == told - {"xdpctl_entry", "xdpctl_exit"}
    assert "xdpctl_" in used


def test_the_numbers_are_the_code_s() -> None:
    assert {
        row["What"].split("`")[1] if "`" in row["What"] else row["What"]: int(row["Value"])
        for row in table(PAGE, "What")
    } == {
        "BPF_F_XDP_HAS_FRAGS": uapi.BPF_F_XDP_HAS_FRAGS,
        "BPF_F_XDP_DEV_BOUND_ONLY": uapi.BPF_F_XDP_DEV_BOUND_ONLY,
        "what a vacant slot answers": VACANT,
        "protocol of a new dispatcher": record.PROTOCOL,
        "most slots in libxdp's protocols": record.LIBXDP_SLOTS,
        "most slots of a root": record.MAX_SLOTS,
    }
