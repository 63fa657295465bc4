"""Limits for requests with a body, as ASGI middleware.

| Status | When |
|---|---|
| 400 | the body has two lengths (RFC 9112, 6.1), or is incomplete |
| 408 | the body did not arrive within `body_timeout_seconds` |
| 413 | the body is larger than `max_body_bytes` |
| 415 | the body is compressed (RFC 9110, 15.5.16) |
| 503 | `max_requests` are already being handled |
"""

import asyncio
from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .errors import Refused, answer

# Many clients read the response only after they have sent the whole body. So a refused body is read
# and dropped, up to this many times the limit, before the connection is closed.
DRAINED = 8


class RequestLimits:
    """Passes on a request with a body once the whole body has arrived.

    Args:
        max_body_bytes: A larger body is refused.
        body_timeout_seconds: How long the body may take to arrive.
        max_requests: Concurrent requests with a body, each of which is kept in memory.
    """

    def __init__(
        self, app: ASGIApp, *, max_body_bytes: int, body_timeout_seconds: float, max_requests: int
    ) -> None:
        self._app = app
        self._limit = max_body_bytes
        self._seconds = body_timeout_seconds
        self._most = max_requests
        self._busy = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not _has_body(scope):
            await self._app(scope, receive, send)
            return
        try:
            if self._busy >= self._most:
                reason = "too many requests at once; try again later"
                raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, "", reason, {"retry-after": "1"})
            self._busy += 1
            try:
                unread = [await self._body(scope, receive)]

                async def replay() -> Message:
                    if unread:
                        return {"type": "http.request", "body": unread.pop(), "more_body": False}
                    return await receive()

                await self._app(scope, replay, send)
            finally:
                self._busy -= 1
        except Refused as refused:
            # Without `close`, uvicorn would read the rest of the body, however long.
            refused.headers = {**(refused.headers or {}), "connection": "close"}
            await answer(refused)(scope, receive, send)

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        """Raises `Refused`."""
        headers = Headers(scope=scope)
        if "transfer-encoding" in headers and (
            "content-length" in headers or scope.get("http_version") == "1.0"
        ):  # request smuggling: a proxy may see a different end of the body than this server
            reason = "has a Transfer-Encoding as well as a Content-Length or HTTP/1.0"
            raise Refused(HTTPStatus.BAD_REQUEST, "body", reason)
        try:
            async with asyncio.timeout(self._seconds):
                return await self._read(scope, receive)
        except TimeoutError:
            reason = f"did not arrive within {self._seconds:g} s"
            raise Refused(HTTPStatus.REQUEST_TIMEOUT, "body", reason) from None

    async def _read(self, scope: Scope, receive: Receive) -> bytes:
        refused = self._refused(scope)
        declared = _declared_length(scope)
        # A client that waits for 100 Continue before it sends the body reads the response now.
        if refused and (declared > DRAINED * self._limit or "expect" in Headers(scope=scope)):
            raise refused
        body, size, more = bytearray(), 0, True
        while more and size <= DRAINED * self._limit:
            message = await receive()
            if message["type"] == "http.disconnect":  # for the span: nobody reads the response
                raise Refused(HTTPStatus.BAD_REQUEST, "body", "is incomplete")
            chunk = message.get("body", b"")
            size += len(chunk)
            if size <= self._limit and not refused:
                body += chunk
            more = message.get("more_body", False)
        if refused or size > self._limit:
            raise refused or self._too_large()
        return bytes(body)

    def _refused(self, scope: Scope) -> Refused | None:
        """Refuse a request if its headers alone are reason enough."""
        codings = ",".join(Headers(scope=scope).getlist("content-encoding")).lower().split(",")
        if any(coding.strip() not in {"", "identity"} for coding in codings):
            return Refused(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "body", "is compressed (Content-Encoding)",
                {"accept-encoding": "identity"},
            )  # fmt: skip
        return self._too_large() if _declared_length(scope) > self._limit else None

    def _too_large(self) -> Refused:
        reason = f"larger than {self._limit} bytes"
        return Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "body", reason)


def _has_body(scope: Scope) -> bool:
    return _declared_length(scope) > 0 or "transfer-encoding" in Headers(scope=scope)


def _declared_length(scope: Scope) -> int:
    """The Content-Length in bytes; 0 without a valid one."""
    length = Headers(scope=scope).get("content-length", "")
    return int(length) if length.isascii() and length.isdigit() else 0
