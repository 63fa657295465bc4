"""The private parts of OpenTelemetry that this package uses, all of them.

OpenTelemetry may change them in any version. Where one is missing or has another shape, the
function here logs it once, and the library works without it.

- `_stub`, `_channel`, `_client`, `_initialize_channel_and_stub` and `_shutdown_in_progress` of an
  OTLP exporter over gRPC: to send again until the time-out while the Collector is away. The
  exporters have no setting for it. Without: a batch is given up after six attempts, which take
  about half a minute.
- `encode_spans`, the name in the module of an OTLP span exporter: for the cheaper encoder. The
  exporters take no other. Without: their own encoder, at several times the cost.
- `_batch_processor._queue` of a batch processor: to count at the end what is lost with the process.
  Without: what is still in the queue is missing from that count.
- `_update_resource` of a provider: for one resource where somebody else has set the global
  providers, as `opentelemetry-instrument` does. Without: those keep their own resource.
- `_OpenTelemetrySemanticConventionStability` of opentelemetry-instrumentation: for today's names of
  HTTP where another instrumentation has looked at OTEL_SEMCONV_STABILITY_OPT_IN before it was set,
  as under `opentelemetry-instrument`. Without: the names are those of 2021 there.
- `_active_span_processor._span_processors`, `_multi_log_record_processor._log_record_processors`
  and `_metric_readers` of such a provider: to see that it exports nothing. Without: it is taken for
  one that exports.

Not private in spite of the underscore: `opentelemetry._logs`, `opentelemetry.sdk._logs` and the
exporters' `_log_exporter`. They are the documented places of the logs signal.

Elsewhere the method `export` of an exporter is replaced on the instance. It is public, and a
wrapper around the exporter would hide what the SDK's readers ask a metric exporter for.
"""

# ruff: noqa: SLF001

import logging
import os
import sys
import threading
from collections.abc import Callable, Sized
from contextlib import suppress
from functools import cache
from operator import attrgetter
from types import FunctionType, SimpleNamespace
from typing import Any

from opentelemetry.sdk.resources import Resource

logger = logging.getLogger(__name__)

_STABILITY = "OTEL_SEMCONV_STABILITY_OPT_IN"


@cache
def _say_missing(part: str, consequence: str) -> None:
    logger.warning("This version of OpenTelemetry has no %s, or another one: %s", part, consequence)


class GrpcConnection:
    """How an OTLP exporter over gRPC reaches its receiver."""

    def __init__(self, exporter: Any) -> None:
        self._exporter = exporter
        self._make_client: Callable[[Any], Any] = exporter._stub

    def send(self, request: Any, **options: Any) -> Any:
        """Raises grpc.RpcError."""
        return self._make_client(self._exporter._channel).Export(request, **options)

    def renew(self) -> None:
        """Connect anew: the receiver's name is looked up again."""
        self._exporter._channel.close()
        self._exporter._initialize_channel_and_stub()

    def wait(self, seconds: float) -> bool:
        """Return True at once when the exporter shuts down, False after that time."""
        ended: bool = self._exporter._shutdown_in_progress.wait(seconds)
        return ended


def send_with(
    exporter: Any, send: Callable[[GrpcConnection, Any, float, dict[str, Any]], Any]
) -> bool:
    """Have an OTLP exporter over gRPC call `send` with each request; return whether it does.

    Args:
        exporter: Of any signal.
        send: Gets the connection, the request, its time-out in seconds, and the other options of
            `GrpcConnection.send`, whose result it returns.
    """
    if not (
        callable(getattr(exporter, "_stub", None))
        and callable(getattr(exporter, "_initialize_channel_and_stub", None))
        and callable(getattr(getattr(exporter, "_channel", None), "close", None))
        and callable(getattr(getattr(exporter, "_client", None), "Export", None))
        and isinstance(getattr(exporter, "_shutdown_in_progress", None), threading.Event)
    ):
        _say_missing("OTLP exporter over gRPC with `_stub`", "batches are given up early")
        return False
    connection = GrpcConnection(exporter)

    def export(request: Any, **options: Any) -> Any:
        timeout = options.pop("timeout", None)
        if timeout is None:
            return connection.send(request, **options)
        return send(connection, request, timeout, options)

    client = SimpleNamespace(Export=export)
    exporter._stub = lambda _channel: client  # for the client of each further channel
    exporter._client = client
    return True


def encode_with(exporter: Any, theirs: Callable[..., Any], ours: Callable[..., Any]) -> bool:
    """Have an OTLP span exporter encode with `ours`; return whether it does.

    Args:
        exporter: Of spans, over gRPC or HTTP.
        theirs: The `encode_spans` of opentelemetry-exporter-otlp-proto-common.
        ours: Takes and returns the same.
    """
    module = sys.modules[type(exporter).__module__]
    uses_name = any(
        "encode_spans" in method.__code__.co_names
        for method in vars(type(exporter)).values()
        if isinstance(method, FunctionType)
    )
    if not uses_name or getattr(module, "encode_spans", None) not in (theirs, ours):
        _say_missing("`encode_spans` in its span exporters", "encoding spans costs more")
        return False
    module.encode_spans = ours  # type: ignore[attr-defined]
    return True


def queue_length(processor: Any) -> int:
    """How many spans or records wait in a batch processor; 0 where that is not known."""
    queue = getattr(getattr(processor, "_batch_processor", None), "_queue", None)
    if isinstance(queue, Sized):
        return len(queue)
    _say_missing("`_batch_processor._queue`", "what is lost at the end is not all counted")
    return 0


def set_resource(provider: Any, resource: Resource) -> bool:
    """Have an SDK's provider send with this resource; return whether it does."""
    try:
        provider._update_resource(resource)
    except (AttributeError, TypeError):
        _say_missing("`_update_resource`", "another's providers keep their own resource")
        return False
    return True


def use_stable_http_names() -> bool:
    """Have instrumentations of HTTP use the names of today, unless the variable is set otherwise.

    Those that have looked already stay as they are. Returns whether the variable is in effect.
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
        _say_missing(
            "`_OpenTelemetrySemanticConventionStability`",
            f"set {_STABILITY}=http in the environment for today's names of HTTP",
        )
        return False
    return True


def is_bare(provider: Any) -> bool:
    """Whether an SDK's provider has nobody to give its telemetry to."""
    for path in (
        "_active_span_processor._span_processors",
        "_multi_log_record_processor._log_record_processors",
        "_metric_readers",
    ):
        with suppress(AttributeError):
            return not attrgetter(path)(provider)
    _say_missing("`_span_processors` or `_metric_readers`", "a provider is taken to have exporters")
    return False
