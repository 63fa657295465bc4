"""Distinguishes a message that does not fit its handler from any other validation error.

A `pydantic.ValidationError` may be about the message; then a retry is useless. It may also be about
other data that a handler validates, such as the response of another service; then a retry may help.

This module uses `PydanticSerializer` and `fast_depends.library.serializer` of fast-depends, which
FastStream uses for parameters. They are not private, but not documented either. It sets an
attribute on pydantic's error. If pydantic refuses that one day, a message that does not fit is
retried before it goes to the dead letters.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from fast_depends.library.serializer import OptionItem, Serializer, SerializerProto
from fast_depends.pydantic import PydanticSerializer
from faststream.exceptions import SetupError
from pydantic import ValidationError

from ..telemetry.errors import is_of_fastapi


class MessageSerializer(SerializerProto):
    """FastStream's default serializer, whose errors `is_about_message` recognizes."""

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
    """Whether FastStream raised the error because the message does not fit the handler.

    Its router for FastAPI raises FastAPI's error about a request.
    """
    return getattr(error, "about_message", False) or is_of_fastapi(error, "RequestValidationError")


class BatchPublisherError(SetupError):
    """A batch handler has a publisher, which could lose the handler's results.

    A failed batch is handled message by message, and FastStream publishes none of these results.
    """

    def __init__(self, handler: str) -> None:
        super().__init__(
            f"The handler {handler!r} takes batches and has a publisher. A failed batch is handled"
            " message by message, and what the handler then returns would be lost. Publish from"
            " within the handler instead: await service.send(publisher, event)."
        )


class CheckedPublisher:
    """FastStream's publisher, but it refuses to decorate a batch handler.

    Args:
        check: Called after each decoration. Raises BatchPublisherError.
        made: FastStream's publisher.
    """

    def __init__(self, check: Callable[[], None], made: Any) -> None:
        self._check = check
        self._made = made

    def __call__(self, handler: Callable[..., Any], /) -> Callable[..., Any]:
        decorated: Callable[..., Any] = self._made(handler)
        self._check()
        return decorated

    def __getattr__(self, name: str) -> Any:
        return getattr(self._made, name)
