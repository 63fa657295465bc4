"""What only NATS does: each trap of it, on the real server."""

import asyncio
import logging
import resource
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import nats
import pytest
from faststream import AckPolicy
from faststream.exceptions import NackMessage
from faststream.nats import NatsBroker, PullSub
from faststream_otel.logs import configure_logging
from faststream_otel.messages.broker import Broker, NotSent, TooLarge, Unavailable, Unreachable
from faststream_otel.messages.dead_letters import DEAD_LETTERS
from faststream_otel.messages.dead_letters.dead_letter import DeadLetter
from faststream_otel.messages.retry import RetryMiddleware, RetryPolicy
from faststream_otel.nats import NatsRetryMiddleware, NatsTelemetryMiddleware
from faststream_otel.nats import broker as nats_broker
from faststream_otel.nats.embedded import embedded_nats
from faststream_otel.nats.messages import (
    MAX_DEAD_LETTER_BYTES,
    MAX_MESSAGE_BYTES,
    PUBLISH_TIMEOUT_SECONDS,
)
from nats.js import JetStreamContext
from nats.js.api import ConsumerConfig, StreamConfig
from nats.js.errors import ServerError
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from ..brokers.features import BROKERS, Features
from ..brokers.rig import Rig, until
from ..ports import free_port, refusing_port
from ..spans import named
from .nats_server import nats_server

NATS = BROKERS["nats"]
POLICY = RetryPolicy(attempts=2, backoff=0.001, timeout=10)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with embedded_nats() as address:
        yield address


@pytest.fixture
async def stream(server: str) -> AsyncIterator[JetStreamContext]:
    """A client's view of JetStream, without the library."""
    client = await nats.connect(f"nats://{server}")
    yield client.jetstream()
    await client.close()


def retrying(broker: Broker) -> list[Any]:
    return [RetryMiddleware(POLICY, broker)]


@asynccontextmanager
async def running(rig: Rig) -> AsyncIterator[Rig]:
    async with rig.running(Features.CHANNELS):
        yield rig


def names(rig: Rig, channel: str) -> tuple[str, str]:
    """The stream and the durable consumer of a channel."""
    stream = channel.replace(".", "_")
    return stream, f"{rig.service}-{stream}"


async def bodies(stream: JetStreamContext, channel: str) -> list[bytes]:
    name = channel.replace(".", "_")
    state = (await stream.stream_info(name)).state
    messages = [await stream.get_msg(name, n) for n in range(1, state.last_seq + 1)]
    return [message.data or b"" for message in messages]


async def dead_letters(rig: Rig, channel: str) -> list[DeadLetter]:
    async with rig.broker.dead_letters() as store:
        found = [DeadLetter(record) async for record in store.read()]
    return [one for one in found if one.channel == channel]


# --- A consumer or a stream that is deleted


@pytest.mark.parametrize("what", ["consumer", "stream"])
@pytest.mark.parametrize("batch", [False, True])
async def test_a_deleted_consumer_shows_and_costs_nothing(
    server: str, stream: JetStreamContext, what: str, batch: bool
) -> None:
    rig = Rig(NATS, server)
    channel = rig.named("deleted")
    rig.subscribe(channel, batch=batch)
    async with running(rig):
        name, durable = names(rig, channel)
        assert (await rig.broker.progress())[channel].attached
        if what == "consumer":
            await stream.delete_consumer(name, durable)
        else:
            await stream.delete_stream(name)
        assert not (await rig.broker.progress())[channel].attached
        await until(lambda: not rig.broker.joined(), "the consumer to be missed")

        before = resource.getrusage(resource.RUSAGE_SELF).ru_utime
        started = time.monotonic()
        await asyncio.sleep(1)
        used = resource.getrusage(resource.RUSAGE_SELF).ru_utime - before
        assert used < (time.monotonic() - started) / 10


