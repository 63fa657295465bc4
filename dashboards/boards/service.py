"""One service in depth; with several chosen, they stand beside each other."""

from grafana_foundation_sdk.builders import logs, prometheus, table, timeseries
from grafana_foundation_sdk.models.dashboard import Dashboard

from .. import red
from ..board import Row
from ..board import board as board_with
from ..panels import (
    BYTES,
    COUNT,
    PER_SECOND,
    SECONDS,
    SHARE,
    joined_table,
    log_lines,
    series,
    time_series,
)
from ..promql import (
    ENVIRONMENT,
    EVERYTHING_CHOSEN,
    RANGE,
    ROUTE,
    SERVICE,
    SPARSE,
    quantile,
    rate,
    select,
    share,
    total,
)
from ..tracestore import TraceStore

HANDLER = ("service_name", "handler")
BY_ROUTE = "{{service_name}} {{http_request_method}} {{http_route}}"
STATUS = "http_response_status_code"
INSTANCE = "{{service_name}} {{short}}"

NO_HTTP = "No HTTP request in this time range, or the service does not measure them"
NO_RUNTIME = "The service sends no metrics over OTLP: see OTEL_METRICS_EXPORTER"


def board(store: TraceStore) -> Dashboard:
    return board_with(
        "service",
        "Service",
        "How is one service doing: its requests and handlers, its logs beside its traces, its"
        " process? Choose the service above.",
        Row(7, red.by("service_name")),
        Row(7, [requests(), request_errors(), request_durations()]),
        Row(8, [handlers()]),
        Row(12, [store.traces_of_service(), logs_of_service()]),
        Row(7, [instances(), cpu(), memory(), loop_delay(), garbage()], [4, 5, 5, 5, 5]),
        extra_variables=store.variables(),
    )


def requests() -> timeseries.Panel:
    return _http(
        "HTTP: rate",
        "Requests per second, by route and status.",
        PER_SECOND,
        series(
            total(rate(_answered("count"), SPARSE), *ROUTE, STATUS),
            f"{BY_ROUTE}, {{{{{STATUS}}}}}",
        ),
    )


def request_errors() -> timeseries.Panel:
    failed = total(rate(_answered("count", f'{STATUS}=~"5.."'), SPARSE), *ROUTE)
    return _http(
        "HTTP: errors",
        "The share of requests answered with a server error (5xx), by route.",
        SHARE,
        series(share(failed, total(rate(_answered("count"), SPARSE), *ROUTE)), BY_ROUTE),
    )


def request_durations() -> timeseries.Panel:
    return _http(
        "HTTP: duration, 95th percentile",
        "95 % of the requests took no longer than this, by route and status. A dot is"
        " a sample: it leads to its trace.",
        SECONDS,
        series(
            quantile(0.95, _answered("bucket"), *ROUTE, STATUS, window=SPARSE),
            f"{BY_ROUTE}, {{{{{STATUS}}}}}",
            exemplars=True,
        ),
    )


def handlers() -> table.Panel:
    done = total(rate(_received("faststream_received_processed_messages_total"), RANGE), *HANDLER)
    failed = total(
        rate(_received("faststream_received_processed_messages_total", 'status!="acked"'), RANGE),
        *HANDLER,
    )
    durations = _received("faststream_received_processed_messages_duration_seconds_bucket")
    return joined_table(
        "Handlers",
        "What each handler of the service did in the time range. Not acked: the handler rejected"
        " the message, requeued it or failed.",
        {"service_name": "Service", "handler": "Handler of"},
        {
            "Processed": (PER_SECOND, done),
            "Median": (SECONDS, quantile(0.5, durations, *HANDLER, window=RANGE) + " >= 0"),
            "95th percentile": (
                SECONDS,
                quantile(0.95, durations, *HANDLER, window=RANGE) + " >= 0",
            ),
            "Not acked": (SHARE, share(failed, done)),
        },
        empty="The service has handled no message in this time range",
        sort_by="Processed",
    )


def logs_of_service() -> logs.Panel:
    return log_lines(
        "Logs",
        "What the service logged. Open a line: its trace id leads to its trace.",
        '{service_name=~".+", service_name=~"$service"}'
        ' | deployment_environment_name=~"$environment"',
        empty="The service has logged nothing in this time range",
    )


def instances() -> timeseries.Panel:
    started = _process_metric("process_start_time_seconds", 'job="services"')
    return time_series(
        "Instances and restarts",
        "Instances that answer Prometheus, and the most restarts of any of them in half an hour.",
        COUNT,
        series(
            total(_process_metric("service:instances:count"), "service_name"), "{{service_name}}"
        ),
        series(f"max by (service_name) (changes({started}[30m]))", "{{service_name}}, restarts"),
        empty="Prometheus does not scrape the service, or the recording rules are not loaded",
    )


def cpu() -> timeseries.Panel:
    return _process(
        "CPU",
        "CPU cores in use by one process. A service with one event loop cannot use more than one.",
        COUNT,
        total(
            rate(_process_metric("process_cpu_time_seconds_total"), SPARSE),
            "service_name",
            "instance",
        ),
    )


def memory() -> timeseries.Panel:
    return _process(
        "Memory",
        "Memory of the process (resident set).",
        BYTES,
        total(_process_metric("process_memory_usage_bytes"), "service_name", "instance"),
    )


def loop_delay() -> timeseries.Panel:
    return _process(
        "Event loop delay, 99th percentile",
        "How late the event loop wakes up: handlers that block it make everything else wait.",
        SECONDS,
        quantile(
            0.99, _process_metric("asyncio_eventloop_delay_seconds_bucket"),
            "service_name", "instance", window=SPARSE,
        ),
    )  # fmt: skip


def garbage() -> timeseries.Panel:
    return time_series(
        "Garbage collections",
        "Runs of Python's garbage collector since the process started, by generation; the oldest"
        " generation costs most.",
        COUNT,
        series(
            total(
                _process_metric("cpython_gc_collections_total"),
                "service_name", "cpython_gc_generation",
            ),
            "{{service_name}}, generation {{cpython_gc_generation}}",
        ),
        empty=NO_RUNTIME,
    )  # fmt: skip


def _http(title: str, description: str, unit: str, query: prometheus.Dataquery) -> timeseries.Panel:
    return time_series(title, description, unit, query, empty=NO_HTTP)


def _answered(part: str, *more: str) -> str:
    return select(f"http_server_request_duration_seconds_{part}", SERVICE, ENVIRONMENT, *more)


def _received(metric: str, *more: str) -> str:
    return select(metric, *EVERYTHING_CHOSEN, *more)


def _process_metric(metric: str, *more: str) -> str:
    return select(metric, SERVICE, ENVIRONMENT, *more)


def _process(title: str, description: str, unit: str, expr: str) -> timeseries.Panel:
    expr = f'label_replace({expr}, "short", "$1", "instance", "(.{{0,8}}).*")'
    return time_series(title, description, unit, series(expr, INSTANCE), empty=NO_RUNTIME)
