"""One module per board."""
