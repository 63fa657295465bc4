"""What RabbitMQ says of its nodes: whether they accept messages, and reach each other."""

from grafana_foundation_sdk.builders import timeseries
from grafana_foundation_sdk.models.dashboard import Dashboard

from ..board import Row
from ..board import board as board_with
from ..panels import BYTES, COUNT, series, time_series

NOT_SCRAPED = "No node is scraped: see observability/prometheus/scrape.d/rabbitmq.yaml"


def board() -> Dashboard:
    return board_with(
        "rabbitmq",
        "RabbitMQ",
        "Does each node accept messages, is it near its limits, and does it reach the others?",
        Row(8, [alarms(), unreachable()]),
        Row(8, [disk(), memory()]),
    )


def alarms() -> timeseries.Panel:
    return time_series(
        "Alarms",
        "1 while a node is short of memory or disk: then the whole cluster accepts no messages.",
        COUNT,
        series("rabbitmq_alarms_memory_used_watermark", "{{instance}}, memory"),
        series("rabbitmq_alarms_free_disk_space_watermark", "{{instance}}, disk"),
        empty=NOT_SCRAPED,
        most=1,
    )


def unreachable() -> timeseries.Panel:
    return time_series(
        "Nodes out of reach",
        "How many nodes of its cluster a node does not reach. Always 0 for a single node.",
        COUNT,
        series("rabbitmq_unreachable_cluster_peers_count", "{{instance}}"),
        empty=NOT_SCRAPED,
    )


def disk() -> timeseries.Panel:
    return time_series(
        "Free disk",
        "Free bytes on the disk with a node's messages, and the limit below which it raises an"
        " alarm.",
        BYTES,
        series("rabbitmq_disk_space_available_bytes", "{{instance}}"),
        series("rabbitmq_disk_space_available_limit_bytes", "{{instance}}, alarm"),
        empty=NOT_SCRAPED,
    )


def memory() -> timeseries.Panel:
    return time_series(
        "Memory",
        "Bytes that a node uses, and the limit above which it raises an alarm.",
        BYTES,
        series("rabbitmq_process_resident_memory_bytes", "{{instance}}"),
        series("rabbitmq_resident_memory_limit_bytes", "{{instance}}, alarm"),
        empty=NOT_SCRAPED,
    )
