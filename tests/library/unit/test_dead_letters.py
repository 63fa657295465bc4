"""Dead letters are read with doubt, sent back once, and linked to their old trace."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from faststream_otel.messages.dead_letters.ledger import BEGUN_SECONDS, TO_DO, Ledger, Mark, State
from faststream_otel.messages.dead_letters.letter import (
    HEADERS,
    Headers,
    Letter,
    Position,
    Record,
    cut,
    encoded,
    headers_of,
)
from faststream_otel.messages.dead_letters.replay import (
    PAGE_LETTERS,
    Offsets,
    Outcome,
    Replay,
    discard,
)
from faststream_otel.messages.dead_letters.search import NotThereError, Search, Wanted
from faststream_otel.messages.dead_letters.show import Links, Summary, as_json, as_text
from faststream_otel.messages.retry import DeadLetter

from ..spans import context

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PUT_AWAY = {
    "content-type": "application/json",
    "correlation_id": "c-1",
    "tenant": "acme",
    "traceparent": f"00-{TRACE}-{SPAN}-01",
    "flow-started": "1700000000000",
    "dead-letter.topic": "events",
    "dead-letter.partition": "2",
    "dead-letter.offset": "41",
    "dead-letter.attempts": "3",
    "dead-letter.error.type": "shop.errors.NoCarrierError",
    "dead-letter.reason": "no carrier delivers to AQ",
}
NOW = 1_700_000_000.0


class MemoryTopic:
    """A topic of dead letters in a list per partition, as the broker's module offers it."""

    def __init__(self, partitions: int = 1) -> None:
        self.topics = frozenset({"events", "dead-letters"})
        self.records: dict[int, list[Record]] = {number: [] for number in range(partitions)}
        self.sent: list[tuple[str, bytes | None, bytes | None, Headers]] = []
        self.fails: dict[bytes, Exception] = {}
        """What sending this body raises."""

    @property
    def first(self) -> Offsets:
        return dict.fromkeys(self.records, 0)

    @property
    def end(self) -> Offsets:
        return {partition: len(records) for partition, records in self.records.items()}

    def put(
        self,
        headers: Mapping[str, str] = PUT_AWAY,
        value: bytes | None = b"{}",
        *,
        partition: int = 0,
        at: float = NOW,
    ) -> Position:
        position = Position(partition, len(self.records[partition]))
        self.records[partition].append(Record(position, at, b"key", value, encoded(headers)))
        return position

    async def read(self, start: Offsets, end: Offsets) -> AsyncIterator[Record]:
        for partition, offset in start.items():
            for record in self.records[partition][offset : end[partition]]:
                yield record

    async def mark(self, partition: int, mark: Mark) -> int:
        return self.put(mark.headers, mark.value, partition=partition, at=time.time()).offset

    async def send(self, topic: str, letter: Letter, headers: Headers) -> "asyncio.Future[object]":
        self.sent.append((topic, letter.record.key, letter.value, headers))
        future = asyncio.get_running_loop().create_future()
        if error := self.fails.get(letter.value or b""):
            future.set_exception(error)
        else:
            future.set_result(None)
        return future

    def attributes(self, topic: str, letter: Letter) -> tuple[dict[str, Any], dict[str, Any]]:
        return {"messaging.destination.name": topic}, {"offset": letter.position.offset}


class TooLargeError(Exception):
    pass


class Desk:
    """An operator: chooses letters, sends them, and sees the spans of it."""

    def __init__(self, topic: MemoryTopic) -> None:
        self.topic = topic
        self.spans = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self.spans))
        self.tracer = provider.get_tracer("test")

    async def find(self, wanted: Wanted) -> list[tuple[Position, State]]:
        search = Search(self.topic, wanted)
        await search.prepare()
        return [(letter.position, state) async for letter, state in search.letters()]

    async def open(self) -> list[Position]:
        return [position for position, _ in await self.find(Wanted(states=TO_DO))]

    async def replay(self, wanted: Wanted | None = None, to: str | None = None) -> list[Outcome]:
        search = Search(self.topic, wanted or Wanted(states=TO_DO))
        await search.prepare()
        replay = Replay(self.topic, self.tracer, (TooLargeError,), to)
        letters = (letter async for letter, _ in search.letters())
        return [outcome async for outcome in replay.send(letters)]

    def span(self) -> ReadableSpan:
        (span,) = self.spans.get_finished_spans()
        return span


