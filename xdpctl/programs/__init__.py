"""Users' files, and how they become programs."""
