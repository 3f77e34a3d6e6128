"""The machine around the kernel's BPF side: interfaces, namespaces, locks, processes, files."""
