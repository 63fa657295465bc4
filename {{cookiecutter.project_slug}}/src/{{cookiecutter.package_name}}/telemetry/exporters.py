"""Where telemetry goes: exporters as the `OTEL_*` environment variables choose them.

Endpoint, headers, time-out, compression and certificate (OTEL_EXPORTER_OTLP_* and their per-signal
forms) are read by the OTLP exporters themselves; see "OpenTelemetry Protocol Exporter" in the
OpenTelemetry specification. An export waits for a Collector that is away, or over gRPC refuses it,
until its time-out: the exporters alone give a batch up after six attempts, which take about half a
minute.
"""

import logging
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sized
from importlib import import_module
from types import SimpleNamespace
from typing import Any, Literal

from . import values
from .encoding import install_encoder

Signal = Literal["traces", "metrics", "logs"]

logger = logging.getLogger(__name__)

# Where each exporter class lives; imported on use, so that a service loads one protocol only.
_OTLP = {
    ("traces", "grpc"): "grpc.trace_exporter:OTLPSpanExporter",
    ("metrics", "grpc"): "grpc.metric_exporter:OTLPMetricExporter",
    ("logs", "grpc"): "grpc._log_exporter:OTLPLogExporter",
    ("traces", "http/protobuf"): "http.trace_exporter:OTLPSpanExporter",
    ("metrics", "http/protobuf"): "http.metric_exporter:OTLPMetricExporter",
    ("logs", "http/protobuf"): "http._log_exporter:OTLPLogExporter",
}
_CONSOLE = {
    "traces": "opentelemetry.sdk.trace.export:ConsoleSpanExporter",
    "metrics": "opentelemetry.sdk.metrics.export:ConsoleMetricExporter",
    "logs": "opentelemetry.sdk._logs.export:ConsoleLogRecordExporter",
}
_ENCODABLE: dict[Signal, Callable[[Any], Any]] = {
    "traces": values.spans,
    "metrics": values.metrics,
    "logs": values.records,
}


class Delivery:
    """Tells once that telemetry cannot be delivered, and once that it can again.

    The exporters log every failed attempt, which floods the log of a service whose Collector is
    away; all signals share one voice instead.
    """

    def __init__(self) -> None:
        self._failing: set[Signal] = set()
        self._lock = threading.Lock()
        self.lost: Counter[Signal] = Counter()
        """Of batches that were given up: how many spans, and how many records."""
        self.in_hand: Counter[Signal] = Counter()
        """Of batches that are being exported."""

    def watch(self, exporter: Any, signal: Signal) -> Any:
        """Wrap the exporter's `export` so that its outcome is noted; returns the exporter."""
        export: Callable[..., Any] = exporter.export

        def watched(batch: Any, *arguments: Any, **options: Any) -> Any:
            size = len(batch) if isinstance(batch, Sized) else 0  # metrics come as a tree
            self.in_hand[signal] += size
            delivered = False
            try:
                result = export(batch, *arguments, **options)
                delivered = result.name == "SUCCESS"
            finally:
                self.in_hand[signal] -= size
                self.lost[signal] += 0 if delivered else size
            self._note(signal, delivered=delivered)
            return result

        exporter.export = watched
        return exporter

    def _note(self, signal: Signal, *, delivered: bool) -> None:
        with self._lock:
            before = bool(self._failing)
            if delivered:
                self._failing.discard(signal)
            else:
                self._failing.add(signal)
            after = bool(self._failing)
        if after and not before:
            logger.warning(
                "OpenTelemetry %s cannot be exported (is the Collector up, and does it take these"
                " credentials? see OTEL_EXPORTER_OTLP_ENDPOINT, _HEADERS and _CERTIFICATE;"
                " OTEL_LOG_LEVEL=info shows each failure); the service goes on, its telemetry"
                " waits in a bounded queue. This is said once until it recovers.",
                signal,
            )
        elif before and not after:
            logger.info("OpenTelemetry telemetry is exported again.")


def make_exporter(signal: Signal, delivery: Delivery) -> Any | None:
    """Make the exporter that OTEL_{TRACES,METRICS,LOGS}_EXPORTER names.

    Returns:
        The exporter, or None for `none`.

    Raises:
        ValueError: The variable, or the OTLP protocol, has a value that is not known here.
    """
    variable = f"OTEL_{signal.upper()}_EXPORTER"
    chosen = os.environ.get(variable, "").strip().lower() or "otlp"
    if chosen == "none":
        return None
    if chosen == "console":
        return _load(_CONSOLE[signal])()
    if chosen == "otlp":
        path = f"opentelemetry.exporter.otlp.proto.{_OTLP[signal, otlp_protocol(signal)]}"
        exporter = _load(path)(**_patience(signal))
        _try_until_time_out(exporter)
        if signal != "traces" or not install_encoder(exporter):  # which sees to it by itself
            _make_encodable(exporter, _ENCODABLE[signal])
        return delivery.watch(exporter, signal)
    msg = f"{variable}={chosen!r} is not known; use otlp, console or none: {variable}=otlp"
    raise ValueError(msg)


