"""The middlewares of each broker record one trace over all hops, and the consumer group."""

from typing import Any

import pytest
from faststream_otel.messages.broker import Broker
from faststream_otel.messages.prometheus import MessagingMetrics
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind
from prometheus_client import CollectorRegistry

from ..spans import context, named
from .conftest import Find
from .features import Features, Row
from .rig import Rig, nothing, until
from .served import Served

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_a_flow_is_one_trace_and_a_batch_links_to_its_causes(row: Row, find: Find) -> None:
    url, features = find(Features(0))
    exporter, provider, registry = InMemorySpanExporter(), TracerProvider(), CollectorRegistry()
    provider.add_span_processor(SimpleSpanProcessor(exporter))

    def middlewares(broker: Broker) -> list[Any]:
        return [
            broker.telemetry({"tracer_provider": provider, "meter_provider": NoOpMeterProvider()}),
            broker.prometheus(registry, MessagingMetrics(registry), "tested"),
        ]

    rig = Rig(row, url, middlewares=middlewares)
    first, second, batch = map(rig.named, ("first", "second", "all"))

    async def pass_on(body: Any) -> None:
        await rig.publish(second, body)
        await rig.publish(batch, body)

    rig.subscribe(first, pass_on)
    rig.subscribe(second)
    rig.subscribe(batch, batch=True)
    names = [
        f"{operation} {channel}"
        for channel in (first, second, batch)
        for operation in ("send", "process")
    ]
    async with rig.running(features):
        await rig.publish(first, "body", key="key")
        await until(
            lambda: {span.name for span in exporter.get_finished_spans()} >= set(names),
            "all spans",
        )
    spans = {name: named(exporter.get_finished_spans(), name) for name in names}

    assert parent(spans[f"send {first}"]) is None
    for child, of in (
        (f"process {first}", f"send {first}"),
        (f"send {second}", f"process {first}"),
        (f"process {second}", f"send {second}"),
        (f"send {batch}", f"process {first}"),
    ):
        assert parent(spans[child]) == context(spans[of]).span_id, child
    whole = spans[f"process {batch}"]
    assert whole.parent is None
    assert [link.context.span_id for link in whole.links] == [
        context(spans[f"send {batch}"]).span_id
    ]

    attributes = spans[f"process {second}"].attributes or {}
    assert attributes["messaging.system"] == rig.broker.system
    assert attributes["messaging.operation.name"] == "process"
    assert rig.service in str(attributes["messaging.consumer.group.name"])
    waited = {
        (sample.labels["messaging_destination_template"], sample.value)
        for metric in registry.collect()
        for sample in metric.samples
        if sample.name == "messaging_receive_delay_seconds_count"
    }
    assert waited == {(channel, 1) for channel in (first, second, batch)}


async def test_every_way_to_publish_continues_the_trace(row: Row, find: Find) -> None:
    url, features = find(Features(0))
    served = Served(row, url)
    service, broker, start = served.service, served.broker, served.named("start")
    ways = ("decorator", "publisher", "broker", "service", "send")
    channels = {way: served.named(way) for way in ways}
    publishers = {way: service.publisher(channel) for way, channel in channels.items()}

    @service.subscriber(start)
    @publishers["decorator"]
    async def handle(body: str) -> str:
        await publishers["publisher"].publish(body)
        await broker.publish(publishers["broker"], body, key=None)
        await service.send(publishers["service"], body)
        await broker.send(channels["send"], body=b"body", key=None, headers={}, correlation_id=None)
        return body

    for channel in channels.values():
        service.subscriber(channel)(nothing)
    async with served.running(features, [start, *channels.values()]):
        await service.send(service.publisher(start), "body")
        (process,) = await served.spans(f"process {start}")
        spans = {
            way: (await served.spans(f"send {channel}"), await served.spans(f"process {channel}"))
            for way, channel in channels.items()
        }
        groups = {one.channel: one.group for one in await broker.lag(broker.groups())}

    for way, channel in channels.items():
        (sent,), (processed,) = spans[way]
        assert parent(sent) == context(process).span_id, way
        assert parent(processed) == context(sent).span_id, way
        assert (sent.kind, processed.kind) == (SpanKind.PRODUCER, SpanKind.CONSUMER)
        for span, operation in ((sent, "send"), (processed, "process")):
            attributes = span.attributes or {}
            assert attributes["messaging.system"] == broker.system
            assert attributes["messaging.operation.name"] == operation
            assert attributes["messaging.operation.type"] == operation
            assert attributes["messaging.destination.template"] == channel
            assert channel in str(attributes["messaging.destination.name"])
            assert (attributes["server.address"], attributes["server.port"]) == (
                url.rpartition(":")[0], int(url.rpartition(":")[2])
            )  # fmt: skip
        assert row.message_id(processed.attributes or {})
        assert (processed.attributes or {})["messaging.consumer.group.name"] == groups[channel]


def parent(span: ReadableSpan) -> int | None:
    return span.parent.span_id if span.parent else None
