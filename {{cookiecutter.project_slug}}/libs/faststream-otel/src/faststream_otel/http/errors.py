"""What a service answers to a request that it refuses.

Every refusal has one shape: `{"errors": [{"field": …, "reason": …}]}`. `field` is the part of the
request that is wrong; it is empty where none is.
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
"""Of one request, however many it has."""
KEY = "Idempotency-Key"

logger = logging.getLogger(__name__)


class Problem(BaseModel):
    field: str
    reason: str


class Errors(BaseModel):
    """Which parts of a request are wrong, and why."""

    errors: list[Problem]


RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {"model": Errors, "description": description}
    for status, description in {
        400: "The body is incomplete, its length is given in two ways, or the key is not valid",
        408: "The body did not come in time",
        409: "The first request with this key is still being answered",
        413: "The body is too large",
        415: "The body is not application/json, or is compressed",
        422: "The request is not as described: which field, and why;"
        " or the key was sent with another request before",
        503: "The broker is not available, or too many requests at once",
    }.items()
}
"""What any route of a service may answer, for its OpenAPI document."""
RESPONSES[503]["headers"] = {
    "Retry-After": {"description": "Seconds", "schema": {"type": "integer"}}
}


class Refused(fastapi.HTTPException):
    """Raised in a route or a dependency, it is the answer.

    Args:
        status: Of HTTP, 400 or more.
        field: The part of the request that is wrong; empty if none is.
        reason: What is wrong with it.
        headers: Of the answer.
    """

    def __init__(
        self, status: int, field: str, reason: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(status, reason, headers)
        self.field = field


def answer(refused: HTTPException) -> Response:
    """The answer that says why a request is refused."""
    problem = {"field": getattr(refused, "field", ""), "reason": refused.detail}
    return _answer(refused.status_code, [problem], refused.headers)


def install(api: FastAPI) -> None:
    """Have the application answer every refusal, and its own errors, in the one shape."""
    refusals: dict[type[Exception], Any] = {
        HTTPException: lambda error: error,
        BadKey: lambda error: Refused(400, KEY, str(error)),
        KeyReused: lambda _: Refused(422, KEY, "was sent with another request before"),
        KeyInUse: lambda _: Refused(
            409, KEY, "was sent with a request that is still being answered, try again later"
        ),
        TooLarge: lambda _: Refused(413, "body", "larger than the broker takes"),
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
    return Refused(503, "", "not possible now, try again later", {"Retry-After": "5"})


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
    # ASCII: a name that the sender chose may hold what UTF-8 cannot.
    body = json.dumps({"errors": problems})
    return Response(body, status, headers, media_type="application/json")
