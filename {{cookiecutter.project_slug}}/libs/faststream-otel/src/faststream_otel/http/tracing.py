"""Makes the spans of OpenTelemetry's FastAPI instrumentation follow the rules of this library:

- A sampler or a span processor that raises loses the span, but does not fail the request.
- The recorded text of an error does not quote the message that caused it.
- The client's address, its user agent and the URL's query may be personal data, and are not
  recorded. A route that needs one sets the attribute itself.
- Malformed or repeated headers neither lose the trace context nor fail the request.
"""

from collections.abc import Iterable
from typing import Any

from opentelemetry.context import Context
from opentelemetry.semconv.attributes.client_attributes import CLIENT_ADDRESS, CLIENT_PORT
from opentelemetry.semconv.attributes.error_attributes import ERROR_TYPE
from opentelemetry.semconv.attributes.server_attributes import SERVER_ADDRESS, SERVER_PORT
from opentelemetry.semconv.attributes.url_attributes import URL_QUERY
from opentelemetry.semconv.attributes.user_agent_attributes import USER_AGENT_ORIGINAL
from opentelemetry.trace import (
    Span,
    SpanContext,
    Status,
    StatusCode,
    Tracer,
    TracerProvider,
    use_span,
)
from opentelemetry.util.types import Attributes
from starlette.types import ASGIApp, Receive, Scope, Send

from ..telemetry.errors import describe, error_type, record
from ..telemetry.spans import end_span, start_span

_PERSONAL = (
    CLIENT_ADDRESS, CLIENT_PORT, USER_AGENT_ORIGINAL, URL_QUERY,
    # Their old names, under OTEL_SEMCONV_STABILITY_OPT_IN=http/dup.
    "net.peer.ip", "net.peer.port", "http.user_agent", "http.target", "http.url",
)  # fmt: skip
_HEADERS = "faststream_otel.headers"


class RequestTracerProvider(TracerProvider):
    """Wraps a provider, so that its spans follow the rules of this module."""

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider

    def get_tracer(self, *arguments: Any, **options: Any) -> Tracer:
        return _Tracer(self._provider.get_tracer(*arguments, **options))


class _Tracer(Tracer):
    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def start_span(
        self, name: str, context: Context | None = None, *arguments: Any, **options: Any
    ) -> Span:
        # In place: the instrumentation sets these attributes again after the start.
        attributes = options.get("attributes") or {}
        for personal in _PERSONAL:
            attributes.pop(personal, None)
        if SERVER_ADDRESS in attributes:  # wrongly includes the port
            address, port = attributes[SERVER_ADDRESS], attributes.get(SERVER_PORT)
            attributes[SERVER_ADDRESS] = address.removesuffix(f":{port}")
        span = start_span(self._tracer, name, context=context, **options)
        return _RequestSpan(span) if span.is_recording() else span

    def start_as_current_span(self, *arguments: Any, **options: Any) -> Any:
        return use_span(self.start_span(*arguments, **options), end_on_exit=True)


class _RequestSpan(Span):
    def __init__(self, span: Span) -> None:
        self._span = span
        self._error: BaseException | None = None
        self._failed = False

    def __getattr__(self, name: str) -> Any:  # for what only the SDK's span has
        return getattr(self._span, name)

    def get_span_context(self) -> SpanContext:
        return self._span.get_span_context()

    def is_recording(self) -> bool:
        return self._span.is_recording()

    def update_name(self, name: str) -> None:
        self._span.update_name(name)

    def set_attributes(self, attributes: Any) -> None:
        self._span.set_attributes(attributes)

    def set_attribute(self, key: str, value: Any) -> None:
        if not (self._failed and key == ERROR_TYPE):  # "500" says less than the error's class
            self._span.set_attribute(key, value)

    def add_event(self, name: str, *arguments: Any, **options: Any) -> None:
        self._span.add_event(name, *arguments, **options)

    def add_link(self, context: SpanContext, attributes: Attributes = None) -> None:
        self._span.add_link(context, attributes)

    def record_exception(
        self,
        exception: BaseException,
        attributes: Attributes = None,
        timestamp: int | None = None,
        escaped: bool = False,
    ) -> None:
        if exception is not self._error:
            self._error = exception
            record(self._span, exception, attributes)

    def set_status(self, status: Status | StatusCode, description: str | None = None) -> None:
        said = status.description if isinstance(status, Status) else description
        error, kind = self._error, type(self._error).__name__
        if (
            error and said and said.startswith(f"{kind}: ")
        ):  # the instrumentation reports this error
            self._failed = True
            self._span.set_attribute(ERROR_TYPE, error_type(error))
            self._span.set_status(Status(StatusCode.ERROR, f"{kind}: {describe(error)}"))
        elif said or not self._failed:
            self._span.set_status(status, description)

    def end(self, end_time: int | None = None) -> None:
        end_span(self._span)


def readable(scope: Scope) -> Scope:
    """Return the scope with headers that the instrumentation can read; `OriginalHeaders` undoes it.

    Header lines of one name are joined by commas (RFC 9110, 5.3; W3C Trace Context, 3.3.1; W3C
    Baggage), because propagators read the first line only. Two traceparent lines make an invalid
    value, which starts a new trace. What is not UTF-8 is read as Latin-1.
    """
    return {**scope, "headers": _joined(scope["headers"]), _HEADERS: scope["headers"]}


def _joined(lines: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    headers: dict[bytes, bytes] = {}
    for name, line in lines:
        try:
            line.decode()
        except ValueError:
            line = line.decode("latin-1").encode()
        headers[name] = headers[name] + b"," + line if name in headers else line
    return list(headers.items())


class OriginalHeaders:
    """Middleware inside the instrumentation that restores the headers as they were sent."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["headers"] = scope.pop(_HEADERS, scope.get("headers"))
        await self._app(scope, receive, send)
