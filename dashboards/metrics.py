"""Every metric that a board shows, with the labels that boards use of it.

The one place to look when a metric is renamed: a test holds the boards to this list, and the tests
of the running stack hold this list to what is scraped.
"""

SERVICE = ["service_name", "service_namespace", "deployment_environment_name"]
CHANNEL = "messaging_destination_template"
GROUP = "messaging_consumer_group_name"


def _named(names: str, *labels: str) -> dict[str, list[str]]:
    return {
        name: [*labels, "le"] if name.endswith("_bucket") else list(labels)
        for name in names.split()
    }


METRICS: dict[str, list[str]] = {
    # The Collector counts spans.
    **_named(
        """
        traces_span_metrics_calls_total
        traces_span_metrics_duration_seconds_bucket
        """,
        *SERVICE, "span_name", "span_kind", "status_code", CHANNEL, GROUP,
        "messaging_operation_type", "error_type",
    ),
    **_named(
        """
        traces_service_graph_request_total
        traces_service_graph_request_failed_total
        traces_service_graph_request_server_seconds_bucket
        """,
        "client", "server", "connection_type",
    ),
    # OpenTelemetry's instrumentation of HTTP servers, over OTLP from the services.
    **_named(
        "http_server_request_duration_seconds_bucket http_server_request_duration_seconds_count",
        *SERVICE, "http_request_method", "http_response_status_code", "http_route",
    ),
    # FastStream's own, scraped from the services.
    **_named("faststream_published_messages_total", *SERVICE, CHANNEL, "status"),
    **_named(
        """
        faststream_received_messages_in_process
        faststream_received_messages_size_bytes_bucket
        faststream_received_processed_messages_duration_seconds_bucket
        faststream_received_processed_messages_duration_seconds_sum
        """,
        *SERVICE, CHANNEL, "handler",
    ),
    **_named(
        "faststream_received_processed_messages_total", *SERVICE, CHANNEL, "handler", "status"
    ),
    # The telemetry package's, scraped from the services.
    **_named(
        "messaging_receive_delay_seconds_bucket messaging_receive_delay_seconds_count",
        *SERVICE, CHANNEL, GROUP,
    ),
    **_named(
        "messaging_flow_duration_seconds_bucket messaging_flow_duration_seconds_count",
        *SERVICE, CHANNEL, "outcome",
    ),
    **_named("messaging_retries_total", *SERVICE, CHANNEL),
    **_named("messaging_dead_letters_total", *SERVICE, CHANNEL, "error_type"),
    # The process and the SDK, over OTLP from the services.
    **_named("process_cpu_time_seconds_total", *SERVICE, "instance", "cpu_mode"),
    **_named("process_memory_usage_bytes", *SERVICE, "instance"),
    **_named("cpython_gc_collections_total", *SERVICE, "instance", "cpython_gc_generation"),
    **_named("asyncio_eventloop_delay_seconds_bucket", *SERVICE, "instance"),
    **_named(
        """
        otel_sdk_processor_log_queue_capacity
        otel_sdk_processor_log_queue_size
        otel_sdk_processor_span_queue_capacity
        otel_sdk_processor_span_queue_size
        """,
        *SERVICE, "instance",
    ),
    **_named(
        """
        otel_sdk_exporter_log_exported_total
        otel_sdk_exporter_span_exported_total
        """,
        *SERVICE, "instance",
    ),
    **_named("process_start_time_seconds", *SERVICE, "job"),
    # The lag exporter's, which asks the broker.
    **_named(
        "messaging_consumer_lag", "service_name", "deployment_environment_name", CHANNEL, GROUP
    ),
    **_named("messaging_broker_up", "deployment_environment_name", "messaging_system"),
    # RabbitMQ's own.
    **_named(
        """
        rabbitmq_alarms_free_disk_space_watermark
        rabbitmq_alarms_memory_used_watermark
        rabbitmq_disk_space_available_bytes
        rabbitmq_disk_space_available_limit_bytes
        rabbitmq_process_resident_memory_bytes
        rabbitmq_resident_memory_limit_bytes
        rabbitmq_unreachable_cluster_peers_count
        """,
        "instance",
    ),
    # The stack watches itself.
    **_named(
        """
        otelcol_receiver_accepted_log_records
        otelcol_receiver_accepted_metric_points
        otelcol_receiver_accepted_spans
        """,
        "receiver", "transport",
    ),
    **_named(
        """
        otelcol_exporter_queue_capacity
        otelcol_exporter_queue_size
        otelcol_exporter_sent_log_records
        otelcol_exporter_sent_metric_points
        otelcol_exporter_sent_spans
        """,
        "exporter",
    ),
    **_named("otelcol_process_memory_rss"),
    **_named("otelcol_process_uptime", "job"),
    **_named("process_resident_memory_bytes", "job"),
    **_named("up", "job", "instance"),
    **_named("prometheus_tsdb_head_samples_appended_total prometheus_tsdb_head_series"),
    **_named("prometheus_rule_evaluation_failures_total", "rule_group"),
    **_named("prometheus_notifications_errors_total", "alertmanager"),
    **_named("loki_distributor_lines_received_total"),
    # Recording rules and what Prometheus says of its alerts.
    **_named("flow:objective:ratio"),
    # Of whole environments: it has no service or channel, and so goes when a board asks for one.
    **_named("flow:ended:usual_rate15m", *SERVICE, CHANNEL),
    **_named("service:instances:count", *SERVICE),
    **_named("services:scraped:count prometheus:size:ratio"),
    **_named("disk:free:ratio", "device"),
    **_named("channel:replicas_missing:sum", "deployment_environment_name", CHANNEL),
    **_named("telemetry:taken:rate5m", "signal", "stage"),
    **_named("telemetry:lost:increase10m", "signal", "stage", "reason"),
    **_named("telemetry:refused:rate5m", "signal", "receiver"),
    **_named("ALERTS", "alertname", "alertstate", "severity"),
}  # fmt: skip
