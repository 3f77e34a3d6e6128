"""The kinds of root, and how they are built."""
