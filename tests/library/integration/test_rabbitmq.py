"""What only RabbitMQ does: each trap of it, on the real server."""

import asyncio
import logging
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock

import aio_pika
import pamqp.encode
import pytest
from aio_pika.abc import AbstractChannel
from faststream.rabbit import QueueType, RabbitBroker, RabbitQueue
from faststream_otel.logs import configure_logging
from faststream_otel.messages.broker import TooLarge, Unavailable
from faststream_otel.messages.dead_letters import DEAD_LETTERS
from faststream_otel.messages.dead_letters.dead_letter import DeadLetter
from faststream_otel.messages.dead_letters.replay import Replay
from faststream_otel.messages.dead_letters.search import Filter, Search
from faststream_otel.messages.dead_letters.states import State
from faststream_otel.messages.retry import RetryPolicy
from faststream_otel.rabbitmq import RabbitRetryMiddleware, consumers
from faststream_otel.rabbitmq import dead_letters as rabbitmq_dead_letters
from faststream_otel.rabbitmq.channels import service_queue
from faststream_otel.rabbitmq.consumers import MAX_BATCH
from faststream_otel.rabbitmq.embedded import server_command
from faststream_otel.rabbitmq.messages import MAX_MESSAGE_BYTES, Unroutable
from opentelemetry.trace import NoOpTracer

from ..brokers.features import BROKERS, Features
from ..brokers.rig import Rig, until
from ..brokers.served import Served
from ..brokers.servers import Process
from ..ports import free_port
from .relay import relay

RABBITMQ = BROKERS["rabbitmq"]
SERVER_LIMIT = 100_000


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """A server that takes small messages only."""
    port = free_port(3)
    configuration = f"listeners.tcp.1 = 127.0.0.1:{port}\nmax_message_size = {SERVER_LIMIT}"
    with tempfile.TemporaryDirectory(prefix="rabbitmq-", ignore_cleanup_errors=True) as folder:
        try:
            command, environment = server_command(
                Path(folder), range(port, port + 3), configuration
            )
        except FileNotFoundError as error:
            pytest.skip(str(error))
        with Process(port, command, Path(folder, "output"), environment).running() as running:
            yield running.url


@pytest.fixture
async def client(server: str) -> AsyncIterator[AbstractChannel]:
    """A client's view, without the library."""
    async with await aio_pika.connect(f"amqp://{server}") as connection:
        yield await connection.channel()


@asynccontextmanager
async def running(rig: Rig) -> AsyncIterator[Rig]:
    async with rig.running(Features.CHANNELS):
        yield rig


def cancelled_at_first(served: Served, channel: str) -> list[str]:
    """Subscribe a handler that waits until it is cancelled, and then no more; returns its ends."""
    ended: list[str] = []

    @served.service.subscriber(channel)
    async def handle(body: str) -> None:
        try:
            await asyncio.sleep(60 if not ended else 0)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise
        ended.append(body)

    return ended


