"""What runs, read from the kernel and bpffs."""
