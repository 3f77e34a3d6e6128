"""Environments of other versions than this machine's: tests/versions."""
