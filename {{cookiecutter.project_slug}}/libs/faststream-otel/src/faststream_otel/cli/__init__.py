"""The command line: `faststream-otel`, and `python -m <package> <service>` of a project."""
