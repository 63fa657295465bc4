"""Logs that a private part of another library is missing."""

import logging
from functools import cache

logger = logging.getLogger(__name__)


@cache
def warn_missing(library: str, part: str, consequence: str) -> None:
    """Log once that this version of a library lacks a part, and what does not work without it."""
    logger.warning(
        "This version of %s lacks %s, or its behaviour differs: %s", library, part, consequence
    )
