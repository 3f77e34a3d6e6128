"""What tests/vm is made of: Debian's kernels and userlands, and the guests that run them."""
