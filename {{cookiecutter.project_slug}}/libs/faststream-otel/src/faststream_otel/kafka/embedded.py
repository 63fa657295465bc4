"""An embedded Kafka for development and tests: librdkafka's mock cluster, served over TCP."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

# `list_topics` imports it when first called, and makes an ImportError of a Ctrl-C just then.
import confluent_kafka.admin  # noqa: F401
from confluent_kafka import Producer


@contextmanager
def embedded_kafka(topics: Iterable[str] = ()) -> Iterator[str]:
    """Serve a one-node Kafka on a free port of 127.0.0.1 and yield its address, "host:port".

    Groups, offsets, headers and batches work as on a real broker. It differs in this: it keeps
    nothing, makes a topic (4 partitions) as soon as somebody asks for it, knows no admin requests,
    checks no message size, and the first join of a group takes 3 s.

    Args:
        topics: To make at once, rather than when they are first asked for.

    Raises:
        confluent_kafka.KafkaException: The cluster did not answer within 10 s.
    """
    # A client is what librdkafka hangs its mock cluster on; the cluster lives as long as it does.
    owner = Producer({"test.mock.num.brokers": 1, "log_level": 2})
    try:
        (broker,) = owner.list_topics(timeout=10).brokers.values()
        for topic in topics:
            owner.list_topics(topic, timeout=10)
        yield f"{broker.host}:{broker.port}"
    finally:
        del owner
