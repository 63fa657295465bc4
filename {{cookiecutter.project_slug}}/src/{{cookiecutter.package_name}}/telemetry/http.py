"""SERVER spans for the HTTP side of a service (HTTP semantic conventions 1.44, "HTTP server")."""

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from opentelemetry import trace
from opentelemetry.context import attach, detach
from opentelemetry.semconv.attributes import error_attributes as error
from opentelemetry.semconv.attributes import http_attributes as http
from opentelemetry.semconv.attributes import server_attributes as server
from opentelemetry.semconv.attributes import url_attributes as url
from opentelemetry.trace import SpanKind, StatusCode, TracerProvider

from .errors import fail
from .propagation import extract
from .spans import end_span, start_span

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_METHODS = {"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"}


async def serve_traced(
    app: App, scope: Scope, receive: Receive, send: Send, *, route: str, provider: TracerProvider
) -> None:
    """Run an ASGI HTTP request in a SERVER span that continues the caller's trace, or starts one.

    Args:
        route: `http.route`, of low cardinality. It names the span: `GET /items/{id}`.
        provider: The service's own; the global one may be another's.
    """
    caller = extract(_headers(scope))
    method = scope["method"] if scope["method"] in _METHODS else "_OTHER"
    span = start_span(
        provider.get_tracer(__name__),
        f"{method if method != '_OTHER' else 'HTTP'} {route}",
        context=caller,
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

    token = attach(caller)  # for its baggage
    try:
        with trace.use_span(span, record_exception=False, set_status_on_exception=False):
            try:
                await app(scope, receive, observed)
            except Exception as raised:
                fail(span, raised)
                raise
    finally:
        detach(token)
        end_span(span)


def _headers(scope: Scope) -> Mapping[str, str]:
    """Lines of one name are joined by commas (RFC 9110, 5.3), as W3C Trace Context (3.3.1) has it.

    Two lines of a field that is no list, a traceparent, make no valid value: a new trace starts.
    """
    headers: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]},{value}" if name in headers else value
    return headers


def _server(scope: Scope) -> dict[str, str | int]:
    address, port = scope.get("server") or (None, None)
    attributes: dict[str, str | int] = {}
    if address:
        attributes[server.SERVER_ADDRESS] = address
    if port:
        attributes[server.SERVER_PORT] = port
    return attributes
