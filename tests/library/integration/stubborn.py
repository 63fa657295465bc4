"""A service whose handler fails until it is fixed, for tests of dead letters."""

import os

from faststream_otel.kafka.settings import KafkaSettings
from faststream_otel.service import Service

service = Service("stubborn", KafkaSettings())


@service.subscriber("pings")
async def handle(ping: str) -> None:
    if os.environ.get("BROKEN"):
        raise LookupError(f"no use for a {ping}")


if __name__ == "__main__":
    service.run()
