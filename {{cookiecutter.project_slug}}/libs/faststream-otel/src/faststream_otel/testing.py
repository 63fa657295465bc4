"""A pytest plugin: services in memory, and the traces that they make."""
