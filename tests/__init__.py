"""xdpctl's tests."""
