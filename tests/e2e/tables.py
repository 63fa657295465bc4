"""What has to arrive. The tests walk these tables; a new service or hop is a new row."""

ORDERS = {
    "good": {"amount_cents": 12900, "country": "FI"},
    "declined": {"amount_cents": 100_001, "country": "FI"},
    "failing": {"amount_cents": 12900, "country": "AQ"},
}
"""What is ordered, over and above what all orders have in common."""

EDGES = {
    "good": [
        ("orders: POST /orders", "orders: send orders.placed"),
        ("orders: send orders.placed", "payments: process orders.placed"),
        ("payments: process orders.placed", "payments: authorize card"),
        ("payments: process orders.placed", "payments: send payments.authorized"),
        ("payments: send payments.authorized", "shipping: process payments.authorized"),
        ("shipping: process payments.authorized", "shipping: send shipments.dispatched"),
    ],
    "declined": [
        ("orders: POST /orders", "orders: send orders.placed"),
        ("orders: send orders.placed", "payments: process orders.placed"),
        ("payments: process orders.placed", "payments: authorize card"),
        ("payments: process orders.placed", "payments: send payments.declined"),
    ],
    "failing": [
        ("orders: POST /orders", "orders: send orders.placed"),
        ("orders: send orders.placed", "payments: process orders.placed"),
        ("payments: process orders.placed", "payments: authorize card"),
        ("payments: process orders.placed", "payments: send payments.authorized"),
        ("payments: send payments.authorized", "shipping: process payments.authorized"),
        # Three attempts: the first is the process span itself.
        ("shipping: process payments.authorized", "shipping: retry payments.authorized"),
        ("shipping: process payments.authorized", "shipping: retry payments.authorized"),
        ("shipping: process payments.authorized", "shipping: send dead-letters"),
    ],
}
"""Each trace's edges, parent and child: all of them, so that nothing else may be in it."""

LINKS = {
    "good": ("shipping: send shipments.dispatched", "notifications: process shipments.dispatched"),
    "declined": ("payments: send payments.declined", "notifications: process payments.declined"),
}
"""A batch has many causes: its span links to each instead of having a parent."""

ERRORS = {
    "good": set[str](),
    "declined": set[str](),  # an answer, not an error
    "failing": {
        "shipping: process payments.authorized",
        "shipping: retry payments.authorized",
    },
}

KINDS = {"POST": "SERVER", "send": "PRODUCER", "process": "CONSUMER"}
"""By the first word of the name; all others are INTERNAL."""

LOGGED = [
    ("good", "orders"),
    ("good", "payments"),
    ("good", "shipping"),
    ("failing", "shipping"),
]
"""Which service says something about which order."""

SIGNALS = [
    ("orders", 'traces_span_metrics_calls_total{service_name="orders"}'),
    ("payments", 'traces_span_metrics_calls_total{service_name="payments"}'),
    ("shipping", 'traces_span_metrics_calls_total{service_name="shipping"}'),
    ("notifications", 'traces_span_metrics_calls_total{service_name="notifications"}'),
    ("orders", 'faststream_published_messages_total{app_name="orders"}'),
    ("payments", 'faststream_received_processed_messages_total{app_name="payments"}'),
    ("shipping", 'faststream_received_processed_messages_total{app_name="shipping"}'),
    ("notifications", 'faststream_received_processed_messages_total{app_name="notifications"}'),
    # The Collector pairs what Kafka keeps apart.
    ("payments", 'traces_service_graph_request_total{client="orders",server="payments"}'),
    ("shipping", 'traces_service_graph_request_total{client="payments",server="shipping"}'),
    # The stack watches itself.
    ("otel-collector", "otelcol_exporter_sent_spans"),
]
"""Which service must show which series; each has to be above zero."""

DURATIONS = 'traces_span_metrics_duration_seconds_bucket{service_name="payments"}'

SCRAPED = {"services": 5, "otel-collector": 1, "prometheus": 1, "loki": 1}
"""How many healthy targets each of Prometheus's jobs has, beside the trace store with its one."""
