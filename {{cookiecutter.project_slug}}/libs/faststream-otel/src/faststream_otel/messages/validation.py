"""Distinguishes a message that does not fit its handler from any other error of validation.

A `pydantic.ValidationError` may be about the message, which no retry can help, or about anything
that a handler validates, such as the reply of a service that it called: worth another attempt.

Of fast-depends, FastStream's own library for parameters, it takes `PydanticSerializer` and
`fast_depends.library.serializer`: not private, but on no page of its documentation. The flag is set
on an error of pydantic's, which takes any attribute now; if that changes, a message that does
not fit is retried before it goes to the dead letters.
"""

from contextlib import suppress
from typing import Any

from fast_depends.library.serializer import OptionItem, Serializer, SerializerProto
from fast_depends.pydantic import PydanticSerializer
from faststream.exceptions import SetupError
from pydantic import ValidationError


class MessageSerializer(SerializerProto):
    """A broker's default serializer, but that `is_about_message` knows its errors."""

    encode = staticmethod(PydanticSerializer.encode)

    def __init__(self) -> None:
        self._make = PydanticSerializer(use_fastdepends_errors=False)

    def __call__(self, *, name: str, options: list[OptionItem], response_type: Any) -> Serializer:
        made = self._make(name=name, options=options, response_type=response_type)
        return _Serializer(made, name=name, options=options, response_type=response_type)


class _Serializer(Serializer):
    """Validates the arguments of one handler, or of one of its dependencies, and its result."""

    def __init__(self, serializer: Serializer, **options: Any) -> None:
        super().__init__(**options)
        self._serializer = serializer
        self.model = getattr(serializer, "model", None)  # FastStream's AsyncAPI document reads it

    def get_aliases(self) -> tuple[str, ...]:
        return self._serializer.get_aliases()

    def __call__(self, call_kwargs: dict[str, Any]) -> dict[str, Any]:
        try:
            return self._serializer(call_kwargs)
        except ValidationError as error:
            with suppress(AttributeError):
                error.about_message = True  # type: ignore[attr-defined]  # it cannot be subclassed
            raise

    def response(self, value: Any) -> Any:
        return self._serializer.response(value)


def is_about_message(error: Exception) -> bool:
    """Whether FastStream raised it because the message does not fit the handler's parameters."""
    return getattr(error, "about_message", False)


class BatchPublisherError(SetupError):
    """A handler of batches has a publisher, which could lose what the handler returns.

    A batch that fails is handled message by message, and what is returned for each of them has
    nowhere to go.
    """

    def __init__(self, handler: str) -> None:
        super().__init__(
            f"The handler {handler!r} takes batches and has a publisher. A batch that fails is"
            " handled message by message, and what the handler then returns would be lost. Publish"
            " from within the handler instead: await service.send(publisher, event)."
        )