def otlp_protocol(signal: Signal) -> str:
    """`grpc` (the default) or `http/protobuf`, the signal's own variable before the general one."""
    own = f"OTEL_EXPORTER_OTLP_{signal.upper()}_PROTOCOL"
    general = "OTEL_EXPORTER_OTLP_PROTOCOL"
    variable = own if os.environ.get(own, "").strip() else general
    protocol = os.environ.get(variable, "").strip().lower() or "grpc"
    if (signal, protocol) not in _OTLP:
        msg = (
            f"{variable}={protocol!r} is not supported; use grpc or http/protobuf,"
            f" for example {variable}=grpc"
        )
        raise ValueError(msg)
    return protocol


FIRST_PAUSE_SECONDS = 0.5
RECONNECT_SECONDS = 3.0


def _make_encodable(exporter: Any, encodable: Callable[[Any], Any]) -> None:
    """Have an exporter export what its encoder takes, or one odd value loses the whole batch."""
    export: Callable[..., Any] = exporter.export

    def export_encodable(batch: Any, *arguments: Any, **options: Any) -> Any:
        return export(encodable(batch), *arguments, **options)

    exporter.export = export_encodable


def _patience(signal: Signal) -> dict[str, Any]:
    """Arguments that let an exporter try to connect for as long as its time-out allows; one over
    gRPC needs `_try_until_time_out` too."""
    if otlp_protocol(signal) == "grpc":
        # A channel that does not share, with one closed before, how long to wait to connect.
        return {"channel_options": (("grpc.use_local_subchannel_pool", 1),)}
    if any(os.environ.get(variable) for variable in _credential_providers(signal)):
        return {}  # they bring a session of their own
    return {"session": _patient_session(_timeout(signal))}


def _try_until_time_out(exporter: Any) -> None:
    """Have an exporter over gRPC send again, until its time-out, what is answered UNAVAILABLE.

    A call that waits for a connection (gRPC's "Wait for Ready") would not do: it fails where the
    Collector's name is not known, as that of a container is while it is away, or waits minutes for
    the name to be looked up again. A new channel looks it up at once. All goes through the
    exporter's stub, as an exporter has no better place for it.
    """
    stub = getattr(exporter, "_stub", None)
    if stub is None:
        return

    def export(request: Any, metadata: Any, timeout: float) -> Any:
        import grpc

        ends = time.monotonic() + timeout
        pause = FIRST_PAUSE_SECONDS
        while True:
            try:
                left = ends - time.monotonic()
                return stub(exporter._channel).Export(request, metadata=metadata, timeout=left)
            except grpc.RpcError as error:
                delay = pause * random.uniform(0.8, 1.2)
                details = {one.key for one in error.trailing_metadata() or ()}
                if (
                    error.code() is not grpc.StatusCode.UNAVAILABLE
                    or "google.rpc.retryinfo-bin" in details
                    or delay >= ends - time.monotonic()
                    or exporter._shutdown_in_progress.wait(delay)
                ):
                    raise  # the exporter goes on from here
            exporter._channel.close()
            exporter._initialize_channel_and_stub()
            pause = min(2 * pause, RECONNECT_SECONDS)

    client = SimpleNamespace(Export=export)
    exporter._stub = lambda _channel: client
    exporter._client = client


def _patient_session(seconds: float) -> Any:
    """A session that goes on trying to connect for so long; a request that got through is not sent
    again here, that is the exporter's business."""
    import requests
    from requests.adapters import HTTPAdapter
    from urllib3.util import Retry

    retries = Retry(
        total=None,
        connect=int(seconds / RECONNECT_SECONDS) + 3,  # the first pauses are shorter
        read=0,
        status=0,
        other=0,
        backoff_factor=0.5,
        backoff_max=RECONNECT_SECONDS,
    )
    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(max_retries=retries))
    return session


def _credential_providers(signal: Signal) -> tuple[str, str]:
    prefix = "OTEL_PYTHON_EXPORTER_OTLP_HTTP"
    return f"{prefix}_CREDENTIAL_PROVIDER", f"{prefix}_{signal.upper()}_CREDENTIAL_PROVIDER"


def _timeout(signal: Signal) -> float:
    """OTEL_EXPORTER_OTLP_TIMEOUT or the signal's own, in seconds; 10 where neither is a number."""
    own = f"OTEL_EXPORTER_OTLP_{signal.upper()}_TIMEOUT"
    try:
        return float(os.environ.get(own) or os.environ.get("OTEL_EXPORTER_OTLP_TIMEOUT") or 10)
    except ValueError:
        return 10.0


def _load(path: str) -> Any:
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)
