"""The outcome of handling a message."""

from faststream.exceptions import HandlerException, IgnoredException


def handler_error(raised: BaseException | None) -> BaseException | None:
    """The error that a handler failed with; None if it did not fail.

    SkipMessage, AckMessage and similar are decisions, not errors. If one has a cause
    (`raise RejectMessage from error`), the cause is the error.
    """
    if isinstance(raised, HandlerException | IgnoredException):
        return raised.__cause__
    return raised
