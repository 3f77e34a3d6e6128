"""Tests that run on a real kernel, and what they observe it with."""
