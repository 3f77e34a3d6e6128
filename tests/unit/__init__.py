"""Tests without a kernel: pure code, clang, and libbpf up to where it would call the kernel."""
