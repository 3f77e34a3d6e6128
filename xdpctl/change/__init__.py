"""Everything that changes what an interface runs."""
