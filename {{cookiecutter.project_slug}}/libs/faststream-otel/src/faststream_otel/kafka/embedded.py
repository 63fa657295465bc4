"""An embedded Kafka for development and tests: librdkafka's mock cluster, served over TCP."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

# `list_topics` imports it on the first call, and would turn a Ctrl-C during that into ImportError.
import confluent_kafka.admin  # noqa: F401
from confluent_kafka import Producer


@contextmanager
def embedded_kafka(topics: Iterable[str] = ()) -> Iterator[str]:
    """Serve a one-node Kafka on a free port of 127.0.0.1 and yield its address, "host:port".

    Groups, offsets, headers and batches work as on a real broker. The differences: it stores
    nothing on disk, creates a topic (4 partitions) at the first request for it, supports no admin
    requests, checks no message size, and the first join of a group takes 3 s.

    Args:
        topics: Topics to create at once.

    Raises:
        confluent_kafka.KafkaException: The cluster did not answer within 10 s.
    """
    # librdkafka's mock cluster belongs to a client, and exists as long as the client does.
    owner = Producer({"test.mock.num.brokers": 1, "log_level": 2})
    try:
        (broker,) = owner.list_topics(timeout=10).brokers.values()
        for topic in topics:
            owner.list_topics(topic, timeout=10)
        yield f"{broker.host}:{broker.port}"
    finally:
        del owner
