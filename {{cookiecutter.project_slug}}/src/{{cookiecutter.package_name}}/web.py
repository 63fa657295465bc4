"""The HTTP side of a service: takes JSON of a known shape, and refuses the rest.

A refusal says what is wrong, as those of `http_limits` do: 415 for another content type, 422 for
what is not as the contract says.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

from faststream.asgi import AsgiResponse, HttpHandler, Request
from faststream.asgi.response import JSONResponse
from pydantic import BaseModel, ValidationError

from .http_limits import Scope, header_lines

MAX_ERRORS = 20  # told of one body, however many it has

Model = TypeVar("Model", bound=BaseModel)


def refusal(
    status: int, field: str, reason: str, headers: Mapping[str, str] | None = None
) -> AsgiResponse:
    """The answer that says what is wrong; `field` is empty if it is none of the body's."""
    return JSONResponse({"errors": [{"field": field, "reason": reason}]}, status, headers)


def post(
    model: type[Model],
) -> Callable[[Callable[[Model, Scope], Awaitable[AsgiResponse]]], HttpHandler]:
    """Decorate what handles a POST whose body is such a model; it gets the ASGI scope too.

    FastStream's own decorator takes HEAD too, which must not do what POST does.
    """

    def decorate(handler: Callable[[Model, Scope], Awaitable[AsgiResponse]]) -> HttpHandler:
        async def handle(scope: Scope, request: Request) -> AsgiResponse:
            kinds = {
                line.partition(";")[0].strip().lower()
                for line in header_lines(scope, "content-type")
            }
            if kinds != {"application/json"}:  # which a page of another site may not send unasked
                return refusal(415, "body", "is no application/json (Content-Type)")
            try:
                body = model.model_validate_json(await request.body())
            except ValidationError as error:
                errors = [
                    {"field": ".".join(map(str, one["loc"])) or "body", "reason": one["msg"]}
                    for one in error.errors(include_url=False, include_input=False)[:MAX_ERRORS]
                ]
                return JSONResponse({"errors": errors}, 422)
            return await handler(body, scope)

        return HttpHandler(handle, methods=("POST",), description=handler.__doc__)

    return decorate
