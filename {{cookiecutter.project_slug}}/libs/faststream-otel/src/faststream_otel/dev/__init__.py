"""Tools for development: a run without Docker, an OTLP receiver, traces in the terminal.

Services don't import this package. `trace`, `waterfall` and `stores` need the extra `cli`, the
other modules need `dev`.
"""