@pytest.fixture
def topic() -> MemoryTopic:
    return MemoryTopic()


@pytest.fixture
def desk(topic: MemoryTopic) -> Desk:
    return Desk(topic)


def letter(headers: Mapping[str, str] = PUT_AWAY, **record: Any) -> Letter:
    known: dict[str, Any] = {"timestamp": NOW, "key": b"key", "value": b"{}"}
    return Letter(Record(Position(0, 12), headers=encoded(headers), **(known | record)))


# --- A letter


def put_away(headers: Headers, error: Exception | None = None) -> dict[str, str]:
    message: Any = SimpleNamespace(correlation_id="c-1")
    return headers_of(DeadLetter(message, error or KeyError(), 3), "events", 2, 41, headers)


def test_what_a_service_writes_can_be_read() -> None:
    passing = [("traceparent", b"old"), ("flow-started", b"1"), ("baggage", b"a=b")]
    own = [("tenant", b"acme"), ("dead-letter.topic", b"forged"), ("content-type", b"text/plain")]
    read = letter(put_away([*passing, *own], KeyError("x" * 2000)))

    assert (read.topic, read.origin, read.attempts) == ("events", Position(2, 41), 3)
    assert read.error_type == "KeyError"
    assert 900 < len(read.reason) <= 1000
    assert read.headers == own


def test_headers_that_are_text_are_told_once() -> None:
    own = [("content-type", b"text/plain"), ("correlation_id", b"c-1"), ("tenant", b"\xc3\xa9")]
    headers = put_away([*own, ("traceparent", b"old")])
    assert HEADERS not in headers
    assert letter(headers).headers == own


@pytest.mark.parametrize(
    ("own", "told"),
    [
        ([], "[]"),
        ([("n", b"1"), ("n", b"2")], '[["n","1"],["n","2"]]'),
        ([("b", b"\xff\xfe"), ("t", "é€".encode()), ("x", None)],
         '[["b",{"base64":"//4="}],["t","é€"],["x",null]]'),
        ([("content-type", b"")], '[["content-type",""]]'),
        ([("tenant", b"a"), ("correlation_id", b"c"), ("content-type", b"t")],
         '[["tenant","a"],["correlation_id","c"],["content-type","t"]]'),
    ],
)  # fmt: skip
def test_others_are_told_exactly_in_a_header_of_their_own(own: Headers, told: str) -> None:
    headers = put_away(own)
    assert headers[HEADERS] == told
    assert letter(headers).headers == own


@pytest.mark.parametrize("repeated", [1, 2])
def test_a_trace_context_does_not_go_back_however_its_name_is_written(repeated: int) -> None:
    own = [("content-type", b"text/plain"), ("correlation_id", b"c-1"), *[("n", b"1")] * repeated]
    headers = put_away([*own, ("Traceparent", b"old"), ("TRACESTATE", b"old"), ("Baggage", b"old")])
    assert (HEADERS in headers) == (repeated > 1)
    assert letter(headers).headers == own


@pytest.mark.parametrize(
    "malformed",
    ["", "[", "{}", '{"ab":1}', '"ab"', "null", '["ab"]', '[["a"]]', '[["a",1]]', '[[1,"a"]]',
     '[["a",["b"]]]', '[["a",{}]]', '[["a",{"base64":1}]]', '[["a",{"base64":"?"}]]',
     '[["a",{"base64":"é"}]]', '[["a","\\ud800"]]', '[["\\udc00","a"]]', "[" * 100_000,
     '[["a","1"],["b","2","3"]]', "[[" + "9" * 5000 + ",null]]"],
)  # fmt: skip
def test_headers_that_nobody_can_have_written_are_as_if_they_were_not_there(
    malformed: str,
) -> None:
    read = letter(PUT_AWAY | {"dead-letter.headers": malformed})
    assert read.headers == letter().headers
    assert json.loads(as_json(read, State.OPEN, Links("")))["headers"]["tenant"] == "acme"


