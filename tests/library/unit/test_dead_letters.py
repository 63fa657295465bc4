"""Dead letters are untrusted input, sent back once, and linked to their old trace."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Mapping
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, Self

import pytest
from faststream_otel.messages.broker import (
    Headers,
    NotSent,
    Raw,
    TooLarge,
    Unavailable,
    Unreachable,
)
from faststream_otel.messages.dead_letters.dead_letter import DeadLetter, Record
from faststream_otel.messages.dead_letters.headers import HEADERS, encoded_headers
from faststream_otel.messages.dead_letters.replay import (
    PAGE_DEAD_LETTERS,
    Outcome,
    Replay,
    discard,
)
from faststream_otel.messages.dead_letters.search import Filter, NotFound, Search
from faststream_otel.messages.dead_letters.sending import FailedMessage, cut, headers_of
from faststream_otel.messages.dead_letters.show import Links, Summary, as_json, as_text
from faststream_otel.messages.dead_letters.states import (
    BEGUN_SECONDS,
    TO_DO,
    State,
    StateChange,
    States,
)
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from ..spans import context

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SENT = {
    "content-type": "application/json",
    "correlation_id": "c-1",
    "tenant": "acme",
    "traceparent": f"00-{TRACE}-{SPAN}-01",
    "flow-started": "1700000000000",
    "dead-letter.channel": "events",
    "dead-letter.message-id": "2/41",
    "dead-letter.attempts": "3",
    "dead-letter.error.type": "shop.errors.NoCarrierError",
    "dead-letter.reason": "no carrier delivers to AQ",
}
NOW = 1_700_000_000.0


class MemoryStore:
    """A store in memory, with ids that no broker uses: `a#12`."""

    def __init__(self, logs: str = "a") -> None:
        self.channels = {"events", "dead-letters"}
        self.logs: dict[str, list[Record]] = {log: [] for log in logs}
        self.sent: list[tuple[str, bytes | None, bytes | None, Headers]] = []
        self.fails: dict[bytes, Exception] = {}
        """By body, the error that sending it raises."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None: ...

    def put(
        self,
        headers: Mapping[str, str] = SENT,
        body: bytes | None = b"{}",
        *,
        log: str = "a",
        at: float = NOW,
    ) -> str:
        id = f"{log}#{len(self.logs[log])}"
        self.logs[log].append(Record(id, at, b"key", body, encoded_headers(headers)))
        return id

    def change(self, state: State, *ids: str, at: float | None = None) -> str:
        change = StateChange(state, ids)
        return self.put(change.headers, change.body, at=at or time.time())

    async def exists(self, channel: str) -> bool:
        return channel in self.channels

    def order(self, id: str) -> tuple[str, int]:
        log, hash_sign, place = id.partition("#")
        if not hash_sign or not place.isdecimal():
            raise ValueError(f"{id} is no id such as a#12")
        return log, int(place)

    async def read(self, start: Mapping[str, str] | None = None) -> AsyncGenerator[Record, None]:
        begin = {log: self.order(id)[1] for log, id in (start or {}).items()}
        for log in self.logs if start is None else begin:
            for record in tuple(self.logs.get(log, ()))[begin.get(log, 0) :]:
                yield record

    async def append(self, log: str, body: bytes, headers: Mapping[str, str]) -> str:
        return self.put(headers, body, log=log, at=time.time())

    async def send(
        self, channel: str, dead_letter: DeadLetter, headers: Headers
    ) -> "asyncio.Future[object]":
        self.sent.append((channel, dead_letter.record.key, dead_letter.body, headers))
        future: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        if error := self.fails.get(dead_letter.body or b""):
            future.set_exception(error)
        else:
            future.set_result(None)
        return future

    def attributes(
        self, channel: str, dead_letter: DeadLetter
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        return {"messaging.destination.name": channel}, {"id": dead_letter.id}


class Operator:
    """Searches and replays dead letters, and records the spans."""

    def __init__(self, store: MemoryStore) -> None:
        self.store = store
        self.spans = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self.spans))
        self.tracer = provider.get_tracer("test")

    async def find(self, filter: Filter | None = None) -> list[tuple[str, State]]:
        search = Search(self.store, filter or Filter())
        await search.prepare()
        return [(dead_letter.id, state) async for dead_letter, state in search.dead_letters()]

    async def open(self) -> list[str]:
        return [id for id, _ in await self.find(Filter(states=TO_DO))]

    async def replay(self, filter: Filter | None = None, to: str | None = None) -> list[Outcome]:
        search = Search(self.store, filter or Filter(states=TO_DO))
        await search.prepare()
        replay = Replay(self.store, self.tracer, search.ends, to)
        found = (dead_letter async for dead_letter, _ in search.dead_letters())
        return [outcome async for outcome in replay.send(found)]

    def span(self) -> ReadableSpan:
        (span,) = self.spans.get_finished_spans()
        return span


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def operator(store: MemoryStore) -> Operator:
    return Operator(store)


