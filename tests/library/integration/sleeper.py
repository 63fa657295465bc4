"""A service whose handlers sleep, or ask for redelivery, for tests of the watchdog."""

import os
import time

from faststream.asgi import AsgiResponse, Request, post
from faststream.exceptions import NackMessage
from faststream_otel.kafka.settings import KafkaSettings
from faststream_otel.service import Service

service = Service("sleeper", KafkaSettings())
naps = service.publisher("naps")
refusals = service.publisher("refusals")
app = service.app


if os.environ.get("REFUSES"):

    @service.subscriber("refusals")
    async def refuse(body: str) -> None:
        print("refused", flush=True)
        raise NackMessage

else:

    @service.subscriber("naps")
    def nap(body: str) -> None:
        print("asleep", flush=True)
        time.sleep(120)


@post
async def send_to_sleep(request: Request) -> AsgiResponse:
    await service.send(naps, "now")
    return AsgiResponse(b"", 204)


@post
async def have_refused(request: Request) -> AsgiResponse:
    await service.send(refusals, "now")
    return AsgiResponse(b"", 204)


for path, handler in {"/naps": send_to_sleep, "/refusals": have_refused}.items():
    app.mount(path, handler)

if __name__ == "__main__":
    service.run()
