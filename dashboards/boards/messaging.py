"""Per destination and consumer group: what goes in, what comes out, what waits, what fails."""

from grafana_foundation_sdk.builders import heatmap, timeseries
from grafana_foundation_sdk.models.dashboard import Dashboard

from ..board import Row
from ..board import board as board_with
from ..panels import (
    BYTES,
    COUNT,
    NO_SPAN_METRICS,
    PER_SECOND,
    SECONDS,
    counts,
    heat_map,
    series,
    time_series,
)
from ..promql import (
    CALLS,
    DESTINATION,
    DURATION,
    ENVIRONMENT,
    EVERYTHING_CHOSEN,
    FAILED,
    WINDOW,
    grown,
    quantile,
    rate,
    select,
    total,
)

CHANNEL = "messaging_destination_template"
GROUP = "messaging_consumer_group_name"

BY_CHANNEL = "{{messaging_destination_template}}"
BY_GROUP = "{{messaging_destination_template}} → {{messaging_consumer_group_name}}"

NO_TROUBLE = "None in this time range"
NO_ERRORS = NO_SPAN_METRICS.replace("No traffic", "None")


def board() -> Dashboard:
    return board_with(
        "messaging",
        "Messaging",
        "Is every published message processed, how soon, and which ones are not?",
        Row(8, [published(), consumed()]),
        Row(8, [lag(), waiting()]),
        Row(8, [processing(), in_process()]),
        Row(8, [waiting_heat_map(), processing_outcomes()]),
        Row(7, [retries(), dead_letters(), errors(), size()]),
        Row(6, [broker(), copies_missing()]),
    )


def chosen(metric: str, *more: str) -> str:
    return select(metric, *EVERYTHING_CHOSEN, *more)


def published() -> timeseries.Panel:
    return time_series(
        "Published",
        "Messages that services published per second, by destination and outcome.",
        PER_SECOND,
        series(
            total(rate(chosen("faststream_published_messages_total")), CHANNEL, "status"),
            f"{BY_CHANNEL}, {{{{status}}}}",
        ),
    )


def consumed() -> timeseries.Panel:
    return time_series(
        "Consumed",
        "Messages received per second, by destination and consumer group; each group gets all.",
        PER_SECOND,
        series(
            total(rate(chosen("messaging_receive_delay_seconds_count")), CHANNEL, GROUP), BY_GROUP
        ),
    )


def lag() -> timeseries.Panel:
    return time_series(
        "Lag",
        "Messages that a consumer group has not acknowledged. A line that only rises is a group"
        " that does not keep up or is not running.",
        COUNT,
        series(total(chosen("messaging_consumer_lag"), CHANNEL, GROUP), BY_GROUP),
        empty="No lag is known: is the broker up, and the lag exporter?",
    )


def waiting() -> timeseries.Panel:
    return time_series(
        "Time in the channel, 95th percentile",
        "From publication to receipt, by destination and consumer group.",
        SECONDS,
        series(
            quantile(0.95, chosen("messaging_receive_delay_seconds_bucket"), CHANNEL, GROUP),
            BY_GROUP,
        ),
    )


def waiting_heat_map() -> heatmap.Panel:
    return heat_map(
        "Time in the channel",
        "Messages, by how long they waited between publication and receipt.",
        series(
            total(f"increase({chosen('messaging_receive_delay_seconds_bucket')}[{WINDOW}])", "le"),
            "{{le}}",
        ),
    )


def processing() -> timeseries.Panel:
    spans = chosen(DURATION, 'messaging_operation_type="process"')
    return time_series(
        "Processing time, 95th percentile",
        "From receipt until the results are published, retries included, by destination and"
        " consumer group; a batch counts once. A dot is a sample: it leads to its trace.",
        SECONDS,
        series(quantile(0.95, spans, CHANNEL, GROUP), BY_GROUP, exemplars=True),
        empty=NO_SPAN_METRICS,
    )


def in_process() -> timeseries.Panel:
    spent = chosen("faststream_received_processed_messages_duration_seconds_sum")
    return time_series(
        "In process",
        "Messages being handled at the same time: the average, computed from processing times, and"
        " the number at each scrape, which includes those that never end.",
        COUNT,
        series(total(rate(spent), CHANNEL), f"{BY_CHANNEL}, on average"),
        series(
            total(chosen("faststream_received_messages_in_process"), CHANNEL), f"{BY_CHANNEL}, now"
        ),
    )


def processing_outcomes() -> timeseries.Panel:
    return time_series(
        "Processed, by outcome",
        "Messages that handlers finished per second, by outcome.",
        PER_SECOND,
        series(
            total(rate(chosen("faststream_received_processed_messages_total")), CHANNEL, "status"),
            f"{BY_CHANNEL}, {{{{status}}}}",
        ),
    )


def size() -> timeseries.Panel:
    return time_series(
        "Payload size, 95th percentile",
        "Size of a received message's body, in bytes; a batch counts as one message.",
        BYTES,
        series(
            quantile(0.95, chosen("faststream_received_messages_size_bytes_bucket"), CHANNEL),
            BY_CHANNEL,
        ),
    )


def retries() -> timeseries.Panel:
    return counts(
        "Retries",
        "Attempts beyond the first, by destination. A message whose last attempt fails goes to the"
        " dead letters.",
        series(total(grown(chosen("messaging_retries_total")), CHANNEL), BY_CHANNEL),
        empty=NO_TROUBLE,
    )


def dead_letters() -> timeseries.Panel:
    return counts(
        "Dead letters",
        "Messages sent to the dead letters, by their channel and the type of their error.",
        series(
            total(grown(chosen("messaging_dead_letters_total")), CHANNEL, "error_type"),
            f"{BY_CHANNEL}, {{{{error_type}}}}",
        ),
        empty=NO_TROUBLE,
    )


def broker() -> timeseries.Panel:
    up = select("messaging_broker_up", ENVIRONMENT)
    return time_series(
        "Broker answers",
        "1 while the broker answers the lag exporter, 0 while it does not.",
        COUNT,
        series(
            f"max by (deployment_environment_name, messaging_system) ({up})",
            "{{messaging_system}} {{deployment_environment_name}}",
        ),
        empty="The lag exporter is not scraped",
        most=1,
    )


def copies_missing() -> timeseries.Panel:
    missing = select("channel:replicas_missing:sum", DESTINATION, ENVIRONMENT)
    return time_series(
        "Copies missing",
        "Configured replicas of a channel that are missing or behind, summed over its partitions.",
        COUNT,
        series(total(missing, CHANNEL), BY_CHANNEL),
        empty="The broker does not report replicas, or the recording rules are not loaded",
    )


def errors() -> timeseries.Panel:
    # FastStream's own counter of exceptions misses those that a middleware turned into a retry.
    failed = chosen(CALLS, 'messaging_operation_type="process"', FAILED)
    return counts(
        "Errors, by type",
        "Messages, or batches, whose processing failed for good, by the type of the exception.",
        series(total(grown(failed), CHANNEL, "error_type"), f"{BY_CHANNEL}, {{{{error_type}}}}"),
        empty=NO_ERRORS,
    )