def dead_letter(headers: Mapping[str, str] = SENT, **record: Any) -> DeadLetter:
    known: dict[str, Any] = {"timestamp": NOW, "key": b"key", "body": b"{}"}
    return DeadLetter(Record("a#12", headers=encoded_headers(headers), **(known | record)))


# --- A dead letter


def sent_headers(headers: Headers, error: Exception | None = None) -> dict[str, str]:
    message: Any = SimpleNamespace(correlation_id="c-1")
    failed = FailedMessage(message, error or KeyError(), 3)
    return headers_of(failed, Raw("events", "2/41", b"key", b"{}", headers))


def test_a_dead_letter_can_be_read() -> None:
    passing = [("traceparent", b"old"), ("flow-started", b"1"), ("baggage", b"a=b")]
    own = [("tenant", b"acme"), ("dead-letter.channel", b"forged"), ("content-type", b"text/plain")]
    read = dead_letter(sent_headers([*passing, *own], KeyError("x" * 2000)))

    assert (read.channel, read.message_id, read.attempts) == ("events", "2/41", 3)
    assert read.error_type == "KeyError"
    assert 900 < len(read.reason) <= 1000
    assert read.headers == own


def test_headers_that_are_text_are_written_once() -> None:
    own = [("content-type", b"text/plain"), ("correlation_id", b"c-1"), ("tenant", b"\xc3\xa9")]
    headers = sent_headers([*own, ("traceparent", b"old")])
    assert HEADERS not in headers
    assert dead_letter(headers).headers == own


@pytest.mark.parametrize(
    ("own", "written"),
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
def test_other_headers_are_stored_as_json(own: Headers, written: str) -> None:
    headers = sent_headers(own)
    assert headers[HEADERS] == written
    assert dead_letter(headers).headers == own


@pytest.mark.parametrize("repeated", [1, 2])
def test_a_trace_context_with_any_case_is_not_sent_back(repeated: int) -> None:
    own = [("content-type", b"text/plain"), ("correlation_id", b"c-1"), *[("n", b"1")] * repeated]
    headers = sent_headers(
        [*own, ("Traceparent", b"old"), ("TRACESTATE", b"old"), ("Baggage", b"old")]
    )
    assert (HEADERS in headers) == (repeated > 1)
    assert dead_letter(headers).headers == own


@pytest.mark.parametrize(
    "malformed",
    ["", "[", "{}", '{"ab":1}', '"ab"', "null", '["ab"]', '[["a"]]', '[["a",1]]', '[[1,"a"]]',
     '[["a",["b"]]]', '[["a",{}]]', '[["a",{"base64":1}]]', '[["a",{"base64":"?"}]]',
     '[["a",{"base64":"é"}]]', '[["a","\\ud800"]]', '[["\\udc00","a"]]', "[" * 100_000,
     '[["a","1"],["b","2","3"]]', "[[" + "9" * 5000 + ",null]]"],
)  # fmt: skip
def test_malformed_json_headers_are_ignored(
    malformed: str,
) -> None:
    read = dead_letter(SENT | {"dead-letter.headers": malformed})
    assert read.headers == dead_letter().headers
    assert json.loads(as_json(read, State.OPEN, Links("")))["headers"]["tenant"] == "acme"


def test_headers_of_any_kind_are_shown() -> None:
    read = dead_letter(
        sent_headers([("tenant", b"acme"), ("n", b"1"), ("n", None), ("b", b"\xff\x1b")])
    )
    shown = json.loads(as_json(read, State.OPEN, Links("")))
    assert shown["headers"] == {"tenant": "acme", "n": ["1", None], "b": {"base64": "/xs="}}
    text = as_text(read, State.OPEN, Links(""), body=True)
    assert '      headers: tenant: "acme", n: "1", n: null, b: {"base64": "/xs="}\n' in text


@pytest.mark.parametrize(("key", "shown"), [(None, None), (b"", ""), (b"\xffk", "\ufffdk")])
def test_an_empty_key_is_not_none(key: bytes | None, shown: str | None) -> None:
    assert json.loads(as_json(dead_letter(key=key), State.OPEN, Links("")))["key"] == shown


def test_a_dead_letter_has_its_trace_and_its_time() -> None:
    assert dead_letter().trace_id == TRACE
    assert dead_letter().at == datetime.fromtimestamp(NOW, UTC)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"traceparent": "00-zz-zz-01", "dead-letter.attempts": "²"},
        {
            "dead-letter.message-id": "9" * 400,
            "dead-letter.body-size": "9" * 400,
            "baggage": "=,;=",
            "tracestate": "\x00",
        },
        {"dead-letter.state": "replayed"},
        {
            "dead-letter.state": "\x1b[2J",
            "dead-letter.reason": "\x1b[2J\r\n\x07",
            "content-type": "",
        },
    ],
)
@pytest.mark.parametrize(("timestamp", "body"), [(-0.001, None), (1e18, b"\xff\x00")])
def test_a_record_of_another_program_can_be_listed(
    headers: dict[str, str], timestamp: float, body: bytes | None
) -> None:
    stranger = dead_letter(headers, timestamp=timestamp, body=body, key=b"\xff")

    text = as_text(stranger, State.OPEN, Links("http://g/{trace_id}"), body=True)
    assert "not from a service" in text
    assert "no time" in text
    assert all(character.isprintable() for character in text.replace("\n", ""))
    shown = json.loads(as_json(stranger, State.OPEN, Links("")))
    assert shown["id"] == "a#12"
    assert (shown["channel"], shown["at"], shown["trace"]) == (None, None, None)


