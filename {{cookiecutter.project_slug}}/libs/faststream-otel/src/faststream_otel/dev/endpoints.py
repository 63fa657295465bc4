"""The three services of OTLP: where each is reached, and what it takes and answers."""

from dataclasses import dataclass
from typing import Any

from opentelemetry.proto.collector.logs.v1 import logs_service_pb2
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2

from .model import Signal

_COLLECTOR = "opentelemetry.proto.collector"


@dataclass(frozen=True)
class Endpoint:
    """One service, with one method: Export. `path` is the one of OTLP/HTTP."""

    signal: Signal
    path: str
    grpc_service: str
    request: Any
    response: Any


ENDPOINTS = (
    Endpoint(
        "traces",
        "/v1/traces",
        f"{_COLLECTOR}.trace.v1.TraceService",
        trace_service_pb2.ExportTraceServiceRequest,
        trace_service_pb2.ExportTraceServiceResponse,
    ),
    Endpoint(
        "metrics",
        "/v1/metrics",
        f"{_COLLECTOR}.metrics.v1.MetricsService",
        metrics_service_pb2.ExportMetricsServiceRequest,
        metrics_service_pb2.ExportMetricsServiceResponse,
    ),
    Endpoint(
        "logs",
        "/v1/logs",
        f"{_COLLECTOR}.logs.v1.LogsService",
        logs_service_pb2.ExportLogsServiceRequest,
        logs_service_pb2.ExportLogsServiceResponse,
    ),
)