async def test_a_restart_consumes_again_after_its_consumer_was_deleted(
    server: str, stream: JetStreamContext
) -> None:
    first = Rig(NATS, server)
    channel = first.named("again")
    first.subscribe(channel)
    async with running(first):
        await stream.delete_consumer(*names(first, channel))
    second = Rig(NATS, server, first.service)
    second.subscribe(channel)
    async with running(second):
        await second.publish(channel, "new")
        await second.delivered(channel, 1)


async def test_a_service_without_its_stream_says_what_creates_it(server: str) -> None:
    rig = Rig(NATS, server)
    channel = rig.named("missing")
    rig.subscribe(channel)
    with pytest.raises(rig.broker.unreachable) as raised:
        await rig.broker.faststream.start()
    await rig.broker.faststream.stop()
    reason = await rig.broker.why_unreachable(raised.value)
    assert channel in reason
    assert "faststream-otel channels" in reason

    await rig.broker.create_channels([channel])
    async with running(rig):  # the same object may start again
        await rig.publish(channel, "one")
        await rig.delivered(channel, 1)


async def test_publishing_without_a_stream_says_what_creates_it(server: str) -> None:
    rig = Rig(NATS, server)
    channel = rig.named("unstored")
    async with running(rig):
        for sent in (
            rig.publish(channel, "body"),
            rig.broker.send(channel, body=b"", key=None, headers={}, correlation_id=None),
        ):
            with pytest.raises(NotSent) as raised:
                await sent
            assert channel in str(raised.value)
            assert "faststream-otel channels" in str(raised.value)


# --- What exists is not changed


async def test_existing_streams_and_consumers_keep_their_configuration(
    server: str, stream: JetStreamContext
) -> None:
    rig = Rig(NATS, server)
    channel = rig.named("kept")
    name, durable = names(rig, channel)
    await stream.add_stream(StreamConfig(name=name, subjects=[channel], max_age=3600))
    await stream.add_consumer(name, ConsumerConfig(durable_name=durable, ack_wait=77))
    rig.subscribe(channel)
    async with running(rig):
        await rig.publish(channel, "one")
        await rig.delivered(channel, 1)
    info = await stream.consumer_info(name, durable)
    assert (await stream.stream_info(name)).config.max_age == 3600
    assert info.config.ack_wait == 77


async def test_limits_of_created_channels(server: str, stream: JetStreamContext) -> None:
    rig = Rig(NATS, server)
    channel = rig.named("limits")
    await rig.broker.create_channels([channel])
    config = (await stream.stream_info(names(rig, channel)[0])).config
    assert (config.max_age, config.max_msg_size) == (7 * 86_400, MAX_MESSAGE_BYTES)
    config = (await stream.stream_info(DEAD_LETTERS)).config
    assert (config.max_age, config.max_msg_size) == (30 * 86_400, MAX_DEAD_LETTER_BYTES)
    with pytest.raises(ServerError, match="not permitted"):
        await stream.delete_msg(DEAD_LETTERS, 1)


async def test_a_stream_for_another_channel_is_not_taken(
    server: str, stream: JetStreamContext
) -> None:
    rig = Rig(NATS, server)
    dotted = rig.named("a.b")
    await rig.broker.create_channels([dotted])
    with pytest.raises(Unreachable, match="rename the channel"):
        await rig.broker.create_channels([dotted.replace(".", "_")])


# --- In flight


@pytest.mark.parametrize("batch", [False, True])
async def test_a_slow_handler_runs_once(server: str, stream: JetStreamContext, batch: bool) -> None:
    """Though it takes several times `ack_wait`, and another instance is free."""
    rig = Rig(NATS, server)
    other = Rig(NATS, server, rig.service)
    channel = rig.named("slow")
    name, durable = names(rig, channel)
    await rig.broker.create_channels([channel])
    await stream.add_consumer(name, ConsumerConfig(durable_name=durable, ack_wait=0.5))
    for one in (rig, other):
        one.subscribe(channel, lambda _: asyncio.sleep(2), batch=batch)
    async with running(rig), running(other):
        await rig.publish(channel, "one")
        await until(lambda: rig.seen[channel] + other.seen[channel], "the message")

        await rig.idle(channel)
        await other.idle(channel)
    assert len(rig.seen[channel] + other.seen[channel]) == 1