def test_a_dead_letter_is_shown_in_a_few_lines() -> None:
    links = Links("http://grafana/d/traces?trace={trace_id}&from=now-{age}")
    text = as_text(dead_letter(timestamp=time.time() - 7300), State.OPEN, links)
    first, reason, trace = text.split("\n")

    assert first.startswith("a#12  ")
    assert first.endswith("  events 2/41  NoCarrierError, 3 attempts")
    assert reason == "      no carrier delivers to AQ"
    assert trace == f"      http://grafana/d/traces?trace={TRACE}&from=now-4h"


CUT = SENT | {"dead-letter.truncated": "headers,body", "dead-letter.body-size": "5000"}


def test_a_cut_dead_letter_shows_what_was_cut() -> None:
    text = as_text(dead_letter(CUT, body=b"a" * 4000), State.OPEN, Links(""))
    assert "  [cut: headers, body (4000 of 5000 bytes)]\n" in text
    shown = json.loads(as_json(dead_letter(CUT), State.OPEN, Links("")))
    assert (shown["truncated"], shown["body_size"]) == (["headers", "body"], 5000)
    whole = json.loads(as_json(dead_letter(), State.OPEN, Links("")))
    assert (whole["truncated"], whole["body_size"]) == (None, None)


@pytest.mark.parametrize("limit", [0, 100, 900_000, 2_000_000])
@pytest.mark.parametrize("key", [None, b"key", b"k" * 3_000_000])
@pytest.mark.parametrize(
    "extra", [{}, {"note": "n" * 3_000_000}, {"a": "a" * 9000, "b": "b" * 9000}]
)
def test_a_cut_dead_letter_fits_and_keeps_the_reason(
    limit: int, key: bytes | None, extra: dict[str, str]
) -> None:
    kept_key, body, headers = cut(key, b"x" * 1_000_000, SENT | extra, limit)

    shown = {name: value for name, value in headers.items() if name.startswith("dead-letter.")}
    own = {name: value for name, value in headers.items() if name not in shown}
    assert len(kept_key or b"") + len(body) + sum(map(len, [*own, *own.values()])) <= limit
    assert shown.items() > {name: SENT[name] for name in SENT if name in shown}.items()
    read = dead_letter(headers, key=kept_key, body=body)
    assert read.body_size == 1_000_000
    assert ("key" in read.truncated) == (kept_key != key)
    assert ("body" in read.truncated) == (len(body) < 1_000_000)
    assert ("headers" in read.truncated) == (own.keys() != {*SENT, *extra} - shown.keys())
    if limit > 900_000:
        assert own["tenant"] == "acme"
        assert len(body) == 1_000_000


