"""Records as aiokafka delivers them."""

from collections.abc import Sequence

from aiokafka import ConsumerRecord


def record(
    topic: str, offset: int, headers: Sequence[tuple[str, bytes]]
) -> ConsumerRecord[bytes, bytes]:
    """A record with the body "hello"."""
    return ConsumerRecord(
        topic=topic,
        partition=0,
        offset=offset,
        timestamp=0,
        timestamp_type=0,
        key=None,
        value=b"hello",
        checksum=None,
        serialized_key_size=0,
        serialized_value_size=5,
        headers=tuple(headers),
    )
