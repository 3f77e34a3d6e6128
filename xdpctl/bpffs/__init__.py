"""What is pinned where in the BPF file system."""
