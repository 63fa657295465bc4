"""Is what the other boards show complete? Every place where telemetry can get lost."""

from grafana_foundation_sdk.builders import stat, timeseries
from grafana_foundation_sdk.models.dashboard import Dashboard

from ..board import Row
from ..board import board as board_with
from ..panels import (
    BYTES,
    COUNT,
    GREEN,
    ORANGE,
    PER_SECOND,
    RED,
    SHARE,
    instant,
    series,
    single,
    time_series,
)
from ..promql import ENVIRONMENT, RANGE, SERVICE, SPARSE, rate, select, total

SIGNALS = {"spans": "spans", "log_records": "log records", "metric_points": "metric points"}
NOT_SCRAPED = "The Collector is not scraped"
NO_RULES = "The recording rules are not loaded"
NO_SDK = "No SDK reports it: see OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED"


REFUSED = "telemetry:refused:rate5m"
TAKEN = "telemetry:taken:rate5m"
"""Which of its metrics counts spans, the rules of each trace backend know."""
LOST = "telemetry:lost:increase10m"
"""What the alert TelemetryLost reads; each place where something can get lost has its rule."""


def board() -> Dashboard:
    return board_with(
        "telemetry",
        "Telemetry",
        "Is what I see complete? Follows traces, metrics and logs from the services through the"
        " Collector to the stores.",
        Row(7, [whole(), losses()], [6, 18]),
        Row(7, [sdk_exports(), sdk_queues(), scrapes(), services()]),
        Row(7, [accepted(), refused(), sent(), queues()]),
        Row(7, [trace_store(), log_store(), metric_store()]),
        Row(7, [series_kept(), size(), disk()]),
        Row(7, [memory(), restarts(), alerting()]),
    )


def whole() -> stat.Panel:
    lost = f"(sum(max_over_time({LOST}[{RANGE}])) or vector(0))"
    return single(
        "Telemetry is",
        "Whole: every scraped target answers, and no span, log record or metric point was lost in"
        " the time range. Otherwise the panels here say where.",
        COUNT,
        # Nothing is known without the rules, of which one always has an answer.
        instant(
            f'min(up{{job!="grafana"}}) * ({lost} == bool 0) and on () count({REFUSED})', "state"
        ),
        empty="unknown: nothing is scraped, or the rules are not loaded",
        words={"1": ("whole", GREEN), "0": ("incomplete", RED)},
    )


def losses() -> timeseries.Panel:
    return time_series(
        "Lost within ten minutes",
        "Spans, log records and metric points that were lost, by where and why.",
        COUNT,
        series(f"{LOST} > 0", "{{signal}}, {{stage}} {{service_name}}{{exporter}}, {{reason}}"),
        empty="Nothing was lost in this time range",
    )


def sdk_queues() -> timeseries.Panel:
    return time_series(
        "SDK: queue fill",
        "Fill level of the queues that hold a service's telemetry until it is exported. A full"
        " queue drops the oldest.",
        SHARE,
        *(
            series(
                f"max by (service_name) ({_sdk(f'processor_{signal}_queue_size')}"
                f" / {_sdk(f'processor_{signal}_queue_capacity')})",
                f"{{{{service_name}}}}, {signal}s",
            )
            for signal in ("span", "log")
        ),
        empty=NO_SDK,
        thresholds=[(0.8, RED)],
        most=1,
    )


def sdk_exports() -> timeseries.Panel:
    return time_series(
        "SDK: exported",
        "Spans and log records that services hand to the Collector per second.",
        PER_SECOND,
        *(
            series(
                total(rate(_sdk(f"exporter_{signal}_exported_total"), SPARSE), "service_name"),
                f"{{{{service_name}}}}, {signal}s",
            )
            for signal in ("span", "log")
        ),
        empty=NO_SDK,
    )


def accepted() -> timeseries.Panel:
    return time_series(
        "Collector: accepted",
        "What the Collector takes in per second.",
        PER_SECOND,
        *(
            series(f"sum({rate(f'otelcol_receiver_accepted_{signal}')})", name)
            for signal, name in SIGNALS.items()
        ),
        empty=NOT_SCRAPED,
    )


def refused() -> timeseries.Panel:
    return time_series(
        "Collector: refused",
        "What the Collector refused for lack of memory. Senders that retry lose nothing.",
        PER_SECOND,
        series(f"{REFUSED} > 0", "{{signal}}, {{receiver}}"),
        empty="Nothing was refused in this time range",
    )


def sent() -> timeseries.Panel:
    return time_series(
        "Collector: sent",
        "What the Collector hands to the stores per second, by exporter.",
        PER_SECOND,
        *(
            series(
                total(rate(f"otelcol_exporter_sent_{signal}"), "exporter"),
                f"{name} → {{{{exporter}}}}",
            )
            for signal, name in SIGNALS.items()
        ),
        empty=NOT_SCRAPED,
    )


