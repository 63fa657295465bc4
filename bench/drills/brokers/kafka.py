"""Kafka: reads topics and committed offsets, and sends messages. An id is `partition/offset`."""

import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from functools import partial
from typing import Any

from confluent_kafka import (
    Consumer,
    ConsumerGroupTopicPartitions,
    KafkaError,
    KafkaException,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from ..accounting import Position, Record, Unread
from ..channels import Ends, Message
from ..flow import CONSUMERS, group

TIMEOUT_SECONDS = 20.0
QUIET = {"log_level": 2}  # drills stop the broker on purpose: its client need not warn

WITHOUT_LEADER = {
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.OFFSET_NOT_AVAILABLE,
}


class InKafka:
    """See `Channels`. It reads nothing but topics, and joins no group."""

    def __init__(self, address: str) -> None:
        self.address = address

    def prepare(self) -> None:
        """Topics are read without preparation."""

    def ends(self) -> dict[tuple[str, str], int]:
        with closing(self._consumer()) as consumer:
            return {
                (topic, str(partition)): _asked(
                    consumer.get_watermark_offsets, TopicPartition(topic, partition)
                )[1]
                for topic, partition in self._partitions(consumer)
            }

    def read(self, since: Ends) -> list[Record]:
        with closing(self._consumer()) as consumer:
            partitions = self._partitions(consumer)
            consumer.assign(
                [
                    TopicPartition(topic, partition, since.get((topic, str(partition)), 0))
                    for topic, partition in partitions
                ]
            )
            unfinished = set(partitions)
            records = []
            while unfinished:
                messages = _asked(consumer.consume, num_messages=1000, timeout=TIMEOUT_SECONDS)
                if not messages:
                    raise OSError(f"{self.address} sends no more records of {sorted(unfinished)}")
                for message in messages:
                    if error := message.error():
                        if error.code() != KafkaError._PARTITION_EOF:
                            raise OSError(str(error))
                        unfinished.discard((message.topic(), message.partition()))
                    else:
                        records.append(_record(message))
            return records

    def unread(self) -> Unread:
        # First what is committed, then the ends: what followed from a committed message is seen.
        committed = self._committed()
        return {
            one: end - committed.get(one, 0)
            for one, end in self.ends().items()
            if one[0] in CONSUMERS
        }

    def _committed(self) -> dict[tuple[str, str], int]:
        """Return of each consumed partition the offset that its group will read next."""
        found: dict[tuple[str, str], int] = {}
        admin = self._admin()
        for topic in CONSUMERS:
            (answer,) = admin.list_consumer_group_offsets(
                [ConsumerGroupTopicPartitions(group(topic))], request_timeout=TIMEOUT_SECONDS
            ).values()
            for one in _asked(answer.result).topic_partitions:
                if one.offset >= 0:
                    found[one.topic, str(one.partition)] = one.offset
        return found

    def create(self, names: Iterable[str], partitions: int = 3) -> None:
        wanted = [NewTopic(name, partitions, 1) for name in names]
        admin = self._admin()  # once it is gone, what it was asked for is cancelled
        for created in admin.create_topics(wanted).values():
            try:
                created.result(TIMEOUT_SECONDS)
            except KafkaException as error:
                if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                    raise OSError(str(error)) from error

    def carries(self, message: Message) -> bool:
        return True

    def id_of(self, attributes: Mapping[str, Any]) -> str:
        try:
            partition = attributes["messaging.destination.partition.id"]
            return f"{partition}/{attributes['messaging.kafka.offset']}"
        except KeyError:
            return ""

    def send(self, messages: Sequence[Message], compression: str = "none") -> list[Position]:
        producer = Producer(
            {
                "bootstrap.servers": self.address,
                "message.max.bytes": 4 << 20,
                "compression.type": compression,
                "acks": "all",
                **QUIET,
            }
        )
        positions: dict[int, Position] = {}
        failures: list[str] = []

        def delivered(number: int, error: Any, message: Any) -> None:
            if error:
                failures.append(str(error))
            else:
                positions[number] = message.topic(), _id(message)

        for number, message in enumerate(messages):
            options: dict[str, Any] = {}
            if message.at is not None:
                options["timestamp"] = round(message.at * 1000)
            if message.partition is not None:
                options["partition"] = message.partition
            producer.produce(
                message.channel, message.value, message.key, headers=[*message.headers],
                on_delivery=partial(delivered, number), **options,
            )  # fmt: skip
            producer.poll(0)
        left = producer.flush(TIMEOUT_SECONDS)
        if failures or left:
            raise OSError(f"{left} messages were not delivered; {failures[:1]}")
        return [positions[number] for number in range(len(messages))]

    def _consumer(self) -> Consumer:
        return Consumer(
            {
                "bootstrap.servers": self.address,
                "group.id": "drills",  # required, but it neither joins nor commits
                "enable.auto.commit": False,
                "auto.offset.reset": "error",
                "enable.partition.eof": True,
                **QUIET,
            }
        )

    def _admin(self) -> AdminClient:
        return AdminClient({"bootstrap.servers": self.address, **QUIET})

    def _partitions(self, consumer: Consumer) -> list[tuple[str, int]]:
        topics: Mapping[str, Any] = _asked(consumer.list_topics).topics
        return [
            (name, partition)
            for name, topic in topics.items()
            if not name.startswith("_")
            for partition in topic.partitions
        ]


def _id(message: Any) -> str:
    return f"{message.partition()}/{message.offset()}"


def _record(message: Any) -> Record:
    headers = message.headers() or []
    return Record(
        message.topic(),
        _id(message),
        message.timestamp()[1] / 1000,
        message.value() or b"",
        {name: (value or b"").decode(errors="replace") for name, value in headers},
        message.key(),
        headers,
        str(message.partition()),
    )


def _asked(ask: Any, *arguments: Any, **options: Any) -> Any:
    """Call the client library, whose errors become OSError. Wait for a partition's new leader."""
    options.setdefault("timeout", TIMEOUT_SECONDS)
    until = time.monotonic() + TIMEOUT_SECONDS
    while True:
        try:
            return ask(*arguments, **options)
        except KafkaException as error:
            if error.args[0].code() not in WITHOUT_LEADER or time.monotonic() > until:
                raise OSError(str(error)) from error
        time.sleep(0.2)