@pytest.mark.parametrize("batch", [False, True])
async def test_an_idle_instance_does_not_wait_for_the_messages_of_another(
    server: str, stream: JetStreamContext, batch: bool
) -> None:
    """Its watchdog would end it, though it is healthy."""
    rig = Rig(NATS, server)
    other = Rig(NATS, server, rig.service)
    channel, go_on = rig.named("apart"), asyncio.Event()
    name, durable = names(rig, channel)
    await rig.broker.create_channels([channel])
    await stream.add_consumer(name, ConsumerConfig(durable_name=durable, max_ack_pending=1))
    for one in (rig, other):
        one.subscribe(channel, lambda _: go_on.wait(), batch=batch)  # type: ignore[arg-type, return-value]
    async with running(rig), running(other):
        await rig.publish(channel, "one", "two")  # the second waits for the first
        await until(lambda: rig.seen[channel] or other.seen[channel], "a message")
        busy, idle = (rig, other) if rig.seen[channel] else (other, rig)
        assert (await busy.broker.progress())[channel].waiting
        assert not (await idle.broker.progress())[channel].waiting
        go_on.set()
        await until(lambda: len(rig.seen[channel] + other.seen[channel]) == 2, "both")
        await rig.idle(channel)
        await other.idle(channel)


async def test_a_stop_gives_back_what_was_not_handled(
    server: str, stream: JetStreamContext
) -> None:
    """Otherwise it would be redelivered only after `ack_wait`."""
    rig = Rig(NATS, server)
    channel = rig.named("collected")
    rig.subscribe(channel, batch=True)
    async with running(rig):
        (member,) = rig.broker._members.values()  # type: ignore[attr-defined]
        await rig.publish(channel, "one", "two")
        await until(lambda: member.received, "a batch that is being collected")
    assert not rig.seen[channel]
    next_one = Rig(NATS, server, rig.service)
    next_one.subscribe(channel, batch=True)
    async with running(next_one):
        await until(
            lambda: sum(map(rig.broker.count, next_one.seen[channel])) == 2, "both", seconds=5
        )


