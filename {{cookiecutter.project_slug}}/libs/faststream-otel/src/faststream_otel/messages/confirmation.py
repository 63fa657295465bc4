"""The limit for publishing a message, and for the broker's confirmation."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType

from .broker import Unavailable
from .time_limit import TimeLimit


class Confirmation(TimeLimit):
    """A context around publishing a message, as `Messages.confirmation` describes.

    It is a class, and looks at errors only if there is one: every message passes through it.

    Args:
        seconds: The time-out.
        errors: Makes a context that converts the client's errors.
        of: What was published, for the text of `Unavailable`, such as " for orders".
        hint: What to look at, for the same.
    """

    def __init__(
        self,
        seconds: float,
        errors: Callable[[], AbstractContextManager[object]],
        *,
        of: str = "",
        hint: str = "",
    ) -> None:
        super().__init__(seconds)
        self._errors = errors
        self._of, self._hint = of, hint

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        late = self.leave(kind)
        if error is None:
            return
        try:
            if late:
                raise TimeoutError from error
            with self._errors():
                raise error
        except TimeoutError as timeout:
            text = f"no answer{self._of} within {self.seconds:.0f} s{self._hint}"
            raise Unavailable(text) from timeout
        finally:
            del error  # its traceback refers to this frame, a cycle
