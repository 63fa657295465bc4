"""The HTTP side of a service: takes JSON of a known shape, within limits, and refuses the rest.

A refusal says what is wrong: `{"errors": [{"field": …, "reason": …}]}`.

| Status | When |
|---|---|
| 400 | the body ended before its end |
| 408 | it did not come within `BODY_TIMEOUT_SECONDS` |
| 413 | it is larger than `MAX_BODY_BYTES` |
| 415 | its content type is not JSON |
| 422 | it is not what the contract says |
| 503 | `MAX_REQUESTS` are being handled already |
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

from faststream.asgi import AsgiResponse, HttpHandler, Request
from faststream.asgi.request import ClientDisconnectError
from faststream.asgi.response import JSONResponse
from pydantic import BaseModel, ValidationError

from .settings import Settings

MAX_ERRORS = 20  # told of one body, however many it has
# Whoever sends too much learns it from the answer, which many clients read only when all is sent:
# so much is taken in and thrown away, in the same time, before the connection is closed.
DRAINED = 8  # times the limit

Model = TypeVar("Model", bound=BaseModel)


class Refused(Exception):
    """Ends a request with this answer."""

    def __init__(self, answer: AsgiResponse) -> None:
        super().__init__(answer.status_code)
        self.answer = answer


def refusal(
    status: int, field: str, reason: str, headers: Mapping[str, str] | None = None
) -> AsgiResponse:
    """The answer that says what is wrong; `field` is empty if it is none of the body's."""
    return JSONResponse({"errors": [{"field": field, "reason": reason}]}, status, headers)


def post(
    model: type[Model], settings: Settings
) -> Callable[[Callable[[Model, Request], Awaitable[AsgiResponse]]], HttpHandler]:
    """Decorate what handles a POST whose body is such a model.

    FastStream's own decorator takes HEAD too, which must not do what POST does.
    """
    busy = 0

    def decorate(handler: Callable[[Model, Request], Awaitable[AsgiResponse]]) -> HttpHandler:
        async def handle(request: Request) -> AsgiResponse:
            nonlocal busy
            if busy >= settings.max_requests:
                reason = "too many requests at once, try again later"
                return refusal(503, "", reason, {"Retry-After": "1"} | _CLOSE)
            busy += 1
            try:
                return await handler(await _read(request, model, settings), request)
            except Refused as refused:
                return refused.answer
            finally:
                busy -= 1

        return HttpHandler(handle, methods=("POST",), description=handler.__doc__)

    return decorate


# Otherwise the rest of a body that nobody wants would be read, for as long as it comes.
_CLOSE = {"Connection": "close"}


async def _read(request: Request, model: type[Model], settings: Settings) -> Model:
    """Read the body.

    Raises:
        Refused: It is not what is expected.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":  # which a page of another site may not send without being asked
        raise Refused(refusal(415, "body", "is no application/json (Content-Type)", _CLOSE))
    try:
        async with asyncio.timeout(settings.body_timeout_seconds):
            body = await _body(request, settings.max_body_bytes)
    except TimeoutError:
        reason = f"did not come within {settings.body_timeout_seconds:g} s"
        raise Refused(refusal(408, "body", reason, _CLOSE)) from None
    except ClientDisconnectError:  # told to the span, nobody else listens
        raise Refused(refusal(400, "body", "not sent to its end")) from None
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        errors = [
            {"field": ".".join(map(str, one["loc"])) or "body", "reason": one["msg"]}
            for one in error.errors(include_url=False, include_input=False)[:MAX_ERRORS]
        ]
        raise Refused(JSONResponse({"errors": errors}, 422)) from None


async def _body(request: Request, limit: int) -> bytes:
    body = bytearray()
    size = _declared(request)
    if size <= DRAINED * limit:
        size = 0
        async for chunk in request.stream():
            size += len(chunk)
            if size > DRAINED * limit:
                break
            if size <= limit:
                body += chunk
    if size > limit:
        raise Refused(refusal(413, "body", f"larger than {limit} bytes", _CLOSE))
    return bytes(body)


def _declared(request: Request) -> int:
    """The body's size as the client says, in bytes; 0 if it does not."""
    length = request.headers.get("content-length", "")
    return int(length) if length.isascii() and length.isdigit() else 0
