"""`python -m <package> <service>`: run one of the services."""

import sys

from faststream_otel.cli.run import main

if __name__ == "__main__":
    sys.exit(main(__package__))
