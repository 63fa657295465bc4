"""The default project, baked, built and run with Docker Compose, asked over its HTTP APIs."""
