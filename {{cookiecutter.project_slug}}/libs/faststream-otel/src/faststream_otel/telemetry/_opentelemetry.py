"""All private parts of OpenTelemetry that this package uses.

OpenTelemetry may change them in any version. If one is missing or looks different, the function
here logs this once, and the library works without it.

- `_stub`, `_channel`, `_client`, `_initialize_channel_and_stub` and `_shutdown_in_progress` of an
  OTLP exporter over gRPC: to resend until the time-out while the Collector is unreachable. The
  exporters have no setting for it. Without: an exporter drops a batch after six attempts, which
  take about half a minute.
- The names `encode_spans` and `encode_logs` in the modules of OTLP exporters: to use the cheaper
  encoder. The exporters have no setting for it. Without: their own encoder, which costs several
  times as much, and the SDK's queues, which limit only the number of spans and log records.
- `_SUPPRESS_INSTRUMENTATION_KEY` of `opentelemetry.context`: to record no spans of exports.
  Without: instrumentations of HTTP and gRPC clients, if they are on, record each export.
- `_update_resource` of a provider: to have one resource if other code has set the global providers,
  as `opentelemetry-instrument` does. Without: those providers keep their own resource.
- `_OpenTelemetrySemanticConventionStability` of opentelemetry-instrumentation: to use the stable
  HTTP names if another instrumentation has read OTEL_SEMCONV_STABILITY_OPT_IN before it was set, as
  under `opentelemetry-instrument`. Without: that process uses the old HTTP names.
- `_active_span_processor._span_processors`, `_multi_log_record_processor._log_record_processors`
  and `_metric_readers` of a provider that other code has set: to see whether it exports anything.
  Without: the library assumes that it does.

Not private in spite of the underscore: `opentelemetry._logs`, `opentelemetry.sdk._logs` and the
exporters' `_log_exporter`. They are the documented modules of the logs signal.

Other modules replace the public method `export` on an exporter instance. A wrapper around the
exporter would hide attributes that the SDK's metric readers need.
"""

# ruff: noqa: SLF001

import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from operator import attrgetter
from types import FunctionType, SimpleNamespace
from typing import Any

from opentelemetry import context
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource

from .missing import warn_missing

_STABILITY = "OTEL_SEMCONV_STABILITY_OPT_IN"

_warn_missing = partial(warn_missing, "OpenTelemetry")


class GrpcConnection:
    """The connection of an OTLP exporter over gRPC."""

    def __init__(self, exporter: Any) -> None:
        self._exporter = exporter
        self._make_client: Callable[[Any], Any] = exporter._stub
        self._process = os.getpid()
        self._inherited: list[Any] = []

    def send(self, request: Any, **options: Any) -> Any:
        """Send an export request. Raises grpc.RpcError."""
        if self._process != os.getpid():  # forked: two processes cannot use one channel
            self._process = os.getpid()
            self._inherited.append(self._exporter._channel)  # closing it may never return
            self._exporter._initialize_channel_and_stub()
        return self._make_client(self._exporter._channel).Export(request, **options)

    def renew(self) -> None:
        """Open a new channel, which resolves the receiver's name again."""
        self._exporter._channel.close()
        self._exporter._initialize_channel_and_stub()

    def wait(self, seconds: float) -> bool:
        """Wait. Returns True as soon as the exporter shuts down, False after that time."""
        ended: bool = self._exporter._shutdown_in_progress.wait(seconds)
        return ended


def send_with(
    exporter: Any, send: Callable[[GrpcConnection, Any, float, dict[str, Any]], Any]
) -> bool:
    """Make an OTLP exporter over gRPC call `send` for each request. Returns whether it does.

    Args:
        exporter: An exporter of any signal.
        send: Takes the connection, the request, the time-out in seconds, and further options for
            `GrpcConnection.send`. Returns the result of that method.
    """
    if not (
        callable(getattr(exporter, "_stub", None))
        and callable(getattr(exporter, "_initialize_channel_and_stub", None))
        and callable(getattr(getattr(exporter, "_channel", None), "close", None))
        and callable(getattr(getattr(exporter, "_client", None), "Export", None))
        and isinstance(getattr(exporter, "_shutdown_in_progress", None), threading.Event)
    ):
        _warn_missing(
            "OTLP exporter over gRPC with `_stub`", "batches are dropped before the time-out"
        )
        return False
    connection = GrpcConnection(exporter)

    def export(request: Any, **options: Any) -> Any:
        timeout = options.pop("timeout", None)
        if timeout is None:
            return connection.send(request, **options)
        return send(connection, request, timeout, options)

    client = SimpleNamespace(Export=export)
    exporter._stub = lambda _channel: client  # for channels that `renew` opens
    exporter._client = client
    return True


def encode_with(exporter: Any, theirs: Callable[..., Any], ours: Callable[..., Any]) -> bool:
    """Make an OTLP exporter encode with `ours`. Returns whether it does.

    Args:
        exporter: An exporter of spans or log records, over gRPC or HTTP.
        theirs: The `encode_spans` or `encode_logs` of opentelemetry-exporter-otlp-proto-common.
        ours: A function with the same signature.
    """
    module, name = sys.modules[type(exporter).__module__], theirs.__name__
    uses_name = any(
        name in method.__code__.co_names
        for method in vars(type(exporter)).values()
        if isinstance(method, FunctionType)
    )
    if not uses_name or getattr(module, name, None) not in (theirs, ours):
        _warn_missing(f"`{name}` in its exporters", "encoding spans and log records costs more")
        return False
    setattr(module, name, ours)
    return True


def suppressed() -> Context:
    """The current context, with instrumentations switched off."""
    key = getattr(context, "_SUPPRESS_INSTRUMENTATION_KEY", None)
    if key is None:
        _warn_missing("`_SUPPRESS_INSTRUMENTATION_KEY`", "instrumentations may record exports")
        return context.get_current()
    return context.set_value(key, True)


def set_resource(provider: Any, resource: Resource) -> bool:
    """Make a provider of the SDK use this resource. Returns whether it does."""
    try:
        provider._update_resource(resource)
    except (AttributeError, TypeError):
        _warn_missing(
            "`_update_resource`", "providers that other code has set keep their own resource"
        )
        return False
    return True


def use_stable_http_names() -> bool:
    """Make HTTP instrumentations use the stable names, unless OTEL_SEMCONV_STABILITY_OPT_IN is set.

    Instrumentations that have read the variable before keep their names. Returns whether the
    variable is in effect.
    """
    if os.environ.setdefault(_STABILITY, "http") != "http":
        return True
    try:
        from opentelemetry.instrumentation._semconv import (
            _OpenTelemetrySemanticConventionStability as Stability,
        )

        initialize: Callable[[], object] = Stability._initialize
        Stability._initialized = False
        initialize()
    except (ImportError, AttributeError):
        _warn_missing(
            "`_OpenTelemetrySemanticConventionStability`",
            f"set {_STABILITY}=http in the environment to get the stable HTTP names",
        )
        return False
    return True


def is_bare(provider: Any) -> bool:
    """Whether a provider of the SDK has no processor and no reader, so that it exports nothing."""
    for path in (
        "_active_span_processor._span_processors",
        "_multi_log_record_processor._log_record_processors",
        "_metric_readers",
    ):
        with suppress(AttributeError):
            return not attrgetter(path)(provider)
    _warn_missing(
        "`_span_processors` or `_metric_readers`", "a provider is assumed to have exporters"
    )
    return False
