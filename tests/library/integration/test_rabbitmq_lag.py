"""The lag of RabbitMQ's queues: ready by AMQP, in flight by RabbitMQ's own metrics."""

import asyncio
import logging
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from faststream_otel.cli import lag as command
from faststream_otel.messages.broker import Lag
from faststream_otel.rabbitmq import RabbitSettings
from faststream_otel.rabbitmq.embedded import server_command
from faststream_otel.settings import BadSetting

from ..brokers.features import BROKERS, Features
from ..brokers.rig import Rig, until
from ..brokers.servers import Process
from ..ports import free_port, refusing_port

VIRTUAL_HOST = "a/b c"


@dataclass(frozen=True)
class Server:
    """A RabbitMQ. `metrics_url` is that of its plugin rabbitmq_prometheus."""

    url: str
    metrics_url: str

    def rig(self, metrics_url: str) -> Rig:
        """A service with a consumer of the channel `slow`."""
        settings: Any = partial(
            RabbitSettings, broker_virtual_host=VIRTUAL_HOST, broker_metrics_url=metrics_url
        )
        rig = Rig(replace(BROKERS["rabbitmq"], settings=settings), self.url)
        rig.subscribe(rig.named("slow"))
        return rig


async def lag(rig: Rig) -> tuple[int, int | None]:
    """Messages that are ready, and in flight."""
    (found,) = await rig.broker.lag(rig.broker.groups())
    return found.ready, found.in_flight


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server with its plugin rabbitmq_prometheus."""
    port, metrics = free_port(3), free_port()
    configuration = (
        f"listeners.tcp.1 = 127.0.0.1:{port}\n"
        f"prometheus.tcp.ip = 127.0.0.1\nprometheus.tcp.port = {metrics}\n"
        f"default_vhost = {VIRTUAL_HOST}"
    )
    with tempfile.TemporaryDirectory(prefix="rabbitmq-", ignore_cleanup_errors=True) as folder:
        try:
            program, environment = server_command(
                Path(folder), range(port, port + 3), configuration
            )
        except FileNotFoundError as error:
            pytest.skip(str(error))
        Path(folder, "plugins").write_text("[rabbitmq_prometheus].\n")
        with Process(port, program, Path(folder, "output"), environment).running() as running:
            yield Server(running.url, f"http://127.0.0.1:{metrics}")


async def test_messages_in_flight_are_those_of_rabbitmqs_own_metrics(server: Server) -> None:
    rig, go_on = server.rig(server.metrics_url), asyncio.Event()

    async def wait(_: object) -> None:
        await go_on.wait()

    rig.handle(rig.named("slow"), wait)
    async with rig.running(Features.CHANNELS):
        await rig.publish(rig.named("slow"), "one", "two", "three")

        async def told(*expected: int) -> bool:
            return await lag(rig) == expected

        await until(lambda: told(2, 1), "one message in flight")  # RabbitMQ counts every 5 s
        go_on.set()
        await until(lambda: told(0, 0), "none in flight")


@pytest.mark.parametrize("url", ["", "refusing", "wrong path"])
async def test_unknown_messages_in_flight_are_not_zero(
    server: Server, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    with refusing_port() as port:
        urls = {"": "", "refusing": f"http://127.0.0.1:{port}"}
        rig = server.rig(urls.get(url, f"{server.metrics_url}/nowhere"))
        async with rig.running(Features.CHANNELS):
            await rig.publish(rig.named("slow"), "one")
            await rig.idle(rig.named("slow"))
            caplog.clear()
            for _ in range(2):
                assert await lag(rig) == (0, None)
    logged = [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING]
    assert len(logged) == (1 if url else 0)
    assert all("BROKER_METRICS_URL" in one for one in logged)


async def test_a_queue_of_another_node_is_found_there(server: Server) -> None:
    with refusing_port() as port:
        rig = server.rig(f"http://127.0.0.1:{port}, {server.metrics_url}/")
        async with rig.running(Features.CHANNELS):

            async def known() -> bool:
                return await lag(rig) == (0, 0)

            await until(known, "the second node's answer")


@pytest.mark.parametrize(
    "url",
    ["rabbitmq:15692", "http://", "http://a:b", "http://[", "http://me:secret@rabbitmq:15692"],
)
def test_a_bad_url_is_an_error_with_a_good_one(url: str) -> None:
    with pytest.raises(BadSetting, match="BROKER_METRICS_URL=http://rabbitmq:15692") as raised:
        RabbitSettings(broker_metrics_url=url).broker()
    assert "secret" not in str(raised.value)


def test_the_command_says_that_a_number_is_unknown(capsys: pytest.CaptureFixture[str]) -> None:
    command._print_table([Lag("orders", "shop.orders", ready=3, in_flight=None)])
    header, line = capsys.readouterr().out.splitlines()
    assert header.split() == ["channel", "group", "ready", "in", "flight"]
    assert line.split() == ["orders", "shop.orders", "3", "unknown"]
