"""Thin wrappers of kernel interfaces; nothing here knows of chains."""
