"""What a service prints: one line per record, with the trace that it belongs to."""

import copy
import io
import logging
import logging.config
import sys
import time
from collections.abc import Mapping

from .telemetry.errors import stack
from .telemetry.logs import TraceContextFilter, error_of, message_of


class _Line(logging.Formatter):
    """Prints an error as telemetry has it: its own text may hold the message, of 2 MB.

    A record whose arguments do not fit its format is printed too.
    """

    def format(self, record: logging.LogRecord) -> str:
        line, error = copy.copy(record), error_of(record)
        line.msg, line.args = message_of(record), None
        line.exc_info, line.exc_text = None, None if error is None else stack(error)
        return super().format(line)


class _AboutMessages(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return not message_of(record).startswith("callback for Task")


class _Repeats(logging.Filter):
    """Drops a record with the text of another one within so many seconds."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._seconds = seconds
        self._seen: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        now, text = time.monotonic(), message_of(record)
        if now - self._seen.get(text, -self._seconds) < self._seconds:
            return False
        if len(self._seen) > 100:
            self._seen.clear()
        self._seen[text] = now
        return True


def configure_logging(level: str, noisy: Mapping[str, str] | None = None) -> None:
    """Print records of this level and above to stdout.

    FastStream's loggers come with handlers of their own, which know no traces: theirs are replaced.

    Args:
        level: Of `logging`, by name.
        noisy: Loggers that repeat themselves, each with a level of its own or an empty text; what
            they say is printed every 30 s at most. At level DEBUG their own levels don't count.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # or such a record is not printed
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "filters": {
                "trace": {"()": TraceContextFilter},
                "messages": {"()": _AboutMessages},
                "repeats": {"()": _Repeats, "seconds": 30},
            },
            "formatters": {
                "line": {
                    "()": _Line,
                    "format": "%(asctime)s %(levelname)s %(name)s"
                    " trace_id=%(trace_id)s span_id=%(span_id)s %(message)s",
                }
            },
            "handlers": {
                "stdout": {
                    "class": "logging.StreamHandler",
                    "stream": "ext://sys.stdout",
                    "formatter": "line",
                    "filters": ["trace"],
                }
            },
            "root": {"level": level, "handlers": ["stdout"]},
            "loggers": {
                "faststream": {"level": level, "handlers": ["stdout"], "propagate": False},
                # FastStream's own book-keeping of its tasks.
                "faststream.messages": {"filters": ["messages"]},
                **{
                    name: {
                        "filters": ["repeats"],
                        "level": level if own and level == "DEBUG" else own or "NOTSET",
                    }
                    for name, own in (noisy or {}).items()
                },
            },
        }
    )
