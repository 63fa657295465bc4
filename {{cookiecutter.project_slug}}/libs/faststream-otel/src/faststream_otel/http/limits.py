"""Limits of requests that have a body, as ASGI middleware.

A refusal says what is wrong: `{"errors": [{"field": …, "reason": …}]}`.

| Status | When |
|---|---|
| 400 | its length is given in two ways (RFC 9112, 6.1), or it is incomplete |
| 408 | it did not come within `body_timeout_seconds` |
| 413 | it is larger than `max_body_bytes` |
| 415 | it is compressed (RFC 9110, 15.5.16) |
| 503 | `max_requests` are being handled already |
"""

import asyncio
from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .errors import Refused, answer

# Many clients read the answer only after they have sent the whole body. So many times the limit is
# read and thrown away, within the same time, before the connection is closed.
DRAINED = 8


class RequestLimits:
    """Hands on requests without a body as they are, and others once their body is there.

    Args:
        max_body_bytes: A larger body is refused.
        body_timeout_seconds: For it to come in.
        max_requests: With a body, at once: as many bodies may be in memory.
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
                reason = "too many requests at once, try again later"
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
            # Without `close`, the rest of a body that nobody wants would be read as long as it
            # comes.
            refused.headers = {**(refused.headers or {}), "connection": "close"}
            await answer(refused)(scope, receive, send)

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        """Raises `Refused`."""
        headers = Headers(scope=scope)
        if "transfer-encoding" in headers and (
            "content-length" in headers or scope.get("http_version") == "1.0"
        ):  # a proxy that reads it the other way may take a part of it for a second request
            reason = "has a Content-Length, or is of HTTP/1.0, and has a Transfer-Encoding"
            raise Refused(HTTPStatus.BAD_REQUEST, "body", reason)
        try:
            async with asyncio.timeout(self._seconds):
                return await self._read(scope, receive)
        except TimeoutError:
            reason = f"did not come within {self._seconds:g} s"
            raise Refused(HTTPStatus.REQUEST_TIMEOUT, "body", reason) from None

    async def _read(self, scope: Scope, receive: Receive) -> bytes:
        refused = self._refused(scope)
        declared = _declared_length(scope)
        # A client that waits for 100 Continue before it sends the body reads the answer now.
        if refused and (declared > DRAINED * self._limit or "expect" in Headers(scope=scope)):
            raise refused
        body, size, more = bytearray(), 0, True
        while more and size <= DRAINED * self._limit:
            message = await receive()
            if message["type"] == "http.disconnect":  # the span records it; nobody reads the answer
                raise Refused(HTTPStatus.BAD_REQUEST, "body", "not sent to its end")
            chunk = message.get("body", b"")
            size += len(chunk)
            if size <= self._limit and not refused:
                body += chunk
            more = message.get("more_body", False)
        if refused or size > self._limit:
            raise refused or self._too_large()
        return bytes(body)

    def _refused(self, scope: Scope) -> Refused | None:
        """The refusal that the headers alone call for."""
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
    """In bytes; 0 if the client does not say it."""
    length = Headers(scope=scope).get("content-length", "")
    return int(length) if length.isascii() and length.isdigit() else 0
