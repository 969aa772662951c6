"""Where a step runs, and what replicas and workers do together. May import `graphs`."""
