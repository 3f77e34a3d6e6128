"""Packets: files of them, live ones, and what goes wrong with them."""
