"""`python -m bench.measured.bake <service>`, as the baked `__main__.py`."""

import sys

from faststream_otel.cli.run import main

if __name__ == "__main__":
    sys.exit(main(__package__))