def test_headers_of_any_kind_can_be_seen() -> None:
    read = letter(put_away([("tenant", b"acme"), ("n", b"1"), ("n", None), ("b", b"\xff\x1b")]))
    told = json.loads(as_json(read, State.OPEN, Links("")))
    assert told["headers"] == {"tenant": "acme", "n": ["1", None], "b": {"base64": "/xs="}}
    text = as_text(read, State.OPEN, Links(""), body=True)
    assert '      headers: tenant: "acme", n: "1", n: null, b: {"base64": "/xs="}\n' in text


@pytest.mark.parametrize(("key", "told"), [(None, None), (b"", ""), (b"\xffk", "\ufffdk")])
def test_an_empty_key_is_not_none(key: bytes | None, told: str | None) -> None:
    assert json.loads(as_json(letter(key=key), State.OPEN, Links("")))["key"] == told


def test_a_letter_tells_its_trace_and_its_time() -> None:
    assert letter().trace_id == TRACE
    assert letter().at == datetime.fromtimestamp(NOW, UTC)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"traceparent": "00-zz-zz-01", "dead-letter.partition": "-1", "dead-letter.attempts": "²"},
        {"dead-letter.offset": "9" * 400, "baggage": "=,;=", "tracestate": "\x00"},
        {"dead-letter.mark": "replayed"},
        {
            "dead-letter.mark": "\x1b[2J",
            "dead-letter.reason": "\x1b[2J\r\n\x07",
            "content-type": "",
        },
    ],
)
@pytest.mark.parametrize(("timestamp", "value"), [(-0.001, None), (1e18, b"\xff\x00")])
def test_a_stranger_can_be_listed(
    headers: dict[str, str], timestamp: float, value: bytes | None
) -> None:
    stranger = letter(headers, timestamp=timestamp, value=value, key=b"\xff")

    text = as_text(stranger, State.OPEN, Links("http://g/{trace_id}"), body=True)
    assert "not from a service" in text
    assert "no time" in text
    assert all(character.isprintable() for character in text.replace("\n", ""))
    told = json.loads(as_json(stranger, State.OPEN, Links("")))
    assert told["letter"] == "0/12"
    assert (told["topic"], told["at"], told["trace"]) == (None, None, None)


def test_a_letter_is_told_in_a_few_lines() -> None:
    links = Links("http://grafana/d/traces?trace={trace_id}&from=now-{age}")
    first, reason, trace = as_text(letter(timestamp=time.time() - 7300), State.OPEN, links).split(
        "\n"
    )

    assert first.startswith("0/12  ")
    assert first.endswith("  events 2/41  NoCarrierError, 3 attempts")
    assert reason == "      no carrier delivers to AQ"
    assert trace == f"      http://grafana/d/traces?trace={TRACE}&from=now-4h"


CUT = PUT_AWAY | {"dead-letter.truncated": "headers,body", "dead-letter.body-size": "5000"}


def test_a_letter_that_was_cut_says_so() -> None:
    text = as_text(letter(CUT, value=b"a" * 4000), State.OPEN, Links(""))
    assert "  [cut: headers, body (4000 of 5000 bytes)]\n" in text
    told = json.loads(as_json(letter(CUT), State.OPEN, Links("")))
    assert (told["truncated"], told["body_size"]) == (["headers", "body"], 5000)
    whole = json.loads(as_json(letter(), State.OPEN, Links("")))
    assert (whole["truncated"], whole["body_size"]) == (None, None)


