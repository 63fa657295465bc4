"""`channels` leaves an existing topic as it is, and says if it keeps less than a new one would."""

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from faststream_otel.kafka import KafkaSettings

MESSAGE = 2 * 1_048_576
MONTH = 30 * 86_400_000


@pytest.mark.parametrize(
    ("limits", "wanted"),
    [
        ({"retention.ms": "1000"}, f"retention.ms={MONTH}"),
        ({"max.message.bytes": str(MESSAGE)}, f"max.message.bytes={MESSAGE + 65_536}"),
        ({"retention.ms": "-1"}, ""),
        ({"retention.ms": str(2 * MONTH)}, ""),
    ],
)
async def test_a_topic_that_keeps_less_is_logged_with_the_command_that_changes_it(
    limits: dict[str, str], wanted: str, real_kafka: str, caplog: pytest.LogCaptureFixture
) -> None:
    broker = KafkaSettings(broker_url=real_kafka).broker()
    enough = {"retention.ms": str(MONTH), "max.message.bytes": str(MESSAGE + 65_536)}
    admin = AIOKafkaAdminClient(bootstrap_servers=real_kafka)
    await admin.start()
    try:
        topic = NewTopic("dead-letters", 1, 1, topic_configs=enough | limits)
        await admin.create_topics([topic])
        await broker.create_channels([])
        await admin.delete_topics(["dead-letters"])
    finally:
        await admin.close()
    lines = [record.getMessage() for record in caplog.records if "exists" in record.getMessage()]
    assert len(lines) == bool(wanted)
    for line in lines:
        ((name, value),) = limits.items()
        assert f"dead-letters exists, with {name}={value}." in line
        assert line.endswith(f"--entity-name dead-letters --add-config {wanted}")


async def test_a_topic_that_it_created_itself_is_not_logged(
    real_kafka: str, caplog: pytest.LogCaptureFixture
) -> None:
    broker = KafkaSettings(broker_url=real_kafka).broker()
    for _ in range(2):
        await broker.create_channels(["orders.placed"])
    assert "exists" not in caplog.text
