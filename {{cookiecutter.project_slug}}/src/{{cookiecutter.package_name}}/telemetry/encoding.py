"""Cheaper OTLP: what is the same in every span is encoded once.

Building protobuf objects is half of what exporting a span costs, and most of a messaging span's
attributes repeat: system, operation, destination, consumer group, partition.
"""

from collections.abc import Callable
from typing import Any

from opentelemetry.exporter.otlp.proto.common import _internal as encoder
from opentelemetry.semconv._incubating.attributes import messaging_attributes as messaging
from opentelemetry.semconv._incubating.attributes import server_attributes as server

_CONSTANTS = {
    messaging.MESSAGING_SYSTEM,
    messaging.MESSAGING_OPERATION_NAME,
    messaging.MESSAGING_OPERATION_TYPE,
    messaging.MESSAGING_DESTINATION_NAME,
    messaging.MESSAGING_DESTINATION_PARTITION_ID,
    messaging.MESSAGING_CONSUMER_GROUP_NAME,
    server.SERVER_ADDRESS,
}
_LIMIT = 10_000  # far more than a service has destinations and partitions


def encode_constants_once() -> None:
    """Have the OTLP exporters of this process remember those attributes, in encoded form.

    They have no public place for this. Where a newer exporter has no `_encode_key_value`, nothing
    is remembered and nothing else changes.
    """
    encode: Callable[[str, Any], Any] | None = getattr(encoder, "_encode_key_value", None)
    if encode is None or hasattr(encode, "remembers"):
        return
    known: dict[tuple[str, Any], Any] = {}

    def remembering(key: str, value: Any) -> Any:
        if key not in _CONSTANTS or type(value) is not str:
            return encode(key, value)
        if (encoded := known.get((key, value))) is None:
            encoded = encode(key, value)
            if len(known) < _LIMIT:
                known[key, value] = encoded  # protobuf copies it into each span
        return encoded

    remembering.remembers = known  # type: ignore[attr-defined]
    encoder._encode_key_value = remembering
