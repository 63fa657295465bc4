"""Makes the exporters that the `OTEL_*` environment variables choose.

OpenTelemetry's exporters read endpoint and headers from OTEL_EXPORTER_OTLP_* and its per-signal
forms (specification, "OpenTelemetry Protocol Exporter"). This module reads the time-out, the
compression, and over gRPC INSECURE and the certificates: there the exporters deviate from the
specification.

While the Collector is unreachable, or over gRPC answers UNAVAILABLE, an export keeps trying until
its time-out. By themselves, the exporters drop a batch after six attempts, which take about half a
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
from pathlib import Path
from typing import Any

from . import values
from ._opentelemetry import GrpcConnection, send_with
from .encoding import install_encoder
from .environment import Signal, exporter_names, otlp_protocol, otlp_setting, otlp_timeout

logger = logging.getLogger(__name__)

# The exporter classes. Imported on use, so that a service loads only one protocol.
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
    """Logs once that exporting fails, and once that it works again, for all signals together.

    The exporters log every failed attempt, which floods the log while the Collector is unreachable.
    """

    def __init__(self) -> None:
        self._failing: set[Signal] = set()
        self._lock = threading.Lock()
        self.lost: Counter[Signal] = Counter()
        """Number of spans and of log records in batches that could not be exported."""
        self.reached = False
        """Whether anything was exported."""

    def watch(self, exporter: Any, signal: Signal) -> Any:
        """Wrap the exporter's `export` to record its outcome. Returns the exporter."""
        export: Callable[..., Any] = exporter.export

        def watched(batch: Any, *arguments: Any, **options: Any) -> Any:
            size = len(batch) if isinstance(batch, Sized) else 0  # metrics are a tree
            delivered = False
            try:
                result = export(batch, *arguments, **options)
                delivered = result.name == "SUCCESS"
            finally:
                self.lost[signal] += 0 if delivered else size
            self._note(signal, delivered=delivered)
            return result

        exporter.export = watched
        return exporter

    def _note(self, signal: Signal, *, delivered: bool) -> None:
        with self._lock:
            before = bool(self._failing)
            if delivered:
                self.reached = True
                self._failing.discard(signal)
            else:
                self._failing.add(signal)
            after = bool(self._failing)
        if after and not before:
            logger.warning(
                "OpenTelemetry %s cannot be exported. Is the Collector up, and does it accept these"
                " credentials? See OTEL_EXPORTER_OTLP_ENDPOINT, _HEADERS and _CERTIFICATE;"
                " OTEL_LOG_LEVEL=info shows each failure. The service keeps running, and its"
                " telemetry waits in a bounded queue. Logged once until it recovers.",
                signal,
            )
        elif before and not after:
            logger.info("OpenTelemetry data is exported again.")


def make_exporters(signal: Signal, delivery: Delivery) -> list[Any]:
    """Make the exporters that OTEL_{TRACES,METRICS,LOGS}_EXPORTER names."""
    return [
        _load(_CONSOLE[signal])() if name == "console" else make_exporter(signal, delivery)
        for name in exporter_names(signal)
    ]


def make_exporter(signal: Signal, delivery: Delivery) -> Any:
    """Make the OTLP exporter of a signal."""
    path = f"opentelemetry.exporter.otlp.proto.{_OTLP[signal, otlp_protocol(signal)]}"
    exporter = _load(path)(timeout=otlp_timeout(signal), **_protocol_options(signal))
    if otlp_protocol(signal) == "grpc":
        send_with(exporter, _try_until_time_out)
    encodes = install_encoder(exporter, signal, otlp_protocol(signal))
    if not encodes:  # our encoder does it itself
        _make_encodable(exporter, _ENCODABLE[signal])
    exporter.takes_encoded = encodes
    return delivery.watch(exporter, signal)


FIRST_PAUSE_SECONDS = 0.5
RECONNECT_SECONDS = 3.0


def _make_encodable(exporter: Any, encodable: Callable[[Any], Any]) -> None:
    """Make an exporter replace values that its encoder refuses: one would lose the whole batch."""
    export: Callable[..., Any] = exporter.export

    def export_encodable(batch: Any, *arguments: Any, **options: Any) -> Any:
        return export(encodable(batch), *arguments, **options)

    exporter.export = export_encodable


