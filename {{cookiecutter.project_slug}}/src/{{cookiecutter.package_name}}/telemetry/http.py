"""SERVER spans for the HTTP side of a service (HTTP semantic conventions 1.44, "HTTP server")."""

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.semconv.attributes import error_attributes as error
from opentelemetry.semconv.attributes import http_attributes as http
from opentelemetry.semconv.attributes import server_attributes as server
from opentelemetry.semconv.attributes import url_attributes as url
from opentelemetry.trace import SpanKind, StatusCode

from .errors import fail

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_METHODS = {"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"}


async def serve_traced(app: App, scope: Scope, receive: Receive, send: Send, *, route: str) -> None:
    """Run an ASGI HTTP request in a SERVER span that continues the caller's trace, or starts one.

    Args:
        route: `http.route`, of low cardinality. It names the span: `GET /items/{id}`.
    """
    headers = _headers(scope)
    method = scope["method"] if scope["method"] in _METHODS else "_OTHER"
    span = trace.get_tracer(__name__).start_span(
        f"{method if method != '_OTHER' else 'HTTP'} {route}",
        context=propagate.extract(headers, context=Context()),
        kind=SpanKind.SERVER,
        attributes={
            http.HTTP_REQUEST_METHOD: method,
            http.HTTP_ROUTE: route,
            url.URL_PATH: scope["path"],
            url.URL_SCHEME: scope.get("scheme", "http"),
            **_server(scope),
        },
    )

    async def observed(message: Message) -> None:
        if message["type"] == "http.response.start":
            status = message["status"]
            span.set_attribute(http.HTTP_RESPONSE_STATUS_CODE, status)
            if status >= 500:  # a 4xx is the caller's error, not this service's
                span.set_attribute(error.ERROR_TYPE, str(status))
                span.set_status(StatusCode.ERROR)
        await send(message)

    with trace.use_span(
        span, end_on_exit=True, record_exception=False, set_status_on_exception=False
    ):
        try:
            await app(scope, receive, observed)
        except Exception as raised:
            fail(span, raised)
            raise


def _headers(scope: Scope) -> Mapping[str, str]:
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}


def _server(scope: Scope) -> dict[str, str | int]:
    address, port = scope.get("server") or (None, None)
    attributes: dict[str, str | int] = {}
    if address:
        attributes[server.SERVER_ADDRESS] = address
    if port:
        attributes[server.SERVER_PORT] = port
    return attributes
