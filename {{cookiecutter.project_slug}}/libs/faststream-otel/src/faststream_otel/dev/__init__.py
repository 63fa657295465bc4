"""Tools for development: a run without Docker, an OTLP receiver that checks what it gets, traces
in the terminal. Nothing in src/ imports this package, and no image holds it."""
