"""`channels` leaves an existing topic as it is, and says if it keeps less than a new one would."""

import asyncio
from uuid import uuid4

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from faststream_otel.kafka import KafkaSettings
from faststream_otel.kafka import broker as module

MESSAGE = 2 * 1_048_576
MONTH = 30 * 86_400_000
AS_NEW = {"retention.ms": str(MONTH), "max.message.bytes": str(MESSAGE + 65_536)}


@pytest.mark.parametrize(
    ("limits", "wanted"),
    [
        ({"retention.ms": "1000"}, f"retention.ms={MONTH}"),
        ({"max.message.bytes": str(MESSAGE)}, f"max.message.bytes={MESSAGE + 65_536}"),
        ({"retention.ms": "-1"}, ""),
        ({"retention.ms": str(2 * MONTH)}, ""),
        ({}, ""),
    ],
)
async def test_a_topic_that_keeps_less_is_logged_with_the_command_that_changes_it(
    limits: dict[str, str],
    wanted: str,
    real_kafka: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    topic = f"dead-letters-{uuid4()}"
    monkeypatch.setattr(module, "DEAD_LETTERS", topic)
    await create(real_kafka, topic, AS_NEW | limits)
    await KafkaSettings(broker_url=real_kafka).broker().create_channels([])
    lines = [record.getMessage() for record in caplog.records if topic in record.getMessage()]
    assert len(lines) == bool(wanted)
    for line in lines:
        ((name, value),) = limits.items()
        assert f"{topic} exists, with {name}={value}." in line
        assert line.endswith(f"--entity-name {topic} --add-config {wanted}")


async def create(kafka: str, topic: str, limits: dict[str, str]) -> None:
    """Create a topic, and wait until the broker knows it."""
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(topic, 1, 1, topic_configs=limits)])
        async with asyncio.timeout(20):
            known = False
            while not known:
                resource = ConfigResource(ConfigResourceType.TOPIC, topic, limits)
                (answer,) = await admin.describe_configs([resource])
                known = all(code == 0 for code, *_ in answer.resources)
    finally:
        await admin.close()