@pytest.mark.parametrize("size", [10, 5_000, 20_000])
def test_json_headers_are_kept_whole_or_dropped(size: int) -> None:
    own = [("short", b"1"), ("short", b"2"), ("long", b"\xff" * size)]
    _, body, headers = cut(b"key", b"x" * 1_000_000, sent_headers(own), 900_000)

    read = dead_letter(headers, body=body)
    whole = size < 16_384 * 3 / 4
    assert ("headers" in read.truncated) == (not whole)
    assert ("short", b"2") in read.headers
    if whole:
        assert read.headers == own
    assert len(body) + sum(map(len, [*headers, *headers.values()])) < 900_000 + 10_000


def test_without_a_trace_url_the_trace_id_is_shown() -> None:
    assert as_text(dead_letter(), State.OPEN, Links("")).endswith(f"\n      {TRACE}")


def test_a_summary_stays_short() -> None:
    summary = Summary()
    for number in range(5000):
        summary.add(dead_letter(SENT | {"dead-letter.channel": f"t{number}"}))
    summary.add(dead_letter())
    assert summary.total == 5001
    assert len(str(summary)) < 300


# --- States


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{}", b"\xff", b'{"ids": 1}', b'{"ids": [true]}', b'{"ids": ["1"]}',
     b'{"ids": ["a#-1"]}', b'{"ids": ["a#12"]}', b'{"ids": ["b#1"]}', b"[" * 100_000,
     json.dumps({"ids": ["a#1"] * 1001}).encode()],
)  # fmt: skip
def test_a_malformed_change_of_state_is_a_dead_letter(body: bytes) -> None:
    record = Record("a#12", NOW, None, body, [("dead-letter.state", b"replayed")])
    states = States(MemoryStore("ab").order)
    assert not states.apply(record)
    assert states.of("a#1") is states.of("b#1") is State.OPEN


async def test_a_replay_that_was_begun_becomes_unconfirmed(
    store: MemoryStore, operator: Operator
) -> None:
    id = store.put()
    store.change(State.BEGUN, id, at=time.time() - 5)
    assert await operator.find() == [(id, State.BEGUN)]

    store.change(State.BEGUN, id, at=time.time() - BEGUN_SECONDS - 1)
    assert await operator.find() == [(id, State.UNCONFIRMED)]
    text = as_text(dead_letter(), State.UNCONFIRMED, Links(""), begun=NOW)
    assert "[replay begun at 22:13:20 UTC, may have been sent]" in text
    assert [one.reason for one in await operator.replay()] == [""]


@pytest.mark.parametrize("begun", [-1.0, 1e18])
def test_a_replay_that_was_begun_at_an_invalid_time_can_be_listed(begun: float) -> None:
    text = as_text(dead_letter(), State.UNCONFIRMED, Links(""), begun=begun)
    assert "[replay begun, may have been sent]" in text


async def test_a_filter_finds_the_matching_dead_letters(
    store: MemoryStore, operator: Operator
) -> None:
    first = store.put()
    other = store.put(SENT | {"dead-letter.channel": "others"})
    third = store.put(SENT | {"dead-letter.error.type": "KeyError"})
    for filter, found in [
        (Filter(), [first, other, third]),
        (Filter(channel="others"), [other]),
        (Filter(error_type="NoCarrierError"), [first, other]),
        (Filter(error_type="shop.errors.NoCarrierError", channel="events"), [first]),
        (Filter(error_type="errors"), []),
        (Filter(ids=frozenset({third})), [third]),
        (Filter(ids=frozenset({third, first})), [first, third]),
    ]:
        assert [id for id, _ in await operator.find(filter)] == found


@pytest.mark.parametrize("id", ["a#5", "a#1", "b#0"])
async def test_the_error_names_a_dead_letter_that_does_not_exist(
    store: MemoryStore, operator: Operator, id: str
) -> None:
    there = store.put()
    store.change(State.DISCARDED, there)  # a#1 is a record, but not a dead letter
    with pytest.raises(NotFound, match=f"no dead letter {id}"):
        await operator.find(Filter(ids=frozenset({there, id})))


