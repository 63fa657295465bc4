"""Logs when a service loses its connection to the broker, and when it has it again."""

import logging

logger = logging.getLogger(__name__)


class Outage:
    """A line for each loss of the connection, and for its end.

    Args:
        url: The broker's address, without a password.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._reason = ""

    @property
    def lasts(self) -> bool:
        """Whether the connection is lost."""
        return bool(self._reason)

    def begin(self, error: BaseException | None) -> None:
        """Log a loss. During an outage, only another reason than the last one is logged."""
        reason = (str(error) or type(error).__name__) if error else "it was closed"
        if reason != self._reason:
            logger.warning(
                "The connection to the broker at %s (BROKER_URL) is lost; reconnecting: %s",
                self._url, reason,
            )  # fmt: skip
        self._reason = reason

    def end(self) -> None:
        """Log that the client has reconnected."""
        if self._reason:
            logger.info("The broker at %s (BROKER_URL) is connected again", self._url)
        self._reason = ""
