"""The pieces that the boards' PromQL is made of."""

SERVICE = 'service_name=~"$service"'
DESTINATION = 'messaging_destination_template=~"$destination"'
ENVIRONMENT = 'deployment_environment_name=~"$environment"'
EVERYTHING_CHOSEN = (SERVICE, DESTINATION, ENVIRONMENT)
"""What "All" stands for, `.*`, also matches series that lack the label."""

FAILED = 'status_code="STATUS_CODE_ERROR"'
ENTRY = 'span_kind=~"SPAN_KIND_(SERVER|CONSUMER)"'
"""Work that reached a service; what it did about it is in the spans below."""

WINDOW = "$__rate_interval"
STEP = "$__interval"
RANGE = "$__range"
SPARSE = "5m"
"""For what services send over OTLP: once a minute by default, and a rate needs several samples."""

ROUTE = ("service_name", "http_request_method", "http_route")
"""The labels of an HTTP route."""

CALLS = "traces_span_metrics_calls_total"
DURATION = "traces_span_metrics_duration_seconds_bucket"


def select(metric: str, *matchers: str) -> str:
    return f"{metric}{{{', '.join(matchers)}}}" if matchers else metric


def rate(selector: str, window: str = WINDOW) -> str:
    return f"rate({selector}[{window}])"


def grown(selector: str, window: str = STEP) -> str:
    """By how much a counter of rare events grew.

    `increase` alone misses the first event: a counter that is born with it never shows a zero. One
    that was there within the hour before was not born but missed for a while.
    """
    before = f"last_over_time({selector}[1h] offset {window})"
    return f"(({selector} unless {before}) or increase({selector}[{window}]))"


def total(expr: str, *labels: str) -> str:
    return f"sum by ({', '.join(labels)}) ({expr})"


def share(part: str, whole: str) -> str:
    """The part of a whole: 0 without a part, no answer without a whole."""
    return f"({part} or 0 * {whole}) / ({whole} > 0)"


def quantile(q: float, buckets: str, *labels: str, window: str = WINDOW) -> str:
    return f"histogram_quantile({q}, {total(rate(buckets, window), 'le', *labels)})"