async def test_records_that_are_appended_during_a_search_are_ignored(
    store: MemoryStore, operator: Operator
) -> None:
    id = store.put()
    search = Search(store, Filter())
    await search.prepare()
    later = store.put()
    store.change(State.DISCARDED, later)
    assert [one.id async for one, _ in search.dead_letters()] == [id]


# --- Sending back


async def test_a_message_is_sent_back_unchanged(store: MemoryStore, operator: Operator) -> None:
    id = store.put(body=b'{"n": 1}')
    (outcome,) = await operator.replay()

    (sent,) = store.sent
    span = operator.span()
    identity = context(span)
    assert sent[:3] == ("events", b"key", b'{"n": 1}')
    assert sent[3] == encoded_headers({
        "content-type": "application/json",
        "correlation_id": "c-1",
        "tenant": "acme",
        "traceparent": f"00-{identity.trace_id:032x}-{identity.span_id:016x}"
        f"-{identity.trace_flags:02x}",
    })  # fmt: skip
    assert (outcome.reason, outcome.trace_id) == ("", f"{identity.trace_id:032x}")
    assert await operator.find() == [(id, State.REPLAYED)]


async def test_the_new_trace_links_to_the_old_one(store: MemoryStore, operator: Operator) -> None:
    store.put()
    await operator.replay()

    span = operator.span()
    assert (span.name, span.kind, span.parent) == ("send events", SpanKind.PRODUCER, None)
    assert f"{context(span).trace_id:032x}" != TRACE
    (link,) = span.links
    assert f"{link.context.trace_id:032x}/{link.context.span_id:016x}" == f"{TRACE}/{SPAN}"
    assert dict(link.attributes or {}) == {"id": "a#0"}
    assert dict(span.attributes or {}) == {
        "messaging.destination.name": "events",
        "dead_letter.id": "a#0",
        "dead_letter.error.type": "shop.errors.NoCarrierError",
    }


async def test_baggage_travels_on_but_the_old_trace_does_not(
    store: MemoryStore, operator: Operator
) -> None:
    store.put(SENT | {"baggage": "tenant=acme,with_batch=True"})
    await operator.replay()
    headers = dict(store.sent[0][3])
    assert headers["baggage"] == b"tenant=acme"
    assert TRACE.encode() not in (headers["traceparent"] or b"")


async def test_a_dead_letter_without_a_trace_has_no_link(
    store: MemoryStore, operator: Operator
) -> None:
    store.put({name: value for name, value in SENT.items() if name != "traceparent"})
    await operator.replay()
    assert operator.span().links == ()


async def test_no_dead_letter_is_sent_twice(store: MemoryStore, operator: Operator) -> None:
    for _ in range(2 * PAGE_DEAD_LETTERS + 1):
        store.put()
    assert len(await operator.replay()) == len(store.sent) == 2 * PAGE_DEAD_LETTERS + 1
    assert await operator.replay() == []
    assert await operator.open() == []

    again = Filter(ids=frozenset({"a#3"}))
    assert len(await operator.replay(again)) == 1
    assert len(store.sent) == 2 * PAGE_DEAD_LETTERS + 2


class Connection(MemoryStore):
    """A connection to a store on which appending a record takes this many seconds."""

    def __init__(self, store: MemoryStore, pause: float) -> None:
        self.channels, self.logs = store.channels, store.logs
        self.sent, self.fails = store.sent, store.fails
        self._pause = pause

    async def append(self, log: str, body: bytes, headers: Mapping[str, str]) -> str:
        await asyncio.sleep(self._pause)
        return await super().append(log, body, headers)


BUSY = "another replay is sending it right now"


@pytest.mark.parametrize("pause", [0, 0.002, 0.02])
async def test_two_concurrent_replays_send_each_dead_letter_once(pause: float) -> None:
    store = MemoryStore("abc")
    for number in range(9 * PAGE_DEAD_LETTERS):
        store.put(body=str(number).encode(), log="abc"[number % 3])
    first, second = Operator(Connection(store, 0.001)), Operator(Connection(store, pause))
    outcomes = await asyncio.gather(first.replay(), second.replay())

    bodies = [body for _, _, body, _ in store.sent]
    assert len(bodies) == len(set(bodies)) == 9 * PAGE_DEAD_LETTERS
    reasons = [outcome.reason for some in outcomes for outcome in some if outcome.reason]
    assert reasons
    assert set(reasons) == {BUSY}
    assert await Operator(store).open() == []