def queues() -> timeseries.Panel:
    return time_series(
        "Collector: queue fill",
        "How full each exporter's queue is. It fills while a store is down and drains when it is"
        " back; a full queue loses what arrives next.",
        SHARE,
        series(
            "max by (exporter) (otelcol_exporter_queue_size / otelcol_exporter_queue_capacity)",
            "{{exporter}}",
        ),
        empty=NOT_SCRAPED,
        thresholds=[(0.8, RED)],
        most=1,
    )


def memory() -> timeseries.Panel:
    return time_series(
        "Memory of the stack",
        "Memory of the Collector and the stores (resident set).",
        BYTES,
        series("sum(otelcol_process_memory_rss)", "otel-collector"),
        series(total('process_resident_memory_bytes{job!="services"}', "job"), "{{job}}"),
        empty=NOT_SCRAPED,
    )


def restarts() -> timeseries.Panel:
    started = select("process_start_time_seconds", 'job!="services"')
    return time_series(
        "Restarts of the stack",
        "How often the Collector and the stores were restarted within half an hour.",
        COUNT,
        series(
            f"max by (job) (changes({started}[30m]) or resets(otelcol_process_uptime[30m]))",
            "{{job}}",
        ),
        empty="Nothing is scraped",
    )


def disk() -> timeseries.Panel:
    return time_series(
        "Free disk",
        "The free share of the disk that holds the Collector's queue: with Docker, the disk of all"
        " volumes.",
        SHARE,
        series("disk:free:ratio", "{{device}}"),
        empty=f"{NOT_SCRAPED}, or it does not measure the disk",
        thresholds=[(0.05, RED), (0.15, ORANGE)],
        most=1,
    )


def alerting() -> timeseries.Panel:
    failures = "prometheus_rule_evaluation_failures_total"
    return time_series(
        "Alerting: failures within ten minutes",
        "Rules that could not be evaluated, and alerts that could not be sent to Alertmanager.",
        COUNT,
        series(f"sum by (rule_group) (increase({failures}[10m])) > 0", "{{rule_group}}"),
        series(
            "sum by (alertmanager) (increase(prometheus_notifications_errors_total[10m])) > 0",
            "not sent to {{alertmanager}}",
        ),
        empty="No rule failed and no alert was lost in this time range",
    )


def trace_store() -> timeseries.Panel:
    return time_series(
        "Trace store: spans taken",
        "Spans that the trace backend accepts per second, by its own count.",
        PER_SECOND,
        series(TAKEN, "{{stage}}"),
        empty="The trace backend is not scraped",
    )


def log_store() -> timeseries.Panel:
    return time_series(
        "Log store: lines taken",
        "Log records that Loki accepts per second.",
        PER_SECOND,
        series(f"sum({rate('loki_distributor_lines_received_total')})", "taken"),
        empty="Loki is not scraped",
    )


def metric_store() -> timeseries.Panel:
    return time_series(
        "Metric store: samples taken",
        "Samples that Prometheus ingests per second, scraped and pushed.",
        PER_SECOND,
        series(f"sum({rate('prometheus_tsdb_head_samples_appended_total')})", "taken"),
        empty="Prometheus is not scraped",
    )


def series_kept() -> timeseries.Panel:
    return time_series(
        "Metric store: series",
        "Series that Prometheus has in memory. Restarts, retries and new ids must not add any.",
        COUNT,
        series("sum(prometheus_tsdb_head_series)", "series"),
        empty="Prometheus is not scraped",
    )


def size() -> timeseries.Panel:
    return time_series(
        "Metric store: size",
        "The size of Prometheus's data, as a share of its limit. Beyond the limit, the oldest data"
        " is deleted early.",
        SHARE,
        series("prometheus:size:ratio", "size"),
        empty=f"{NO_RULES}, or the size has no limit",
        thresholds=[(0.8, ORANGE)],
        most=1,
    )


def services() -> timeseries.Panel:
    return time_series(
        "Services scraped",
        "Service instances that answer Prometheus, without the lag exporters.",
        COUNT,
        series("services:scraped:count", "instances"),
        empty=NO_RULES,
    )


def scrapes() -> timeseries.Panel:
    return time_series(
        "Scraped targets that answer",
        "The share of each job's targets that Prometheus reaches.",
        SHARE,
        series("avg by (job) (up)", "{{job}}"),
        empty="Nothing is scraped",
        most=1,
    )


def _sdk(metric: str) -> str:
    return select(f"otel_sdk_{metric}", SERVICE, ENVIRONMENT)
