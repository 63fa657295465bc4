"""A service that publishes numbers to itself and prints handled ones, for tests of faults."""

import asyncio
from typing import Annotated

from fastapi import Body
from faststream_otel.http import HttpService, Refused
from faststream_otel.kafka import KafkaSettings

service = HttpService("counter", KafkaSettings())
counted = service.publisher("numbers")
app = service.app


@service.subscriber("numbers")
async def count(number: int) -> None:
    await asyncio.sleep(0.05)  # behind those that come
    print(f"handled {number}", flush=True)


@service.http.post("/numbers", status_code=204)
async def send(number: Annotated[int, Body()]) -> None:
    """Send the number in the body; a 204 says that the broker has it."""
    try:
        async with asyncio.timeout(1):
            await service.send(counted, number)
    except TimeoutError:
        raise Refused(503, "", "try again", {"Retry-After": "1"}) from None


if __name__ == "__main__":
    service.run()
