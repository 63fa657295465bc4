"""A service that sends itself numbers and prints those that it has handled, for tests of faults."""

import asyncio

from faststream.asgi import AsgiResponse, Request, post

from faststream_otel.kafka import broker as messaging
from faststream_otel.http import web
from faststream_otel.service import Service

service = Service("counter")
counted = service.publisher("numbers")
app = service.app


@service.subscriber("numbers")
async def count(number: int) -> None:
    await asyncio.sleep(0.03)  # behind those that come
    print(f"handled {number}", flush=True)


@post
async def send(request: Request) -> AsgiResponse:
    """Send the number in the body; a 204 says that the broker has it."""
    try:
        async with asyncio.timeout(1):
            await counted.publish(int(await request.body()))
    except (*messaging.Unreachable, TimeoutError):
        return web.refusal(503, "", "try again", {"Retry-After": "1"})
    return AsgiResponse(b"", 204)


service.route("/numbers", send)

if __name__ == "__main__":
    service.run()
