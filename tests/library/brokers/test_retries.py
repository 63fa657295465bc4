"""A `Service` that cannot handle a message sends it to the dead letters, and goes on."""

import asyncio
from collections import Counter
from typing import Any

import pytest
from faststream.exceptions import SkipMessage
from pydantic import BaseModel

from ..spans import context
from .conftest import Find
from .features import Features, Row
from .rig import until
from .served import Served

pytestmark = pytest.mark.asyncio(loop_scope="session")

RUBBISH = [
    ("traceparent", b"rubbish"),
    ("baggage", b"=,;=="),
    ("content-type", b"no/such; type"),
    ("reply_to", b"elsewhere"),
    ("own", "ключ".encode()),
]
ANY_RUBBISH = [("own", b"\xff\x00"), ("own", None), ("correlation_id", b"\xfe"), ("", b"")]


class Event(BaseModel):
    number: int


async def test_a_handler_that_always_fails_leaves_one_dead_letter(row: Row, find: Find) -> None:
    url, features = find(Features(0))
    served = Served(row, url, retry_attempts=3)
    channel = served.named("failing")
    handled: list[bytes] = []

    @served.service.subscriber(channel)
    async def handle(body: bytes) -> None:
        handled.append(body)
        if body != b"good":
            raise LookupError("no use for it")

    async with served.running(features, [channel]):
        await row.publish(url, channel, b"\x00\xff", b"key", [("own", b"value")])
        await row.publish(url, channel, b"good", b"key", [])
        await until(lambda: b"good" in handled, "the next message")
        (dead_letter,) = await served.dead_letters(channel, 1)
        await served.idle(channel)

    assert Counter(handled) == {b"\x00\xff": 3, b"good": 1}
    assert (dead_letter.channel, dead_letter.attempts) == (channel, 3)
    assert dead_letter.error_type.endswith("LookupError")
    assert dead_letter.reason == "no use for it"
    assert dead_letter.body == b"\x00\xff"
    assert ("own", b"value") in dead_letter.headers
    if Features.KEYS in features:
        assert dead_letter.record.key == b"key"
    failed, _ = await served.spans(f"process {channel}", 2)
    assert dead_letter.trace_id == f"{context(failed).trace_id:032x}"
    assert str(row.message_id(failed.attributes or {})) == dead_letter.message_id


@pytest.mark.parametrize("batch", [False, True])
async def test_a_skipped_message_is_acknowledged(row: Row, find: Find, batch: bool) -> None:
    url, features = find(Features(0))
    served = Served(row, url)
    channel = served.named("skipped")
    sent: list[bytes] = []
    handled: list[str] = []

    @served.service.subscriber(channel, batch=batch)
    async def handle(body: Any) -> None:
        handled.append(str(body))
        if "skipped" in str(body):
            raise SkipMessage

    async with served.running(features, [channel]):
        for body in (b"handled", b"skipped", b"skipped"):
            sent.append(body)
            await row.publish(url, channel, body, b"key", [])
            await until(lambda: len(handled) == len(sent), "the message")
            await served.idle(channel)


async def test_poison_ends_in_the_dead_letters_as_it_was(row: Row, find: Find) -> None:
    url, features = find(Features(0))
    served = Served(row, url)
    channel = served.named("poisoned")
    handled: list[int] = []

    @served.service.subscriber(channel)
    async def handle(event: Event) -> None:
        handled.append(event.number)

    bodies: list[bytes | None] = [b"\xff\xfe\x00", b"", b"{", b"[" * 50_000, b'"text"', b"null"]
    if Features.NO_BODY in features:
        bodies.append(None)
    rubbish = [*RUBBISH, *(ANY_RUBBISH if Features.ANY_HEADERS in features else [])]
    async with served.running(features, [channel]):
        for headers in ([], rubbish):
            for body in bodies:
                await row.publish(url, channel, body, b"key", headers)
        await row.publish(url, channel, b'{"number": 1}', b"key", [])
        await until(lambda: handled, "the good message")
        dead_letters = await served.dead_letters(channel, 2 * len(bodies))
        await served.idle(channel)

    assert handled == [1]
    assert {one.attempts for one in dead_letters} == {1}
    without = [one for one in dead_letters if not one.headers]
    assert Counter(one.body for one in without) == Counter(bodies)
    others = [one for one in dead_letters if one.headers]
    assert Counter(one.body for one in others) == Counter(bodies)
    for dead_letter in others:
        if Features.ANY_HEADERS in features:
            assert list(dead_letter.headers) == [
                one for one in rubbish if one[0] not in ("traceparent", "baggage")
            ]
        else:
            assert ("own", "ключ".encode()) in dead_letter.headers


async def test_of_a_batch_only_the_bad_message_ends_in_the_dead_letters(
    row: Row, find: Find
) -> None:
    url, features = find(Features(0))
    served = Served(row, url)
    channel, go_on = served.named("mixed"), asyncio.Event()
    handled: set[int] = set()

    @served.service.subscriber(channel, batch=True)
    async def handle(events: list[Event]) -> None:
        await go_on.wait()
        handled.update(event.number for event in events)

    publisher = served.service.publisher(channel)
    good: list[Any] = [{"number": number} for number in range(6)]
    bodies = [*good[:3], {"number": "bad"}, *good[3:]]
    async with served.running(features, [channel]):
        for body in bodies:
            await served.service.send(publisher, body, key="same")
        go_on.set()
        (dead_letter,) = await served.dead_letters(channel, 1)
        await until(lambda: len(handled) == 6, "the good messages")
        await served.idle(channel)
        assert len(await served.dead_letters(channel, 1)) == 1

    assert handled == {*range(6)}
    assert dead_letter.body == b'{"number":"bad"}'
    assert dead_letter.attempts == 1
    batches = await served.spans(f"process {channel}")
    causes = {link.context.span_id for one in batches for link in one.links}
    assert causes == {context(one).span_id for one in await served.spans(f"send {channel}", 7)}
    if Features.BATCHES in features:
        assert max(len(one.links) for one in batches) > 1
    assert [one.parent for one in batches] == [None] * len(batches)
    # The dead letter's trace is that of the batch, whose span has a link to its cause.
    assert dead_letter.trace_id in {f"{context(one).trace_id:032x}" for one in batches}


async def test_publishing_to_a_channel_that_does_not_exist_names_it(row: Row, find: Find) -> None:
    url, features = find(Features.NAMES_CHANNELS)
    served = Served(row, url)
    channel, missing = served.named("there"), served.named("missing")
    publisher = served.service.publisher(missing)
    served.service.subscriber(channel)(lambda body: None)
    async with served.running(features, [channel]):
        errors = await asyncio.gather(
            served.service.send(publisher, "lost"),
            served.broker.send(missing, body=b"lost", key=None, headers={}, correlation_id=None),
            return_exceptions=True,
        )
        assert [isinstance(error, Exception) and missing in str(error) for error in errors] == [
            True, True
        ], errors  # fmt: skip