def _protocol_options(signal: Signal) -> dict[str, Any]:
    """Arguments of an exporter that differ between the protocols.

    With them an exporter over HTTP tries to connect until its time-out; one over gRPC also needs
    `_try_until_time_out`.
    """
    gzip = otlp_setting(signal, "COMPRESSION") == "gzip"
    if otlp_protocol(signal) == "grpc":
        from grpc import Compression as GrpcCompression

        return {
            "compression": GrpcCompression.Gzip if gzip else GrpcCompression.NoCompression,
            "credentials": _grpc_credentials(signal),
            # A scheme takes precedence over the variable INSECURE.
            "insecure": otlp_setting(signal, "ENDPOINT").startswith("http://") or None,
            # Otherwise a new channel inherits the reconnect backoff of the closed one.
            "channel_options": (("grpc.use_local_subchannel_pool", 1),),
        }
    from opentelemetry.exporter.otlp.proto.http import Compression as HttpCompression

    options = {"compression": HttpCompression.Gzip if gzip else HttpCompression.NoCompression}
    if _credential_provider("HTTP", signal):
        return options  # the provider makes the session
    return options | {"session": _patient_session(otlp_timeout(signal))}


def _try_until_time_out(
    connection: GrpcConnection, request: Any, timeout: float, options: dict[str, Any]
) -> Any:
    """Resend a request that fails with UNAVAILABLE, until the time-out.

    gRPC's "Wait for Ready" is not enough: it fails while the Collector's name cannot be resolved,
    such as the name of a stopped container, or waits minutes for the next resolution. A new channel
    resolves the name at once.
    """
    import grpc

    ends = time.monotonic() + timeout
    pause = FIRST_PAUSE_SECONDS
    while True:
        try:
            return connection.send(request, timeout=ends - time.monotonic(), **options)
        except grpc.RpcError as error:
            delay = pause * random.uniform(0.8, 1.2)
            details = {one.key for one in error.trailing_metadata() or ()}
            if (
                error.code() is not grpc.StatusCode.UNAVAILABLE
                or "google.rpc.retryinfo-bin" in details
                or delay >= ends - time.monotonic()
                or connection.wait(delay)
            ):
                raise  # the exporter handles it
        connection.renew()
        pause = min(2 * pause, RECONNECT_SECONDS)


def _patient_session(seconds: float) -> Any:
    """A session that keeps trying to connect for this time.

    It does not resend a request that the Collector has received: the exporter does that.
    """
    import requests
    from requests.adapters import HTTPAdapter
    from urllib3.util import Retry

    class TelemetryRetry(Retry):
        of_telemetry = True

    logging.getLogger("urllib3.connectionpool").addFilter(_is_wanted)
    retries = TelemetryRetry(
        total=None,
        connect=int(seconds / RECONNECT_SECONDS) + 3,  # the first pauses are shorter
        read=0,
        status=0,
        other=0,
        backoff_factor=0.5,
        backoff_max=RECONNECT_SECONDS,
    )

    class TelemetrySession(requests.Session):
        process = 0

        def get_adapter(self, url: str) -> Any:
            if self.process != os.getpid():  # also after a fork: two cannot use one connection
                self.process = os.getpid()
                for scheme in ("http://", "https://"):
                    self.mount(scheme, HTTPAdapter(max_retries=retries))
            return super().get_adapter(url)

    return TelemetrySession()


def _is_wanted(record: logging.LogRecord) -> bool:
    """Drop urllib3's warnings of our further attempts to connect: `Delivery` logs once."""
    arguments = record.args if isinstance(record.args, tuple) else ()
    ours = any(getattr(type(one), "of_telemetry", False) for one in arguments)
    # See `_QUIET` in providers.py: OTEL_LOG_LEVEL=info shows each attempt.
    return not ours or logging.getLogger("opentelemetry.exporter").isEnabledFor(record.levelno)


def _grpc_credentials(signal: Signal) -> Any | None:
    """Credentials from the files that the three variables name, general or per signal."""
    from grpc import ssl_channel_credentials

    files = [
        otlp_setting(signal, name) for name in ("CERTIFICATE", "CLIENT_KEY", "CLIENT_CERTIFICATE")
    ]
    if not any(files) or _credential_provider("GRPC", signal):
        return None  # the exporter uses the system's authorities, or the provider's credentials
    return ssl_channel_credentials(*(Path(file).read_bytes() if file else None for file in files))


def _credential_provider(transport: str, signal: Signal) -> bool:
    prefix = f"OTEL_PYTHON_EXPORTER_OTLP_{transport}"
    names = f"{prefix}_CREDENTIAL_PROVIDER", f"{prefix}_{signal.upper()}_CREDENTIAL_PROVIDER"
    return any(os.environ.get(name) for name in names)


def _load(path: str) -> Any:
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)
