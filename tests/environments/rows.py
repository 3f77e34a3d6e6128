"""Which versions the tests run with, and which kernel tests may tell them apart."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """An environment. What is "" is as the suite has it."""

    name: str
    suite: str
    libraries: str
    """click, rich and pyroute2: "Debian", or from the Python index the "oldest" that pyproject.toml
    allows, or the "newest"."""
    python: str = ""
    clang: str = ""
    more: str = ""
    """Another suite, from which libbpf1 and clang come."""


ROWS = (
    Row("oldest", "bookworm", "oldest", clang="13"),
    Row("debian-12", "bookworm", "Debian"),
    Row("debian-13", "trixie", "Debian"),
    Row("debian-sid", "sid", "Debian"),
    Row("newest", "sid", "newest", clang="23"),
    Row("python-3.12", "bookworm", "newest", python="3.12", clang="16", more="bookworm-backports"),
    Row("python-3.13", "trixie", "newest", clang="22"),
    Row("python-3.15", "sid", "newest", python="3.15", clang="24", more="experimental"),
    Row("clang-15", "bookworm", "oldest", clang="15"),
    Row("clang-17", "trixie", "oldest", clang="17"),
    Row("clang-18", "trixie", "newest", clang="18"),
)
MISSING = {
    "libbpf 1.2, 1.3, 1.6": "no suite of Debian has them, nor the sources",
    "clang 20": "no suite of Debian has it",
}
"""What the mirrors do not have."""

KERNEL_TESTS = {
    "test_chain": "every operation on a chain, so all of libbpf that a load needs",
    "test_packets": "what the code does that this clang made, and xdpctl's own",
    "test_sources": "what clang is told, and what it says",
    "test_examples": "programs as people write them",
    "test_legacy_maps": "objects that libbpf 1 refuses as they are",
    "test_little_btf": "type information, which differs between compilers",
    "test_tails": "program arrays, which libbpf fills",
    "test_plain": "words of libbpf and of the verifier",
    "test_bad_input": "errors of click's, libbpf's and xdpctl's",
    "test_grammar": "command lines, as click takes them apart",
    "test_namespaces": "pyroute2 in other network namespaces",
    "test_citizens": "hooks over netlink",
    "test_features": "generic netlink, as pyroute2 reads it",
    "test_doctor": "experiments with calls of libbpf, and pyroute2",
    "test_monitor": "BCC or libbpf, and rings",
    "test_trace": "programs that are made at run time, and rings",
    "test_stats": "counters, and tables by rich",
    "test_api": "the package as a library, with threads",
    "test_confirm": "forks and signals, as Python handles them",
}
"""Kernel tests whose result may differ between versions: which, and why."""