def capture(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    """Capture what a service logs, with the loggers that it configures."""
    configure_logging("INFO", served.broker.noisy_loggers)
    for name in ("", "faststream"):
        logging.getLogger(name).addHandler(caplog.handler)


def bodies(rig: Rig, channel: str) -> list[bytes | None]:
    return [rig.broker.raw(one).body for one in rig.seen[channel]]


# --- Publishing


async def test_a_message_that_no_queue_takes_is_an_error_that_names_its_channel(
    server: str,
) -> None:
    rig = Rig(RABBITMQ, server)
    consumed, unknown = rig.named("consumed"), rig.named("unknown")
    rig.subscribe(consumed)
    publisher = rig.broker.publisher(rig.named("alone"), None)  # its exchange has no queue
    async with running(rig):
        with pytest.raises(Unroutable, match=rig.named("alone")):
            await rig.broker.publish(publisher, "body", key=None)
        with pytest.raises(Unroutable, match=unknown):
            await rig.broker.send(unknown, body=b"", key=None, headers={}, correlation_id=None)
        async with rig.broker.dead_letters() as store:
            assert not await store.exists(unknown)
        await rig.publish(consumed, "fine")  # the others go on
        await rig.delivered(consumed, 1)


async def test_the_servers_own_limit_of_size_is_an_error_that_says_so(server: str) -> None:
    rig = Rig(RABBITMQ, server)
    channel = rig.named("large")
    rig.subscribe(channel)
    async with running(rig):
        with pytest.raises(TooLarge, match=str(SERVER_LIMIT)):
            await rig.publish(channel, "x" * (SERVER_LIMIT + 1))
        assert rig.broker.joined()  # the server closes the channel, which is not the consumer's

        async def sent() -> bool:
            try:
                await rig.publish(channel, "small")
            except Unavailable:  # until the client has opened another one
                return False
            return True

        await until(sent, "another message")
        await rig.delivered(channel, 1)


async def test_a_body_above_our_limit_is_not_sent(server: str) -> None:
    rig = Rig(RABBITMQ, server)
    channel = rig.named("large")
    rig.subscribe(channel)
    async with running(rig):
        with pytest.raises(TooLarge, match=str(MAX_MESSAGE_BYTES)):
            await rig.publish(channel, "x" * (MAX_MESSAGE_BYTES + 1))
        with pytest.raises(TooLarge, match="headers"):
            await rig.broker.send(
                channel, body=b"", key=None, headers={"h": "x" * 70_000}, correlation_id=None
            )


async def test_a_returned_result_is_persistent_and_has_an_id(
    server: str, client: AbstractChannel
) -> None:
    rig = Rig(RABBITMQ, server)
    channel = rig.named("results")
    rig.subscribe(channel)
    async with running(rig):
        await rig.publish(channel, {"n": 1}, key="k")
        (message,) = await rig.delivered(channel, 1)
    assert message.raw_message.delivery_mode == aio_pika.DeliveryMode.PERSISTENT
    assert message.raw_message.message_id


# --- Redelivery


async def test_a_message_is_redelivered_as_often_as_needed_and_keeps_its_place(
    server: str,
) -> None:
    """RabbitMQ 4 drops it after 20 redeliveries, unless its queue says otherwise."""
    rig = Rig(RABBITMQ, server)
    channel = rig.named("often")

    async def fail(body: Any) -> None:
        if len(rig.seen[channel]) <= 30:
            error = ConnectionError("another service is down")
            raise rig.broker.redelivery(error)

    rig.subscribe(channel, fail)
    async with running(rig):
        await rig.publish(channel, "one", "two", "three")
        await rig.delivered(channel, 33)
    assert bodies(rig, channel) == [*[b"one"] * 31, b"two", b"three"]


async def test_a_service_pauses_between_redeliveries(server: str) -> None:
    served = Served(RABBITMQ, server)
    channel, delivered = served.named("paused"), []

    @served.service.subscriber(channel)
    async def handle(body: str) -> None:
        delivered.append(body)
        raise Unavailable("the broker does not confirm")

    async with served.running(Features.CHANNELS, [channel]):
        await served.broker.publish(served.service.publisher(channel), "one", key=None)
        await until(lambda: delivered, "a delivery")
        await asyncio.sleep(1.5)
        assert len(delivered) <= 3


async def test_a_handler_that_a_lost_connection_cancels_gets_its_message_again(
    server: str,
) -> None:
    port = free_port()
    served = Served(RABBITMQ, f"127.0.0.1:{port}")
    channel = served.named("cut")
    ended = cancelled_at_first(served, channel)
    first, second = ExitStack(), ExitStack()
    first.enter_context(relay(port, server))
    async with served.running(Features.CHANNELS, [channel]):
        await served.broker.publish(served.service.publisher(channel), "one", key=None)
        await until(lambda: served.broker._consumers[channel].received, "a delivery")  # type: ignore[attr-defined]
        await asyncio.sleep(0.1)
        first.close()
        await until(lambda: ended == ["cancelled"], "the handler to be cancelled")
        second.enter_context(relay(port, server))
        await until(lambda: ended == ["cancelled", "one"], "the message again")
        await served.idle(channel)
        assert await served.dead_letters(channel, 0) == []
    second.close()


@pytest.mark.parametrize("kind", ["idle", "async", "thread", "batch"])
async def test_a_lost_connection_is_a_line_of_the_log(
    server: str, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    port = free_port()
    served = Served(RABBITMQ, f"127.0.0.1:{port}")
    capture(served, caplog)
    channel, handled, go_on = served.named(kind), 0, threading.Event()

    async def wait(_: Any) -> None:
        nonlocal handled
        handled += 1
        await asyncio.to_thread(go_on.wait, 20)

    def block(_: Any) -> None:
        nonlocal handled
        handled += 1
        go_on.wait(20)

    handler = block if kind == "thread" else wait
    served.service.subscriber(channel, batch=kind == "batch")(handler)
    publisher = served.service.publisher(channel)
    first, second = ExitStack(), ExitStack()
    first.enter_context(relay(port, server))
    async with served.running(Features.CHANNELS, [channel]):
        if kind != "idle":
            await served.broker.publish(publisher, "one", key=None)
            await until(lambda: handled, "the handler")
        first.close()

        def logged(text: str) -> list[logging.LogRecord]:
            return [one for one in caplog.records if text in one.getMessage()]

        await until(lambda: logged("is lost"), "a line of the loss")
        second.enter_context(relay(port, server))
        await until(lambda: logged("connected again"), "a line of the reconnect")
        go_on.set()
        await served.idle(channel)
    second.close()
    assert len(logged("is lost")) == len(logged("connected again")) == 1
    assert len(logged("was cancelled")) == (1 if kind == "async" else 0)
    assert [one.getMessage() for one in caplog.records if one.exc_info] == []
    assert [one.getMessage() for one in caplog.records if one.levelno > logging.WARNING] == []


async def test_a_handler_in_a_thread_does_not_run_twice_at_once(server: str) -> None:
    """A lost connection cannot end a thread. Its message, delivered again, waits until it ends."""
    port = free_port()
    served = Served(RABBITMQ, f"127.0.0.1:{port}")
    channel = served.named("thread")
    go_on, running, most = threading.Event(), 0, 0

    @served.service.subscriber(channel)
    def handle(body: str) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        go_on.wait(20)
        running -= 1

    first, second = ExitStack(), ExitStack()
    first.enter_context(relay(port, server))
    async with served.running(Features.CHANNELS, [channel]):
        await served.broker.publish(served.service.publisher(channel), "one", key=None)
        await until(lambda: running, "the handler")
        first.close()
        second.enter_context(relay(port, server))
        consumer = served.broker._consumers[channel]  # type: ignore[attr-defined]
        await until(lambda: consumer.received == 2, "the message again")
        await asyncio.sleep(0.2)
        assert most == 1
        go_on.set()
        await served.idle(channel)
    second.close()
    assert (running, most) == (0, 1)


@pytest.fixture(scope="module")
def impatient() -> Iterator[str]:
    """A server that takes a message from a handler that is busy for a second."""
    port = free_port(3)
    configuration = f"listeners.tcp.1 = 127.0.0.1:{port}\nconsumer_timeout = 1000"
    with tempfile.TemporaryDirectory(prefix="rabbitmq-", ignore_cleanup_errors=True) as folder:
        advanced = Path(folder, "advanced.config")
        advanced.write_text("[{rabbit, [{channel_tick_interval, 200}]}].\n")
        try:
            command, environment = server_command(
                Path(folder), range(port, port + 3), configuration
            )
        except FileNotFoundError as error:
            pytest.skip(str(error))
        variables = {**environment, "RABBITMQ_ADVANCED_CONFIG_FILE": str(advanced)}
        with Process(port, command, Path(folder, "output"), variables).running() as running:
            yield running.url


async def test_a_handler_that_rabbitmq_has_no_patience_for_is_named(
    impatient: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Its queues ask for patience, which RabbitMQ grants from 3.12 on. So this one is older, or
    somebody has set a policy."""
    served = Served(RABBITMQ, impatient, handler_timeout_seconds=60)
    capture(served, caplog)
    channel = served.named("slow")
    ended = cancelled_at_first(served, channel)

    async with served.running(Features.CHANNELS, [channel]):
        await served.broker.publish(served.service.publisher(channel), "one", key=None)
        try:
            await until(lambda: ended == ["cancelled", "one"], "the message again")
        except AssertionError:
            if not ended:
                pytest.skip("this RabbitMQ grants the patience that its queue asks for")
            raise
        await served.idle(channel)
        assert await served.dead_letters(channel, 0) == []
    (line,) = (one.getMessage() for one in caplog.records if "consumer_timeout" in one.getMessage())
    assert "raise consumer_timeout in rabbitmq.conf" in line


async def test_a_queue_asks_rabbitmq_for_patience(server: str, client: AbstractChannel) -> None:
    rig = Rig(RABBITMQ, server)
    channel = rig.named("patient")
    rig.subscribe(channel)
    async with running(rig):
        pass
    # RabbitMQ compares the arguments that it knows: they are declared alike by `channels`.
    await rig.broker.create_channels([channel], rig.broker.groups())
    timeout = service_queue(channel).arguments["x-consumer-timeout"]
    assert timeout > 1000 * RetryPolicy(attempts=10, timeout=86_400).longest(MAX_BATCH)


async def test_a_start_that_fails_half_way_leaves_no_connection(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = Rig(RABBITMQ, server)
    rig.subscribe(rig.named("any"))
    broker = rig.broker.faststream
    manager = type(broker.config.channel_manager)
    monkeypatch.setattr(manager, "get_channel", AsyncMock(side_effect=ConnectionError))
    before = asyncio.all_tasks()
    with pytest.raises(ConnectionError):
        await broker.start()
    await broker.stop()
    await until(lambda: asyncio.all_tasks() <= before, "the connection to be closed")


async def test_a_service_stops_without_its_broker(server: str) -> None:
    port = free_port()
    rig = Rig(RABBITMQ, f"127.0.0.1:{port}")
    rig.subscribe(rig.named("any"))
    with ExitStack() as connection:
        connection.enter_context(relay(port, server))
        await rig.broker.create_channels([rig.named("any")])
        await rig.broker.faststream.start()
        await until(rig.broker.joined, "the consumer to be attached")
    await rig.broker.faststream.stop()


async def test_a_deleted_queue_comes_back(server: str, client: AbstractChannel) -> None:
    rig = Rig(RABBITMQ, server)
    channel = rig.named("deleted")
    rig.subscribe(channel)
    async with running(rig):
        await client.queue_delete(f"{rig.service}.{channel}")
        await until(lambda: not rig.broker.joined(), "the consumer to be detached")
        await until(rig.broker.joined, "the consumer to be attached")
        await rig.publish(channel, "after")
        await rig.delivered(channel, 1)
        progress = (await rig.broker.progress())[channel]
        assert progress.attached


async def test_a_queue_with_other_arguments_fails_at_the_start(
    server: str, client: AbstractChannel
) -> None:
    rig = Rig(RABBITMQ, server)
    channel = rig.named("changed")
    queue = f"{rig.service}.{channel}"
    await client.declare_queue(queue, durable=True, arguments={"x-queue-type": "classic"})
    rig.subscribe(channel)
    with pytest.raises(Exception, match="x-queue-type") as raised:
        await rig.broker.faststream.start()
    await rig.broker.faststream.stop()
    assert queue in str(raised.value)
    # The service ends, rather than wait for the broker.
    assert not isinstance(raised.value, rig.broker.unreachable)


# --- Messages of other programs


@contextmanager
def bad_text() -> Iterator[None]:
    """Sends the text `bad` in properties as bytes that are not UTF-8."""
    strict = pamqp.encode.short_string

    def short_string(value: str) -> bytes:
        return b"\x03\xffad" if value == "bad" else strict(value)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pamqp.encode, "short_string", short_string)
        patch.setitem(pamqp.encode.METHODS, "shortstr", short_string)
        yield


@pytest.mark.parametrize(
    "properties", [{"content_type": "bad"}, {"headers": {"bad": "value"}}, {"type": "bad"}]
)
async def test_properties_that_are_not_text_do_not_block_a_queue(
    server: str, client: AbstractChannel, properties: dict[str, Any]
) -> None:
    rig = Rig(RABBITMQ, server)
    channel = rig.named("bad")
    rig.subscribe(channel)
    async with running(rig):
        exchange = await client.get_exchange(channel)
        for body in (b"one", b"two"):
            with bad_text():
                await exchange.publish(aio_pika.Message(body, **properties), "")
        await rig.delivered(channel, 2)
    assert bodies(rig, channel) == [b"one", b"two"]


async def test_any_header_survives_in_a_dead_letter(server: str, client: AbstractChannel) -> None:
    served = Served(RABBITMQ, server, retry_attempts=1)
    channel = served.named("odd")

    @served.service.subscriber(channel)
    async def handle(body: Any) -> None:
        raise ValueError("no use for it")

    headers: Any = {"bytes": bytearray(b"\xff\x00"), "number": 7, "none": None, "list": [1, "a"]}
    async with served.running(Features.CHANNELS, [channel]):
        exchange = await client.get_exchange(channel)
        message = aio_pika.Message(
            b"\xff", headers=headers, content_type="text/plain", correlation_id="c"
        )
        await exchange.publish(message, "")
        (found,) = await served.dead_letters(channel, 1)
    assert found.body == b"\xff"
    assert dict(found.headers) == {
        "bytes": b"\xff\x00",
        "number": b"7",
        "none": None,
        "list": b'[1, "a"]',
        "content-type": b"text/plain",
        "correlation_id": b"c",
    }


async def test_a_dead_letter_keeps_the_body_of_a_message_with_too_large_headers(
    server: str, client: AbstractChannel
) -> None:
    """They fit a frame once, and not twice."""
    served = Served(RABBITMQ, server, retry_attempts=1)
    channel = served.named("headers")

    @served.service.subscriber(channel)
    async def handle(body: Any) -> None:
        raise ValueError("no use for it")

    async with served.running(Features.CHANNELS, [channel]):
        exchange = await client.get_exchange(channel)
        await exchange.publish(aio_pika.Message(b"body", headers={"h": "x" * 100_000}), "")
        (found,) = await served.dead_letters(channel, 1)
    assert (found.body, found.truncated) == (b"body", ["headers"])


# --- Batches


async def test_a_batch_has_a_limit(server: str, client: AbstractChannel) -> None:
    rig = Rig(RABBITMQ, server)
    channel = rig.named("many")
    rig.subscribe(channel, batch=True)
    await rig.broker.create_channels([channel], rig.broker.groups())
    exchange = await client.get_exchange(channel)
    for number in range(MAX_BATCH + 5):
        await exchange.publish(aio_pika.Message(b"%d" % number), "")
    async with running(rig):
        await until(
            lambda: sum(map(rig.broker.count, rig.seen[channel])) == MAX_BATCH + 5, "all messages"
        )
        await rig.idle(channel)
    assert [rig.broker.count(one) for one in rig.seen[channel]] == [MAX_BATCH, 5]
    found = [one.body for batch in rig.seen[channel] for one in batch.raw_message]
    assert found == [b"%d" % number for number in range(MAX_BATCH + 5)]


async def test_a_batch_is_delivered_again_after_a_lost_connection(server: str) -> None:
    port = free_port()
    rig = Rig(RABBITMQ, f"127.0.0.1:{port}")
    channel, go_on = rig.named("batches"), asyncio.Event()
    rig.subscribe(channel, lambda _: go_on.wait(), batch=True)  # type: ignore[arg-type, return-value]
    first, second = ExitStack(), ExitStack()
    first.enter_context(relay(port, server))
    async with running(rig):
        await rig.publish(channel, "one", "two")
        await rig.delivered(channel, 1)
        first.close()
        await until(lambda: not rig.broker.joined(), "the service to notice")
        second.enter_context(relay(port, server))
        await until(rig.broker.joined, "the consumer to be attached")
        go_on.set()
        await until(lambda: sum(map(rig.broker.count, rig.seen[channel])) >= 4, "both again")
        await rig.idle(channel)
    second.close()
    assert {raw.body for batch in rig.seen[channel] for raw in batch.raw_message} == {
        b"one", b"two"
    }  # fmt: skip


async def test_a_batch_that_is_being_collected_survives_a_lost_connection(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumers, "BATCH_SECONDS", 2)
    port = free_port()
    rig = Rig(RABBITMQ, f"127.0.0.1:{port}")
    channel = rig.named("collected")
    rig.subscribe(channel, batch=True)
    first, second = ExitStack(), ExitStack()
    first.enter_context(relay(port, server))
    async with running(rig):
        await rig.publish(channel, "one", "two")
        (consumer,) = rig.broker._consumers.values()  # type: ignore[attr-defined]
        await until(lambda: consumer.received == 2, "both messages")
        first.close()
        await until(lambda: not rig.broker.joined(), "the service to notice")
        assert not rig.seen[channel], "it should still collect"
        second.enter_context(relay(port, server))
        await until(lambda: sum(map(rig.broker.count, rig.seen[channel])) == 2, "both again")
        await rig.idle(channel)
    second.close()
    assert {raw.body for batch in rig.seen[channel] for raw in batch.raw_message} == {
        b"one", b"two"
    }  # fmt: skip


# --- An application's own broker


async def test_a_dead_letter_that_no_queue_takes_was_certainly_not_sent(server: str) -> None:
    rig = Rig(RABBITMQ, server)
    gone = rig.named("gone")
    await rig.broker.create_channels([gone])  # without a queue
    async with rig.broker.dead_letters() as store:
        log, _ = store.order("0")
        id = await store.append(log, b"", {"dead-letter.channel": gone})
        search = Search(store, Filter(ids=frozenset([id])))
        await search.prepare()
        replay = Replay(store, NoOpTracer(), search.ends)
        found = (one async for one, _ in search.dead_letters())
        (outcome,) = [one async for one in replay.send(found)]
        assert gone in outcome.reason
        search = Search(store, Filter(ids=frozenset([id])))
        await search.prepare()
        assert search.states.of(id) is State.OPEN


async def test_a_slow_stream_of_dead_letters_is_not_empty(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = Rig(RABBITMQ, server)
    await rig.broker.create_channels([])
    monkeypatch.setattr(rabbitmq_dead_letters, "FIRST_SECONDS", 0.0)
    for _ in range(2):
        async with rig.broker.dead_letters() as store:
            before = [one.id async for one in store.read()]
        async with rig.broker.dead_letters() as store:
            appended = await store.append(DEAD_LETTERS, b"late", {"dead-letter.channel": "late"})
        async with rig.broker.dead_letters() as store:
            found = [one.id async for one in store.read()]
            assert appended in found
            assert set(found) >= set(before)
            late = Search(store, Filter(channel="late"))
            await late.prepare()
            assert appended in [one.id async for one, _ in late.dead_letters()]


async def test_the_first_dead_letter_creates_their_channel(
    server: str, client: AbstractChannel
) -> None:
    await client.exchange_delete(DEAD_LETTERS)
    retry = RabbitRetryMiddleware(RetryPolicy(attempts=1))
    broker = RabbitBroker(f"amqp://{server}", middlewares=[retry], **retry.broker_options)

    @broker.subscriber(RabbitQueue("own", queue_type=QueueType.QUORUM))
    async def handle(body: str) -> None:
        raise ValueError("no use for it")

    async with broker:
        await broker.start()
        await broker.publish("lost?", "own")
        rig = Rig(RABBITMQ, server)

        async def found() -> list[DeadLetter]:
            async with rig.broker.dead_letters() as store:
                letters = [DeadLetter(record) async for record in store.read()]
            return [one for one in letters if one.channel == "own"]

        await until(found, "the dead letter")
