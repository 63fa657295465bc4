"""`python -m faststream_otel.dev.child <fd> <module> <argument>…`: run a module like `python -m`,
until the supervisor ends.

The supervisor keeps the other end of a pipe and never writes to it. When it ends, even by
`kill -9`, the system closes that end and the read here returns. So no service outlives the
supervisor, on Linux and on macOS.
"""

import os
import runpy
import signal
import sys
import threading
import time

GRACE_SECONDS = 3.0
"""Between SIGTERM and SIGKILL. Short, since broker and receiver ended with the supervisor."""


def main() -> None:
    lifeline = int(sys.argv[1])
    threading.Thread(target=_end_with, args=(lifeline,), daemon=True).start()
    sys.argv = sys.argv[2:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


def _end_with(lifeline: int) -> None:
    os.read(lifeline, 1)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
