"""Pure data: chains, roots, plans and their records. Nothing here makes a system call."""
