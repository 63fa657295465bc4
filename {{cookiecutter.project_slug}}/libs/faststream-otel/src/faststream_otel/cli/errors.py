"""Reports a bad setting: a line on stderr, and exit code 2."""

import sys
from collections.abc import Callable

from ..settings import BadSetting
from ..telemetry import BadVariable


def exit_code(run: Callable[[], int]) -> int:
    """Run it and return its exit code, or 2 if an environment variable or `--app` is wrong."""
    try:
        return run()
    except (BadSetting, BadVariable) as error:
        print(error, file=sys.stderr)
    return 2