@pytest.mark.parametrize("batch", [False, True])
async def test_a_request_without_an_answer_ends_no_consumer(
    server: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, batch: bool
) -> None:
    """nats-py raises the built-in TimeoutError for some, which FastStream does not expect."""
    asked = 0

    async def fetch(self: Any, count: int, timeout: float | None) -> list[Any]:  # noqa: ASYNC109
        nonlocal asked
        asked += 1
        if asked % 2:  # the very first one, too
            raise TimeoutError
        return await real(self, count, timeout)

    real = JetStreamContext.PullSubscription.fetch
    monkeypatch.setattr(JetStreamContext.PullSubscription, "fetch", fetch)
    rig = Rig(NATS, server)
    channel = rig.named("quiet")
    rig.subscribe(channel, batch=batch)
    rig.subscribe(rig.named("another"), batch=batch)
    async with running(rig):
        for number in range(3):
            await rig.publish(channel, number)
            await until(lambda: len(rig.seen[channel]) > number, "the message")  # noqa: B023
        # FastStream would restart a loop that ended as a further task.
        assert [len(one.tasks) for one in rig.broker.faststream.subscribers] == [1, 1]
    assert asked > 1
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_messages_do_not_wait_for_an_answer_that_never_comes(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user may lack the permission to ask for the consumer's `ack_wait`."""
    asked = 0

    async def consumer_info(*_: Any, **__: Any) -> Any:
        nonlocal asked
        asked += 1
        raise nats.errors.TimeoutError

    rig = Rig(NATS, server)
    channel = rig.named("silent")
    rig.subscribe(channel)
    async with running(rig):
        monkeypatch.setattr(JetStreamContext, "consumer_info", consumer_info)
        await rig.publish(channel, "one", "two", "three")
        await rig.delivered(channel, 3)
    assert asked == 1


async def test_messages_are_handled_one_at_a_time_and_in_order(server: str) -> None:
    rig = Rig(NATS, server)
    channel = rig.named("order")
    at_once, handled = 0, list[int]()

    async def handle(number: int) -> None:
        nonlocal at_once
        at_once += 1
        assert at_once == 1
        await asyncio.sleep(0.001 * (number % 3))
        handled.append(number)
        at_once -= 1

    rig.subscribe(channel, handle)
    async with running(rig):
        await rig.publish(channel, *range(30))
        await until(lambda: len(handled) == 30, "all messages")
    assert handled == [*range(30)]


async def test_a_handler_may_delay_the_redelivery(server: str) -> None:
    rig = Rig(NATS, server, middlewares=retrying)
    channel = rig.named("delayed")
    at: list[float] = []

    async def later(body: Any) -> None:
        at.append(time.monotonic())
        if len(at) == 1:
            raise NackMessage(delay=2)

    rig.subscribe(channel, later)
    async with running(rig):
        await rig.publish(channel, "one")
        await until(lambda: len(at) == 2, "the redelivery")
    assert at[1] - at[0] >= 2


async def test_redeliveries_are_paced(server: str) -> None:
    rig = Rig(NATS, server, middlewares=retrying)
    channel, calls = rig.named("paced"), 0

    async def unavailable(body: Any) -> None:
        nonlocal calls
        calls += 1
        raise Unavailable("another broker")

    rig.subscribe(channel, unavailable)
    async with running(rig):
        await rig.publish(channel, "one")
        await until(lambda: calls == 2, "the redelivery")
        await asyncio.sleep(1)
        assert calls < 10
        assert await dead_letters(rig, channel) == []


async def test_a_restart_of_the_server_in_mid_handler(tmp_path: Path) -> None:
    port, go_on = free_port(), asyncio.Event()
    rig = Rig(NATS, f"127.0.0.1:{port}")
    channel = rig.named("restarted")
    rig.subscribe(channel, lambda _: go_on.wait())  # type: ignore[arg-type, return-value]

    async def sent() -> bool:
        try:
            await rig.publish(channel, "back")
        except Unavailable:
            return False
        return True

    with ExitStack() as first, ExitStack() as second:
        first.enter_context(nats_server(tmp_path, port=port))
        async with running(rig):
            await rig.publish(channel, "one")
            await rig.delivered(channel, 1)
            first.close()
            started = time.monotonic()
            assert not await sent()
            assert time.monotonic() - started < 2 * PUBLISH_TIMEOUT_SECONDS
            assert not rig.broker.joined()
            second.enter_context(nats_server(tmp_path, port=port))
            await until(rig.broker.answers, "an answer")
            go_on.set()
            await until(sent, "a confirmation")
            await until(
                lambda: len({rig.broker.raw(one).body for one in rig.seen[channel]}) == 2, "back"
            )
            await until(rig.broker.joined, "the consumer")
    raws = [rig.broker.raw(one) for one in rig.seen[channel]]
    assert [raw.body for raw in raws].count(b"one") == 1


async def test_a_lost_connection_is_a_line_and_delays_no_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # A server that was restarted does not know what was asked of it before. Nothing waits for that.
    monkeypatch.setattr(nats_broker, "PULL_SECONDS", 3600.0)
    port = free_port()
    rig = Rig(NATS, f"127.0.0.1:{port}")
    channel = rig.named("delayed")
    rig.subscribe(channel)
    configure_logging("INFO", rig.broker.noisy_loggers)
    for name in ("", "faststream"):
        logging.getLogger(name).addHandler(caplog.handler)
    with ExitStack() as first, ExitStack() as second:
        first.enter_context(nats_server(tmp_path, port=port))
        async with running(rig):
            client: Any = rig.broker.faststream.connection
            await until(lambda: client.pulls, "the first request")
            await asyncio.sleep(0.1)
            first.close()
            await until(lambda: not rig.broker.joined(), "the client to notice")
            second.enter_context(nats_server(tmp_path, port=port))
            await until(rig.broker.joined, "the client to reconnect")
            await rig.publish(channel, "one")
            await rig.delivered(channel, 1)
            await rig.idle(channel)
    lines = [one for one in caplog.records if one.levelno >= logging.INFO]
    assert [("is lost" in one.getMessage(), one.exc_info) for one in lines] == [
        (True, None), (False, None)
    ]  # fmt: skip
    assert "connected again" in lines[1].getMessage()


# --- Sizes and headers


async def test_headers_count_for_the_size(server: str) -> None:
    """The server would close the connection of a client that sends more than max_payload."""
    rig = Rig(NATS, server)
    channel = rig.named("sizes")
    rig.subscribe(channel)
    async with running(rig):
        client: Any = rig.broker.faststream.connection
        await rig.broker.create_channels([channel])
        for body, header in (
            (client.max_payload - 5000, 10_000),
            (MAX_MESSAGE_BYTES - 5000, 10_000),
            (10, 70_000),
        ):
            with pytest.raises(TooLarge):
                await rig.broker.send(
                    channel,
                    body=b"x" * body,
                    key=None,
                    headers={"own": "x" * header},
                    correlation_id=None,
                )
        assert client.is_connected
        assert client.stats["reconnects"] == 0
        await rig.publish(channel, "small enough")
        await rig.delivered(channel, 1)


async def test_a_failed_message_of_the_largest_size_and_headers_is_a_dead_letter(
    server: str,
) -> None:
    rig = Rig(NATS, server, middlewares=retrying)
    channel = rig.named("large")

    async def fail(body: Any) -> None:
        raise LookupError("x" * 100_000)

    rig.subscribe(channel, fail)
    async with running(rig):
        await rig.broker.send(
            channel,
            body=b"x" * (MAX_MESSAGE_BYTES - 63_000),
            key=None,
            headers={f"n-{number}": "ü" * 2000 for number in range(15)},
            correlation_id="c",
        )
        await until(lambda: rig.seen[channel], "the message")
        found: list[DeadLetter] = []

        async def stored() -> bool:
            found[:] = await dead_letters(rig, channel)
            return bool(found)

        await until(stored, "the dead letter")
    assert found[0].error_type == "LookupError"
    assert len(found[0].body or b"") == MAX_MESSAGE_BYTES - 63_000


@pytest.mark.parametrize("name", ["a b", "a:b", "ä"])
async def test_a_header_that_nats_cannot_send_fails_the_handler(server: str, name: str) -> None:
    """Not the broker: its message becomes a dead letter."""
    rig = Rig(NATS, server, middlewares=retrying)
    channel, results = rig.named("headers"), rig.named("results")
    publisher = rig.broker.publisher(results, None)

    async def handle(body: Any) -> None:
        await rig.broker.publish(publisher, body, key=None, headers={name: "x"})

    rig.subscribe(channel, handle)
    async with running(rig):
        await rig.publish(channel, "one")

        async def stored() -> bool:
            return bool(await dead_letters(rig, channel))

        await until(stored, "the dead letter")


async def test_the_headers_of_a_dead_letter_come_back(
    server: str, stream: JetStreamContext
) -> None:
    """Without those that would tell the server what to do with it."""
    rig = Rig(NATS, server, middlewares=retrying)
    channel = rig.named("carried")

    async def fail(body: Any) -> None:
        raise LookupError("first line\nsecond line")

    rig.subscribe(channel, fail)
    async with running(rig):
        headers = {"Mixed-Case": "ü  x", "Nats-Msg-Id": "1", "Status": "503", "key": "k"}
        await stream.publish(channel, b"\xff", headers=headers)

        async def stored() -> bool:
            return bool(await dead_letters(rig, channel))

        await until(stored, "the dead letter")
        (found,) = await dead_letters(rig, channel)
        assert (found.body, found.record.key) == (b"\xff", b"k")
        assert dict(found.headers) == {"Mixed-Case": "ü  x".encode(), "status": b"503"}
        assert "first line" in found.reason


async def test_the_sender_chooses_neither_the_id_nor_where_results_go(
    server: str, stream: JetStreamContext
) -> None:
    rig = Rig(NATS, server)
    channel, elsewhere, results = map(rig.named, ("chosen", "elsewhere", "results"))
    await rig.broker.create_channels([channel, elsewhere, results])

    @rig.broker.subscriber(channel, batch=False)
    @rig.broker.publisher(results, None)
    async def handle(body: str) -> str:
        return body

    async with running(rig):
        for body in (b"one", b"two"):
            headers = {"reply_to": elsewhere, "message_id": "same"}
            await stream.publish(channel, body, headers=headers)

        async def published() -> bool:
            return len(await bodies(stream, results)) == 2

        await until(published, "both results")
        assert await bodies(stream, elsewhere) == []
        assert [one.message_id for one in rig.seen[channel]] == ["1", "2"]


# --- An application's own broker


async def test_the_middlewares_fit_any_broker(server: str, stream: JetStreamContext) -> None:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    retry = NatsRetryMiddleware(POLICY)
    telemetry = NatsTelemetryMiddleware(
        tracer_provider=provider, meter_provider=NoOpMeterProvider()
    )
    broker = NatsBroker(
        f"nats://{server}", middlewares=[telemetry, retry], logger=None, **retry.broker_options
    )
    assert retry.broker_options["ack_policy"] is AckPolicy.NACK_ON_ERROR
    rig = Rig(NATS, server)
    await rig.broker.create_channels([])
    await stream.add_stream(StreamConfig(name=rig.service, subjects=[f"{rig.service}.>"]))

    @broker.subscriber(
        f"{rig.service}.{{level}}", stream=rig.service, durable="own", pull_sub=PullSub(1)
    )
    async def fail(body: str) -> None:
        raise LookupError(body)

    @broker.subscriber(f"core.{rig.service}", queue="core-group")
    async def take(body: str) -> None: ...

    subject = f"{rig.service}.warning"
    async with broker:
        await broker.start()
        await broker.publish("one", subject, stream=rig.service)
        await broker.publish("one", f"core.{rig.service}")

        async def stored() -> bool:
            return bool(await dead_letters(rig, subject))

        await until(stored, "the dead letter")
        core = f"process core.{rig.service}"
        await until(
            lambda: core in {span.name for span in exporter.get_finished_spans()}, "all spans"
        )
    # A span's name does not vary with each message.
    span = named(exporter.get_finished_spans(), f"process {rig.service}.{{level}}")
    attributes = span.attributes or {}
    assert attributes["messaging.destination.name"] == subject
    assert attributes["messaging.message.id"] == "1"
    assert attributes["messaging.consumer.group.name"] == "own"
    assert span.parent
    attributes = named(exporter.get_finished_spans(), core).attributes or {}
    assert attributes["messaging.consumer.group.name"] == "core-group"
    assert "messaging.message.id" not in attributes


# --- The embedded server


def test_the_server_ends_with_its_process() -> None:
    program = (
        "import time\n"
        "from faststream_otel.nats.embedded import embedded_nats\n"
        "with embedded_nats() as address:\n"
        "    print(address, flush=True)\n"
        "    time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as owner:
        assert owner.stdout
        address = owner.stdout.readline().decode().strip()
        owner.kill()

    async def gone() -> bool:
        try:
            _, writer = await asyncio.open_connection(*address.split(":"))
        except ConnectionError:
            return True
        writer.close()
        return False

    asyncio.run(until(gone, "the server to end"))


async def test_starting_without_a_server_is_quick() -> None:
    with refusing_port() as port:
        rig = Rig(NATS, f"127.0.0.1:{port},127.0.0.1:{port}")
        rig.subscribe("any")
        async with asyncio.timeout(20):
            with pytest.raises(rig.broker.unreachable):
                await rig.broker.faststream.start()
        await rig.broker.faststream.stop()