@pytest.mark.parametrize("most", [0, 100, 900_000, 2_000_000])
@pytest.mark.parametrize("key", [None, b"key", b"k" * 3_000_000])
@pytest.mark.parametrize(
    "extra", [{}, {"note": "n" * 3_000_000}, {"a": "a" * 9000, "b": "b" * 9000}]
)
def test_what_is_cut_fits_and_keeps_what_tells_of_it(
    most: int, key: bytes | None, extra: dict[str, str]
) -> None:
    kept_key, body, headers = cut(key, b"x" * 1_000_000, PUT_AWAY | extra, most)

    told = {name: value for name, value in headers.items() if name.startswith("dead-letter.")}
    own = {name: value for name, value in headers.items() if name not in told}
    assert len(kept_key or b"") + len(body) + sum(map(len, [*own, *own.values()])) <= most
    assert told.items() > {name: PUT_AWAY[name] for name in PUT_AWAY if name in told}.items()
    read = letter(headers, key=kept_key, value=body)
    assert read.body_size == 1_000_000
    assert ("key" in read.truncated) == (kept_key != key)
    assert ("body" in read.truncated) == (len(body) < 1_000_000)
    assert ("headers" in read.truncated) == (own.keys() != {*PUT_AWAY, *extra} - told.keys())
    if most > 900_000:
        assert own["tenant"] == "acme"
        assert len(body) == 1_000_000


@pytest.mark.parametrize("size", [10, 5_000, 20_000])
def test_headers_that_are_told_exactly_are_cut_as_one(size: int) -> None:
    own = [("short", b"1"), ("short", b"2"), ("long", b"\xff" * size)]
    _, body, headers = cut(b"key", b"x" * 1_000_000, put_away(own), 900_000)

    read = letter(headers, value=body)
    whole = size < 16_384 * 3 / 4
    assert ("headers" in read.truncated) == (not whole)
    assert ("short", b"2") in read.headers
    if whole:
        assert read.headers == own
    assert len(body) + sum(map(len, [*headers, *headers.values()])) < 900_000 + 10_000


def test_without_an_address_the_trace_is_its_id() -> None:
    assert as_text(letter(), State.OPEN, Links("")).endswith(f"\n      {TRACE}")


def test_a_summary_stays_short() -> None:
    summary = Summary()
    for number in range(5000):
        summary.add(letter(PUT_AWAY | {"dead-letter.topic": f"t{number}"}))
    summary.add(letter())
    assert summary.total == 5001
    assert len(str(summary)) < 300


@pytest.mark.parametrize(
    "text", ["", "0", "0/", "/1", "0/-1", "0/1/2", " 0/1", "a/b", "1/" + "9" * 30]
)
def test_what_is_no_position_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="such as 0/12"):
        Position.parse(text)


# --- What became of letters


@pytest.mark.parametrize(
    "value",
    [b"", b"[]", b"{}", b"\xff", b'{"offsets": 1}', b'{"offsets": [true]}', b'{"offsets": ["1"]}',
     b'{"offsets": [-1]}', b'{"offsets": [12]}', b"[" * 100_000,
     json.dumps({"offsets": list(range(1001))}).encode()],
)  # fmt: skip
def test_a_mark_that_cannot_be_one_is_a_letter(value: bytes) -> None:
    record = Record(Position(0, 12), NOW, None, value, [("dead-letter.mark", b"replayed")])
    assert not Ledger().note(record)


async def test_one_that_was_begun_is_free_again_after_a_while(
    topic: MemoryTopic, desk: Desk
) -> None:
    position = topic.put()
    begun = Mark(State.BEGUN, [position.offset])
    topic.put(begun.headers, begun.value, at=time.time() - 5)
    assert await desk.find(Wanted()) == [(position, State.BEGUN)]

    topic.put(begun.headers, begun.value, at=time.time() - BEGUN_SECONDS - 1)
    assert await desk.find(Wanted()) == [(position, State.UNCONFIRMED)]
    text = as_text(letter(), State.UNCONFIRMED, Links(""), begun=NOW)
    assert "[replay begun at 22:13:20 UTC, may have been sent]" in text


async def test_letters_are_found_by_what_they_are(topic: MemoryTopic, desk: Desk) -> None:
    first = topic.put()
    other = topic.put(PUT_AWAY | {"dead-letter.topic": "others"})
    third = topic.put(PUT_AWAY | {"dead-letter.error.type": "KeyError"})
    for wanted, found in [
        (Wanted(), [first, other, third]),
        (Wanted(topic="others"), [other]),
        (Wanted(error_type="NoCarrierError"), [first, other]),
        (Wanted(error_type="shop.errors.NoCarrierError", topic="events"), [first]),
        (Wanted(error_type="errors"), []),
        (Wanted(positions=frozenset({third})), [third]),
    ]:
        assert [position for position, _ in await desk.find(wanted)] == found


