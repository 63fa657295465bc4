"""A service in a process of its own. It appends to a file when it starts and when it ends a job.

Arguments: the broker's row, its URL, the service's name, the channel, and the file.
"""

import asyncio
import sys
from contextlib import nullcontext
from pathlib import Path

from faststream_otel import Service
from pydantic import BaseModel

from .features import BROKERS


class Job(BaseModel):
    name: str
    seconds: float = 0


def main(broker: str, url: str, name: str, channel: str, file: str) -> None:
    row = BROKERS[broker]
    with row.quick_redelivery() if row.quick_redelivery else nullcontext():
        service = Service(name, row.settings(broker_url=url))  # type: ignore[call-arg]

        @service.subscriber(channel)
        async def work(job: Job) -> None:
            write(f"start {job.name}")
            await asyncio.sleep(job.seconds)
            write(f"end {job.name}")

    def write(line: str) -> None:
        with Path(file).open("a") as output:
            output.write(f"{line}\n")

    service.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
