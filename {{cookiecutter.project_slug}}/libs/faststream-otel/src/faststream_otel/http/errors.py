"""Error responses of a service, which all have one shape:
`{"errors": [{"field": …, "reason": …}]}`.

`field` is the part of the request that is wrong; it is empty if no part is.
"""

import json
import logging
from collections.abc import Mapping
from typing import Any

import fastapi
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.utils import is_body_allowed_for_status_code
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from ..messages.broker import TooLarge, Unavailable
from .idempotency_key import BadKey, KeyInUse, KeyReused

MAX_ERRORS = 20
"""Validation errors that one response lists."""
KEY = "Idempotency-Key"

logger = logging.getLogger(__name__)


class Problem(BaseModel):
    field: str
    reason: str


class Errors(BaseModel):
    """The parts of a request that are wrong, and why."""

    errors: list[Problem]


RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {"model": Errors, "description": description}
    for status, description in {
        400: "The body is incomplete or has two lengths, or the Idempotency-Key is not valid",
        408: "The body did not arrive in time",
        409: "The first request with this Idempotency-Key is still being answered",
        413: "The body is too large",
        415: "The body is not application/json, or is compressed",
        422: "A field of the request is not valid,"
        " or the Idempotency-Key was sent with another request before",
        503: "The broker is not available, or there are too many requests at once",
    }.items()
}
"""Error responses of every route, for the OpenAPI document."""
RESPONSES[503]["headers"] = {
    "Retry-After": {"description": "Seconds", "schema": {"type": "integer"}}
}


class Refused(fastapi.HTTPException):
    """Raise it in a route or a dependency to refuse the request.

    Args:
        status: The response's HTTP status, 400 or more.
        field: The part of the request that is wrong; empty if no part is.
        reason: What is wrong with it.
        headers: The response's headers.
    """

    def __init__(
        self, status: int, field: str, reason: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(status, reason, headers)
        self.field = field


def answer(refused: HTTPException) -> Response:
    """The error response for a refused request."""
    problem = {"field": getattr(refused, "field", ""), "reason": refused.detail}
    return _answer(refused.status_code, [problem], refused.headers)


def install(api: FastAPI) -> None:
    """Give all error responses of the application the one shape, those of bugs included."""
    refusals: dict[type[Exception], Any] = {
        HTTPException: lambda error: error,
        BadKey: lambda error: Refused(400, KEY, str(error)),
        KeyReused: lambda _: Refused(422, KEY, "was sent with another request before"),
        KeyInUse: lambda _: Refused(
            409, KEY, "was sent with a request that is still being answered; try again later"
        ),
        TooLarge: lambda _: Refused(413, "body", "larger than the broker accepts"),
        Unavailable: _unavailable,
        Exception: lambda _: Refused(500, "", "internal error"),
    }
    for kind, refuse in refusals.items():
        api.add_exception_handler(kind, _handler(refuse))
    api.add_exception_handler(RequestValidationError, _invalid)


def _handler(refuse: Any) -> Any:
    async def handle(request: Request, error: Exception) -> Response:
        return answer(refuse(error))

    return handle


def _unavailable(error: Exception) -> Refused:
    logger.error("Request refused, the broker is not available: %s", error)
    return Refused(503, "", "not possible now; try again later", {"Retry-After": "5"})


async def _invalid(request: Request, error: Any) -> Response:
    problems = [
        {"field": ".".join(map(str, one["loc"][1:])) or one["loc"][0], "reason": one["msg"]}
        for one in error.errors()[:MAX_ERRORS]
    ]
    return _answer(422, problems)


def _answer(
    status: int, problems: list[dict[str, Any]], headers: Mapping[str, str] | None = None
) -> Response:
    if not is_body_allowed_for_status_code(status):
        return Response(None, status, headers)
    # As ASCII: a field's name comes from the client, and may hold what UTF-8 cannot encode.
    body = json.dumps({"errors": problems})
    return Response(body, status, headers, media_type="application/json")
