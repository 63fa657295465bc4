"""Where telemetry goes: exporters as the `OTEL_*` environment variables choose them.

Endpoint and headers (OTEL_EXPORTER_OTLP_* and their per-signal forms) are read by the exporters of
OpenTelemetry; see "OpenTelemetry Protocol Exporter" in its specification. Time-out and compression,
and over gRPC INSECURE and the certificates, they read otherwise than it says: these are read here.

An export waits for a Collector that is away, or over gRPC refuses it, until its time-out. Alone,
the exporters give up a batch after six attempts, which take about half a minute.
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
from .limits import export_in_parts

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
    """Logs once that telemetry cannot be delivered, and once that it can again.

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
                " waits in a bounded queue. Logged once until it recovers.",
                signal,
            )
        elif before and not after:
            logger.info("OpenTelemetry telemetry is exported again.")


def make_exporters(signal: Signal, delivery: Delivery) -> list[Any]:
    """Make those that OTEL_{TRACES,METRICS,LOGS}_EXPORTER names; none for `none`."""
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
    if signal != "traces" or not install_encoder(exporter):  # which sees to it by itself
        _make_encodable(exporter, _ENCODABLE[signal])
    if signal == "traces":
        export_in_parts(exporter)
    return delivery.watch(exporter, signal)


FIRST_PAUSE_SECONDS = 0.5
RECONNECT_SECONDS = 3.0


def _make_encodable(exporter: Any, encodable: Callable[[Any], Any]) -> None:
    """Have an exporter export what its encoder takes, or one odd value loses the whole batch."""
    export: Callable[..., Any] = exporter.export

    def export_encodable(batch: Any, *arguments: Any, **options: Any) -> Any:
        return export(encodable(batch), *arguments, **options)

    exporter.export = export_encodable


def _protocol_options(signal: Signal) -> dict[str, Any]:
    """Arguments of an exporter that differ between the protocols.

    They let it try to connect for as long as its time-out allows; one over gRPC needs
    `_try_until_time_out` too.
    """
    gzip = otlp_setting(signal, "COMPRESSION") == "gzip"
    if otlp_protocol(signal) == "grpc":
        from grpc import Compression as GrpcCompression

        return {
            "compression": GrpcCompression.Gzip if gzip else GrpcCompression.NoCompression,
            "credentials": _grpc_credentials(signal),
            # A scheme decides before the variable INSECURE.
            "insecure": otlp_setting(signal, "ENDPOINT").startswith("http://") or None,
            # A channel that does not share, with one closed before, how long to wait to connect.
            "channel_options": (("grpc.use_local_subchannel_pool", 1),),
        }
    from opentelemetry.exporter.otlp.proto.http import Compression as HttpCompression

    options = {"compression": HttpCompression.Gzip if gzip else HttpCompression.NoCompression}
    if _credential_provider("HTTP", signal):
        return options  # it brings a session of its own
    return options | {"session": _patient_session(otlp_timeout(signal))}


def _try_until_time_out(
    connection: GrpcConnection, request: Any, timeout: float, options: dict[str, Any]
) -> Any:
    """Send again, until the time-out, what is answered UNAVAILABLE.

    A call that waits for a connection (gRPC's "Wait for Ready") would not do: it fails where the
    Collector's name is not known, as that of a container is while it is away, or waits minutes for
    the name to be looked up again. A new channel looks it up at once.
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
                raise  # the exporter goes on from here
        connection.renew()
        pause = min(2 * pause, RECONNECT_SECONDS)


def _patient_session(seconds: float) -> Any:
    """A session that goes on trying to connect for so long; a request that got through is not sent
    again here, that is the exporter's business."""
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
    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(max_retries=retries))
    return session


def _is_wanted(record: logging.LogRecord) -> bool:
    """urllib3 warns of each further attempt to connect; of ours, `Delivery` has said enough."""
    ours = isinstance(record.args, tuple) and getattr(record.args[0], "of_telemetry", False)
    # See `_QUIET` in providers.py: OTEL_LOG_LEVEL=info shows each attempt.
    return not ours or logging.getLogger("opentelemetry.exporter").isEnabledFor(record.levelno)


def _grpc_credentials(signal: Signal) -> Any | None:
    """What the three variables name, each in its general form or the signal's own."""
    from grpc import ssl_channel_credentials

    files = [
        otlp_setting(signal, name) for name in ("CERTIFICATE", "CLIENT_KEY", "CLIENT_CERTIFICATE")
    ]
    if not any(files) or _credential_provider("GRPC", signal):
        return None  # the exporter's own: the system's authorities, or the provider's
    return ssl_channel_credentials(*(Path(file).read_bytes() if file else None for file in files))


def _credential_provider(transport: str, signal: Signal) -> bool:
    prefix = f"OTEL_PYTHON_EXPORTER_OTLP_{transport}"
    names = f"{prefix}_CREDENTIAL_PROVIDER", f"{prefix}_{signal.upper()}_CREDENTIAL_PROVIDER"
    return any(os.environ.get(name) for name in names)


def _load(path: str) -> Any:
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)
