"""One module per service: its handlers, and nothing else."""