@pytest.mark.parametrize("position", [Position(0, 5), Position(0, 1), Position(7, 0)])
async def test_a_letter_that_is_not_there_is_named(
    topic: MemoryTopic, desk: Desk, position: Position
) -> None:
    topic.put()
    mark = Mark(State.DISCARDED, [0])
    topic.put(mark.headers, mark.value)  # 0/1: no letter either
    with pytest.raises(NotThereError, match=f"no dead letter {position}: partition"):
        await desk.find(Wanted(positions=frozenset({Position(0, 0), position})))


# --- Sending back


async def test_a_message_goes_back_as_it_was(topic: MemoryTopic, desk: Desk) -> None:
    position = topic.put(value=b'{"n": 1}')
    (outcome,) = await desk.replay()

    (sent,) = topic.sent
    span = desk.span()
    identity = context(span)
    assert sent[:3] == ("events", b"key", b'{"n": 1}')
    assert sent[3] == encoded({
        "content-type": "application/json",
        "correlation_id": "c-1",
        "tenant": "acme",
        "traceparent": f"00-{identity.trace_id:032x}-{identity.span_id:016x}"
        f"-{identity.trace_flags:02x}",
    })  # fmt: skip
    assert (outcome.reason, outcome.trace_id) == ("", f"{identity.trace_id:032x}")
    assert await desk.find(Wanted()) == [(position, State.REPLAYED)]


async def test_the_new_trace_links_to_the_old_one(topic: MemoryTopic, desk: Desk) -> None:
    topic.put()
    await desk.replay()

    span = desk.span()
    assert (span.name, span.kind, span.parent) == ("send events", SpanKind.PRODUCER, None)
    assert f"{context(span).trace_id:032x}" != TRACE
    (link,) = span.links
    assert f"{link.context.trace_id:032x}/{link.context.span_id:016x}" == f"{TRACE}/{SPAN}"
    assert dict(link.attributes or {}) == {"offset": 0}
    assert dict(span.attributes or {}) == {
        "messaging.destination.name": "events",
        "dead_letter.position": "0/0",
        "dead_letter.error.type": "shop.errors.NoCarrierError",
    }


async def test_baggage_travels_on_but_the_old_trace_does_not(
    topic: MemoryTopic, desk: Desk
) -> None:
    topic.put(PUT_AWAY | {"baggage": "tenant=acme,with_batch=True"})
    await desk.replay()
    headers = dict(topic.sent[0][3])
    assert headers["baggage"] == b"tenant=acme"
    assert TRACE.encode() not in (headers["traceparent"] or b"")


async def test_a_letter_without_a_trace_has_no_link(topic: MemoryTopic, desk: Desk) -> None:
    topic.put({name: value for name, value in PUT_AWAY.items() if name != "traceparent"})
    await desk.replay()
    assert desk.span().links == ()


async def test_none_is_sent_twice(topic: MemoryTopic, desk: Desk) -> None:
    for _ in range(2 * PAGE_LETTERS + 1):
        topic.put()
    assert len(await desk.replay()) == len(topic.sent) == 2 * PAGE_LETTERS + 1
    assert await desk.replay() == []
    assert await desk.open() == []

    again = Wanted(positions=frozenset({Position(0, 3)}))
    assert len(await desk.replay(again)) == 1
    assert len(topic.sent) == 2 * PAGE_LETTERS + 2


class Connection(MemoryTopic):
    """What somebody has before them who came at this moment, and takes so long for each step."""

    def __init__(self, topic: MemoryTopic, pause: float) -> None:
        self.topics, self.records, self.sent = topic.topics, topic.records, topic.sent
        self.fails = topic.fails
        self._end = dict(topic.end)
        self._pause = pause

    @property
    def end(self) -> Offsets:
        return self._end

    async def mark(self, partition: int, mark: Mark) -> int:
        await asyncio.sleep(self._pause)
        return await super().mark(partition, mark)


