"""Several XDP programs on one network interface."""

__version__ = "0.1.0"
