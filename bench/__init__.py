"""Measurements beside xdp-loader, in one run on one machine."""