@pytest.mark.parametrize("pause", [0, 0.002, 0.02])
async def test_two_at_once_send_each_letter_once(pause: float) -> None:
    topic = MemoryTopic(partitions=3)
    for number in range(9 * PAGE_LETTERS):
        topic.put(value=str(number).encode(), partition=number % 3)
    first, second = Desk(Connection(topic, 0.001)), Desk(Connection(topic, pause))
    outcomes = await asyncio.gather(first.replay(), second.replay())

    bodies = [value for _, _, value, _ in topic.sent]
    assert len(bodies) == len(set(bodies)) == 9 * PAGE_LETTERS
    told = [outcome.reason for some in outcomes for outcome in some if outcome.reason]
    assert told
    assert set(told) == {"somebody else has it in hand just now"}
    assert await Desk(topic).open() == []


async def test_a_letter_that_cannot_go_back_stays_and_says_why(
    topic: MemoryTopic, desk: Desk
) -> None:
    gone = topic.put(PUT_AWAY | {"dead-letter.topic": "gone"})
    circular = topic.put(PUT_AWAY | {"dead-letter.topic": "dead-letters"})
    stranger = topic.put({})
    truncated = topic.put(CUT)
    good = topic.put()
    outcomes = {one.letter.position: one.reason for one in await desk.replay()}

    assert outcomes == {
        gone: "there is no topic gone; --to names another",
        circular: "it would go to dead-letters again",
        stranger: "it does not say which topic it came from; --to names one",
        truncated: "it was too large and lacks some of its headers and body; all of it is in events"
        " at 2/41, for as long as that topic keeps it",
        good: "",
    }
    assert await desk.open() == [gone, circular, stranger, truncated]
    await desk.replay(to="events")
    assert [topic for topic, *_ in topic.sent] == ["events"] * 4
    assert await desk.open() == [truncated]


async def test_one_that_fails_does_not_take_the_others_along(
    topic: MemoryTopic, desk: Desk
) -> None:
    topic.fails = {b"large": TooLargeError("too large"), b"lost": ConnectionError("no answer")}
    positions = [topic.put(value=value) for value in (b"a", b"large", b"lost", b"b")]
    outcomes = {one.letter.position: one.reason for one in await desk.replay()}

    a, large, lost, b = positions
    assert outcomes == {
        a: "", large: "TooLargeError: too large", lost: "ConnectionError: no answer", b: "",
    }  # fmt: skip
    # Of the one that may have arrived it is said that its replay was begun.
    assert await desk.find(Wanted()) == [
        (a, State.REPLAYED),
        (large, State.OPEN),
        (lost, State.BEGUN),
        (b, State.REPLAYED),
    ]
    failed = [one for one in desk.spans.get_finished_spans()
              if one.status.status_code is StatusCode.ERROR]  # fmt: skip
    assert {(one.attributes or {})["error.type"] for one in failed} == {
        f"{__name__}.TooLargeError",
        "ConnectionError",
    }


async def test_what_was_sent_is_remembered_when_the_rest_is_interrupted(
    topic: MemoryTopic, desk: Desk
) -> None:
    unsent, sent = topic.put(value=b"never answered"), topic.put(value=b"a")
    send = topic.send

    async def hang(t: str, one: Letter, headers: Headers) -> "asyncio.Future[object]":
        if one.position == unsent:
            return asyncio.get_running_loop().create_future()
        return await send(t, one, headers)

    topic.send = hang  # type: ignore[assignment,method-assign]
    task = asyncio.create_task(desk.replay())
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await desk.find(Wanted()) == [(unsent, State.BEGUN), (sent, State.REPLAYED)]
    assert len(desk.spans.get_finished_spans()) == 2


async def test_discarded_ones_are_not_sent(topic: MemoryTopic, desk: Desk) -> None:
    position = topic.put()
    search = Search(topic, Wanted())
    await search.prepare()
    letters = (letter async for letter, _ in search.letters())
    assert [one.position async for one in discard(topic, letters)] == [position]
    assert await desk.replay() == []
    assert await desk.find(Wanted()) == [(position, State.DISCARDED)]
