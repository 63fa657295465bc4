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
import json
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from http import HTTPStatus
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

# Whoever sends too much learns it from the answer, which many clients read only when all is sent:
# so much is taken in and thrown away, in the same time, before the connection is closed.
DRAINED = 8  # times the limit


class Refused(Exception):
    """Ends a request with this answer, and its connection."""

    def __init__(
        self, status: HTTPStatus, field: str, reason: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(reason)
        self.status = status
        # Without `close`, the rest of a body that nobody wants would be read as long as it comes.
        self.headers = {
            "content-type": "application/json",
            "connection": "close",
            **(headers or {}),
        }
        self.body = json.dumps({"errors": [{"field": field, "reason": reason}]}).encode()


class RequestLimits:
    """Hands on requests without a body as they are, and others once their body is there.

    Args:
        max_body_bytes: A larger body is refused.
        body_timeout_seconds: For it to come in.
        max_requests: With a body, at once: as many bodies may be in memory.
    """

    def __init__(
        self, app: App, *, max_body_bytes: int, body_timeout_seconds: float, max_requests: int
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
            headers = refused.headers | {"content-length": str(len(refused.body))}
            await send(
                {
                    "type": "http.response.start",
                    "status": refused.status,
                    "headers": [(name.encode(), text.encode()) for name, text in headers.items()],
                }
            )
            await send({"type": "http.response.body", "body": refused.body})

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        """Raises `Refused`."""
        if header_lines(scope, "transfer-encoding") and (
            header_lines(scope, "content-length") or scope.get("http_version") == "1.0"
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
        # Who expects a word before it sends the body reads the answer now.
        if refused and (declared > DRAINED * self._limit or header_lines(scope, "expect")):
            raise refused
        body, size, more = bytearray(), 0, True
        while more and size <= DRAINED * self._limit:
            message = await receive()
            if message["type"] == "http.disconnect":  # told to the span, nobody else listens
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
        """What the headers alone tell of the body."""
        codings = ",".join(header_lines(scope, "content-encoding")).lower().split(",")
        if any(coding.strip() not in {"", "identity"} for coding in codings):
            return Refused(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "body", "is compressed (Content-Encoding)",
                {"accept-encoding": "identity"},
            )  # fmt: skip
        return self._too_large() if _declared_length(scope) > self._limit else None

    def _too_large(self) -> Refused:
        reason = f"larger than {self._limit} bytes"
        return Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "body", reason)


def header_lines(scope: Scope, name: str) -> list[str]:
    """The values of all header lines of that name, which is in lower case."""
    return [value.decode("latin-1") for key, value in scope["headers"] if key == name.encode()]


def _has_body(scope: Scope) -> bool:
    return _declared_length(scope) > 0 or bool(header_lines(scope, "transfer-encoding"))


def _declared_length(scope: Scope) -> int:
    """In bytes; 0 if the client does not say it."""
    (length,) = header_lines(scope, "content-length")[:1] or [""]
    return int(length) if length.isascii() and length.isdigit() else 0
