"""Console logging of a service: one line per record, with its trace id."""

import asyncio
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
    """Formats errors as telemetry does, because an error's own text may quote a message of 2 MB.

    A record whose arguments do not match its format string is printed too.
    """

    def format(self, record: logging.LogRecord) -> str:
        line, error = copy.copy(record), error_of(record)
        line.msg, line.args = message_of(record), None
        line.exc_info, line.exc_text = None, None if error is None else stack(error)
        return super().format(line)


class _OfFastStream(logging.Filter):
    """Drops FastStream's records of its own tasks; a cancelled handler becomes one line."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(error_of(record), asyncio.CancelledError):
            record.levelno, record.levelname = logging.WARNING, "WARNING"
            record.msg, record.args = (
                "A handler was cancelled: its message is delivered again",
                None,
            )
            record.exc_info = record.exc_text = None
        return not message_of(record).startswith("callback for Task")


class _Repeats(logging.Filter):
    """Drops a record whose text was logged less than `seconds` ago."""

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

    This replaces the handlers of FastStream's loggers, which print no trace ids.

    Args:
        level: Name of a level of `logging`.
        noisy: Loggers that repeat themselves, each with its own level, or an empty string for none.
            The same text is printed at most every 30 s. With `level` DEBUG, their own levels are
            ignored.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Otherwise a character outside stdout's encoding makes the record fail.
        sys.stdout.reconfigure(errors="backslashreplace")
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "filters": {
                "trace": {"()": TraceContextFilter},
                "faststream": {"()": _OfFastStream},
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
                "faststream.messages": {"filters": ["faststream"]},
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
