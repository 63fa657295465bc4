"""Histogram buckets for durations from milliseconds to seconds."""

from opentelemetry.sdk.metrics.view import ExplicitBucketHistogramAggregation, View

# Messaging semantic conventions 1.44, "Metric: messaging.process.duration": the SDK's own
# boundaries (0, 5, 10 … seconds) put every handler faster than 5 s in one bucket.
DURATION_BOUNDARIES = (
    0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10,
)  # fmt: skip

VIEWS = (
    View(
        instrument_name="otel.sdk.*.duration",
        aggregation=ExplicitBucketHistogramAggregation(DURATION_BOUNDARIES),
    ),
)