async def test_four_concurrent_replays_send_a_dead_letter_once(store: MemoryStore) -> None:
    store.put()
    operators = [Operator(Connection(store, 0.001 * number)) for number in range(4)]
    outcomes = await asyncio.gather(*(operator.replay() for operator in operators))
    assert sorted(outcome.reason for some in outcomes for outcome in some) == ["", *[BUSY] * 3]
    assert len(store.sent) == 1


async def test_nothing_is_sent_if_the_order_of_replays_is_unknown(
    store: MemoryStore, operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with a replica that lags behind."""
    id = store.put()

    async def append_elsewhere(log: str, body: bytes, headers: Mapping[str, str]) -> str:
        return "a#7"

    monkeypatch.setattr(store, "append", append_elsewhere)
    with pytest.raises(Unreachable, match="a#7"):
        await operator.replay()
    assert store.sent == []
    assert await operator.open() == [id]


async def test_a_dead_letter_that_cannot_be_sent_stays_open_with_a_reason(
    store: MemoryStore, operator: Operator
) -> None:
    gone = store.put(SENT | {"dead-letter.channel": "gone"})
    circular = store.put(SENT | {"dead-letter.channel": "dead-letters"})
    stranger = store.put({})
    truncated = store.put(CUT)
    good = store.put()
    outcomes = {one.dead_letter.id: one.reason for one in await operator.replay()}

    assert outcomes == {
        gone: "the channel gone does not exist; name another with --to",
        circular: "it would go back to dead-letters",
        stranger: "it does not say which channel it came from; name one with --to",
        truncated: "it was too large, so some of its headers and body was cut; the original is"
        " message 2/41 of events, while that channel still keeps it",
        good: "",
    }
    assert await operator.open() == [gone, circular, stranger, truncated]
    await operator.replay(to="events")
    assert [channel for channel, *_ in store.sent] == ["events"] * 4
    assert await operator.open() == [truncated]


async def test_one_failed_dead_letter_does_not_stop_the_others(
    store: MemoryStore, operator: Operator
) -> None:
    store.fails = {
        b"large": TooLarge("too large"),
        b"lost": Unavailable("no answer"),
        b"nowhere": NotSent("no queue"),
    }
    ids = [store.put(body=body) for body in (b"a", b"large", b"lost", b"nowhere", b"b")]
    outcomes = {one.dead_letter.id: one.reason for one in await operator.replay()}

    a, large, lost, nowhere, b = ids
    assert outcomes == {
        a: "", large: "too large", lost: "no answer", nowhere: "no queue", b: ""
    }  # fmt: skip
    # The dead letter that may have arrived stays begun.
    assert await operator.find() == [
        (a, State.REPLAYED),
        (large, State.OPEN),
        (lost, State.BEGUN),
        (nowhere, State.OPEN),
        (b, State.REPLAYED),
    ]
    failed = [one for one in operator.spans.get_finished_spans()
              if one.status.status_code is StatusCode.ERROR]  # fmt: skip
    assert {(one.attributes or {})["error.type"] for one in failed} == {
        f"{TooLarge.__module__}.TooLarge",
        f"{Unavailable.__module__}.Unavailable",
        f"{NotSent.__module__}.NotSent",
    }


async def test_an_interrupted_replay_records_what_was_sent(
    store: MemoryStore, operator: Operator
) -> None:
    unsent, sent = store.put(body=b"never answered"), store.put(body=b"a")
    send = store.send

    async def hang(channel: str, one: DeadLetter, headers: Headers) -> "asyncio.Future[object]":
        if one.id == unsent:
            return asyncio.get_running_loop().create_future()
        return await send(channel, one, headers)

    store.send = hang  # type: ignore[assignment,method-assign]
    task = asyncio.create_task(operator.replay())
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await operator.find() == [(unsent, State.BEGUN), (sent, State.REPLAYED)]
    assert len(operator.spans.get_finished_spans()) == 2


async def test_discarded_dead_letters_are_not_sent(store: MemoryStore, operator: Operator) -> None:
    id = store.put()
    search = Search(store, Filter())
    await search.prepare()
    found = (dead_letter async for dead_letter, _ in search.dead_letters())
    assert [one.id async for one in discard(store, found)] == [id]
    assert await operator.replay() == []
    assert await operator.find() == [(id, State.DISCARDED)]
