"""The drills find losses: checked with made-up records and spans."""

import json
import os
import pkgutil
import re
import runpy
import shutil
import subprocess
import sys
import threading
import time
import uuid
from dataclasses import replace
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from itertools import cycle
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar
from urllib.error import HTTPError

import pytest
import yaml
from confluent_kafka import KafkaError, KafkaException
from e2e.apis import Span, Tempo
from matrix import OPTIONS, TEMPLATE
from ports import free_ports

from bench.drills import page, report
from bench.drills.accounting import (
    Headers,
    Placed,
    Record,
    Store,
    Unread,
    changed,
    follow,
    look_up,
)
from bench.drills.brokers.kafka import InKafka, _asked
from bench.drills.faults import __path__ as drills
from bench.drills.flow import ENDS
from bench.drills.intake import Intake
from bench.drills.promises import (
    BROKER,
    PROMISES,
    Figures,
    Interruption,
    Promise,
    broken,
    drills_for,
)
from bench.drills.site import Run, add_trial
from bench.drills.traces import InTempo, TooLargeError, spans_found

TRACE = {kind: f"{number:032x}" for number, kind in enumerate(("good", "declined", "failing"), 1)}
TIME = 1_000_000.0


def parent(trace: str, span: str) -> dict[str, str]:
    return {"traceparent": f"00-{trace}-{span:0>16}-01"}


def record(channel: str, kind: str, span: str, offset: int, **headers: str) -> Record:
    value = json.dumps({"order_id": kind, "version": 1}).encode()
    return Record(channel, f"0/{offset}", TIME, value, parent(TRACE[kind], span) | headers)


LETTER = {
    "dead-letter.channel": "payments.authorized",
    "dead-letter.message-id": "0/1",
    "dead-letter.attempts": "3",
}
RECORDS = [
    record("orders.placed", "good", "a1", 0),
    record("orders.placed", "declined", "b1", 1),
    record("orders.placed", "failing", "c1", 2),
    record("payments.authorized", "good", "a2", 0),
    record("payments.authorized", "failing", "c2", 1),
    record("payments.declined", "declined", "b2", 0),
    record("shipments.dispatched", "good", "a3", 0),
    record("dead-letters", "failing", "c3", 0, **LETTER),
]
UNREAD = {("orders.placed", ""): 0, ("shipments.dispatched", ""): 0}
ORDERS = [Placed(kind, trace, kind, TIME) for kind, trace in TRACE.items()]


def span(kind: str, number: str, above: str, service: str, name: str, **more: object) -> Span:
    sort = {"POST": "SERVER", "send": "PRODUCER", "process": "CONSUMER"}
    made = Span(
        TRACE.get(kind, kind), f"{number:0>16}", f"{above:0>16}" if above else "", service, name,
        sort.get(name.split()[0], "INTERNAL"), "UNSET",
    )  # fmt: skip
    return replace(made, **more)  # type: ignore[arg-type]


def position(offset: int) -> dict[str, object]:
    return {
        "messaging.destination.template": "payments.authorized",
        "messaging.destination.partition.id": "0",
        "messaging.kafka.offset": offset,
    }


SPANS = [
    *(
        made
        for kind, number in zip(TRACE, "abc", strict=True)
        for made in (
            span(kind, f"{number}0", "", "orders", "POST /orders"),
            span(kind, f"{number}1", f"{number}0", "orders", "send orders.placed"),
            span(kind, f"{number}4", f"{number}1", "payments", "process orders.placed"),
            span(kind, f"{number}5", f"{number}4", "payments", "authorize card"),
        )
    ),
    span("good", "a2", "a4", "payments", "send payments.authorized"),
    span("good", "a6", "a2", "shipping", "process payments.authorized", attributes=position(0)),
    span("good", "a3", "a6", "shipping", "send shipments.dispatched"),
    span("declined", "b2", "b4", "payments", "send payments.declined"),
    span("failing", "c2", "c4", "payments", "send payments.authorized"),
    span("failing", "c6", "c2", "shipping", "process payments.authorized", attributes=position(1)),
    span("failing", "c7", "c6", "shipping", "retry payments.authorized"),
    span("failing", "c8", "c6", "shipping", "retry payments.authorized"),
    span("failing", "c3", "c6", "shipping", "send dead-letters"),
    span(
        "d" * 32, "d1", "", "notifications", "process payments.declined",
        links=[(TRACE["declined"], f"{'b2':0>16}")],
    ),
    span(
        "e" * 32, "e1", "", "notifications", "process shipments.dispatched",
        links=[(TRACE["good"], f"{'a3':0>16}")],
    ),
]  # fmt: skip


def figures(
    records: list[Record] = RECORDS,
    spans: list[Span] = SPANS,
    orders: list[Placed] = ORDERS,
    unread: Unread = UNREAD,
    interruptions: tuple[Interruption, ...] = (),
) -> Figures:
    messages = follow(orders, records, unread)
    return Figures(
        3, 50.0, messages, look_up(orders, records, unread, stored(spans)), interruptions
    )


def stored(spans: list[Span]) -> Store:
    return Store(InKafka("").id_of, spans)


def test_nothing_is_lost_where_all_is_there() -> None:
    found = figures()
    assert broken(Promise("none"), found) == []
    assert (found.messages.handled, found.messages.dead_letters) == (3, 1)
    assert found.spans.expected == len(SPANS)


@pytest.mark.parametrize("left_out", SPANS, ids=lambda one: f"{one.service} {one.name}")
def test_each_span_that_is_missing_is_found(left_out: Span) -> None:
    found = figures(spans=[one for one in SPANS if one is not left_out])
    assert found.spans.missing
    assert "spans lost" in broken(Promise("none"), found)[0]


@pytest.mark.parametrize(
    "channel", ["orders.placed", *(one for one in ENDS if one != "trial.done")]
)
def test_an_order_that_is_in_no_topic_or_comes_to_no_end_is_lost(channel: str) -> None:
    kept = [one for one in RECORDS if one.channel != channel]
    assert figures(kept).messages.lost
    assert "orders lost" in broken(Promise("none"), figures(kept))[0]


def test_an_order_that_was_never_acknowledged_must_end_too() -> None:
    kept = [one for one in RECORDS if one.channel != "shipments.dispatched"]
    assert figures(kept, orders=ORDERS[1:]).messages.lost == ["good"]


def test_an_unacknowledged_message_is_unread_and_its_span_is_not_expected() -> None:
    unhandled = [one for one in SPANS if one.name != "process shipments.dispatched"]
    found = figures(spans=unhandled, unread={**UNREAD, ("shipments.dispatched", ""): 1})
    assert found.messages.unread == {"notifications.shipments.dispatched": 1}
    assert "unread" in broken(Promise("none"), found)[0]
    assert not found.spans.missing


def test_the_last_messages_of_a_partition_are_the_unread_ones() -> None:
    spans = [one for one in SPANS if one.name != "process orders.placed" or one.span_id[-2] != "c"]
    assert {one.trace_id for one in figures(spans=spans).spans.missing} == {TRACE["failing"]}
    assert not figures(spans=spans, unread={("orders.placed", ""): 1}).spans.missing
    assert figures(spans=spans, unread={("orders.placed", "1"): 1}).spans.missing


def test_an_order_that_ends_where_its_kind_does_not_is_astray() -> None:
    letter = record("dead-letters", "good", "a9", 1)
    assert figures([*RECORDS, letter]).messages.astray == ["good"]


def test_a_duplicate_may_be_there_only_if_it_was_in_flight() -> None:
    again = replace(record("payments.authorized", "good", "a2", 2), at=TIME + 9)
    in_flight = Promise("a stop", duplicates="in flight")
    records = [*RECORDS, again]
    assert "twice" in broken(Promise("none"), figures(records))[0]
    for what, start, fits in (
        ("payments", TIME + 1, True),
        (BROKER, TIME + 1, True),
        ("shipping", TIME + 1, False),  # which did not send it
        ("payments", TIME + 100, False),
    ):
        interruption = Interruption(what, start, start + 8)
        found = broken(in_flight, figures(records, interruptions=(interruption,)))
        assert bool(found) != fits, (what, start, found)


def test_what_follows_from_a_duplicate_may_be_there_twice_too() -> None:
    again = [
        replace(record("payments.authorized", "good", "a2", 2), at=TIME + 9),
        replace(record("shipments.dispatched", "good", "a3", 2), at=TIME + 9),
    ]
    interruption = (Interruption("payments", TIME + 1, TIME + 8),)
    promise = Promise("a stop", duplicates="in flight")
    assert broken(promise, figures([*RECORDS, *again], interruptions=interruption)) == []
    assert "twice" in broken(promise, figures([*RECORDS, again[1]], interruptions=interruption))[0]


GIVEN: Headers = [("traceparent", b"old"), ("n", b"\xff"), ("n", None), ("t", b"1")]
EXACTLY = '[["n",{"base64":"/w=="}],["n",null],["t","1"]]'


@pytest.mark.parametrize(
    ("letter", "parts"),
    [
        ({}, []),
        ({"key": b""}, ["key"]),
        ({"value": b"{]"}, ["body"]),
        ({"headers": {"dead-letter.headers": EXACTLY.replace("null", '""')}}, ["headers"]),
        ({"headers": {}, "exact": [("dead-letter.channel", b"t"), ("t", b"1")]}, ["headers"]),
    ],
)
def test_a_dead_letter_that_changes_the_message_is_found(
    letter: dict[str, Any], parts: list[str]
) -> None:
    message = Record("orders.placed", "0", TIME, b"{", {}, None, GIVEN)
    whole = Record("dead-letters", "0", TIME, b"{", {"dead-letter.headers": EXACTLY})
    assert changed(replace(whole, **letter), message) == parts


def test_headers_that_are_text_are_in_the_dead_letter_itself() -> None:
    message = Record("orders.placed", "0", TIME, b"{", exact=[("content-type", b"j"), ("t", b"1")])
    own = [("traceparent", b"new"), ("dead-letter.channel", b"orders.placed")]
    for content_type, parts in ((b"j", []), (b"", ["headers"])):
        there = [("content-type", content_type), ("t", b"1"), *own]
        letter = Record("dead-letters", "0", TIME, b"{", exact=there)
        assert changed(letter, message) == parts


def test_a_killed_process_may_take_with_it_only_what_it_had_not_exported() -> None:
    lost = [one for one in SPANS if one.name != "send payments.declined"]
    promise = Promise("kill -9", missing="unexported")

    def killed(service: str, at: float) -> tuple[Interruption, ...]:
        return (Interruption(service, at, at + 1, killed=True),)

    assert broken(promise, figures(spans=lost, interruptions=killed("payments", TIME + 3))) == []
    for other in (killed("shipping", TIME + 3), killed("payments", TIME + 30)):
        assert "spans lost" in broken(promise, figures(spans=lost, interruptions=other))[0]


def test_a_span_that_is_read_again_may_have_more_links() -> None:
    batch = next(one for one in SPANS if one.links)
    store = stored([replace(batch, links=[]), batch])
    assert store.linked(batch.links[0]) == [replace(batch, links=[])]


def test_a_message_without_a_trace_is_found_by_where_it_lies() -> None:
    bare = replace(RECORDS[3], headers={"drill": "1"})
    records = [bare if one is RECORDS[3] else one for one in RECORDS]
    rooted = [replace(one, parent_id="") if one.attributes == position(0) else one
              for one in SPANS]  # fmt: skip
    assert broken(Promise("none"), figures(records, rooted)) == []
    gone = [one for one in rooted if one.attributes != position(0)]
    (missing,) = figures(records, gone).spans.missing
    assert missing.what == "process payments.authorized"
    assert missing.trace_id == TRACE["good"]


class Shop(BaseHTTPRequestHandler):
    """Accepts every third order, refuses the next, and the third without Retry-After."""

    answers = cycle([(202, {}), (503, {"Retry-After": "5"}), (503, {})])
    lock = threading.Lock()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        with self.lock:
            status, headers = next(self.answers)
        accepted = json.dumps({"order_id": str(uuid.uuid4()), "trace_id": TRACE["good"]}).encode()
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(accepted))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(accepted)

    def log_message(self, format: str, *arguments: object) -> None:
        """Log nothing."""


def test_the_intake_keeps_its_rate_and_tells_answers_apart() -> None:
    (closed,) = free_ports(1)
    with ThreadingHTTPServer(("127.0.0.1", 0), Shop) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            with Intake([closed, server.server_port], rate=100) as intake:
                time.sleep(1.5)
        finally:
            server.shutdown()
    assert 50 < intake.rate_reached < 120  # fewer on a busy machine
    assert intake.unreachable == intake.unanswered == 0
    assert len({order.order_id for order in intake.placed}) == pytest.approx(intake.sent / 3, abs=1)
    assert intake.refusals["503"] == pytest.approx(intake.sent / 3, abs=1)
    assert len(intake.placed) + intake.refusals.total() == intake.sent
    assert "503 without Retry-After" in intake.described()


def test_an_order_that_nobody_accepts_is_counted_and_not_acknowledged() -> None:
    with Intake(free_ports(2), rate=50) as intake:
        time.sleep(0.3)
    assert intake.unreachable == intake.sent > 0
    assert not intake.placed


FOUND = {
    "traceID": "1",  # Tempo leaves out the zeros that an id begins with
    "spanSets": [
        {
            "matched": 1,
            "spans": [
                {
                    "spanID": "a4",
                    "name": "process orders.placed",
                    "startTimeUnixNano": "5000000000",
                    "durationNanos": "1000",
                    "attributes": [
                        {"key": "service.name", "value": {"stringValue": "payments"}},
                        {"key": "kind", "value": {"stringValue": "consumer"}},
                        {"key": "span:parentID", "value": {"stringValue": "00000000000000a1"}},
                        {"key": "messaging.kafka.offset", "value": {"intValue": "7"}},
                    ],
                }
            ],
        }
    ],
}


def test_a_span_is_read_from_a_search_result() -> None:
    (found,) = spans_found(FOUND)
    wanted = span("good", "a4", "a1", "payments", "process orders.placed")
    assert found == replace(
        wanted, status="", attributes=found.attributes, start_ns=5 * 10**9, end_ns=5 * 10**9 + 1000
    )
    assert found.attributes["messaging.kafka.offset"] == 7


def test_an_incomplete_search_result_is_an_error() -> None:
    less = {**FOUND, "spanSets": [{**FOUND["spanSets"][0], "matched": 2}]}  # type: ignore[dict-item]
    with pytest.raises(OSError, match="more than"):
        list(spans_found(less))


class Searched(Tempo):
    """Answers searches for batches like Tempo: with one link of each, and none whose span id begins
    with a zero byte."""

    def __init__(self, *batches: Span) -> None:
        super().__init__("")
        self._batches = batches
        self.asked: list[tuple[int, int, list[str]]] = []

    def search_between(
        self, query: str, start: int, end: int, traces: int = 20, spans: int = 3
    ) -> list[dict[str, Any]]:
        by, ids = re.findall(r"link:(\w+)", query)[0], re.findall('"([0-9a-f]+)"', query)
        self.asked.append((start, end, ids))
        found = []
        for batch in self._batches:
            matching = [
                link for link in batch.links
                if (by == "spanID" and link[1] in ids and not link[1].startswith("00"))
                or (by == "traceID" and link[0].lstrip("0") in ids)
            ]  # fmt: skip
            if matching and start <= batch.start_ns / 1e9 <= end:
                span = {"spanID": batch.span_id, "startTimeUnixNano": str(batch.start_ns)}
                attributes = [{"key": "link:spanID", "value": {"stringValue": matching[-1][1]}}]
                sets = [{"matched": 1, "spans": [{**span, "attributes": attributes}]}]
                found.append({"traceID": batch.trace_id.lstrip("0"), "spanSets": sets})
        return found

    def trace(self, trace_id: str) -> list[Span]:
        return [batch for batch in self._batches if batch.trace_id == trace_id]


def test_the_batches_of_messages_are_found_soon_after_them_or_late() -> None:
    senders = {(f"{n:032x}", f"{n:02x}{'ab' * 7}"): TIME + n for n in range(1, 200)}
    odd, late = (f"{200:032x}", f"00{'cd' * 7}"), (f"{201:032x}", "ef" * 8)
    soon = replace(SPANS[-1], links=[*senders, odd], start_ns=int((TIME + 201) * 1e9))
    later = replace(SPANS[-2], links=[late], start_ns=int((TIME + 900) * 1e9))
    tempo = Searched(soon, later)
    traces = InTempo("")
    traces._tempo = tempo

    store = stored(traces.linking({**senders, odd: TIME + 200, late: TIME + 200}, TIME + 1000))
    for sender in (*senders, odd):
        assert soon.span_id in {one.span_id for one in store.linked(sender)}
    assert [one.span_id for one in store.linked(late)] == [later.span_id]
    for start, end, ids in tempo.asked:
        assert end - start < 250 or ids in ([late[1]], [late[0].lstrip("0")])


class Crowded(Tempo):
    """Tempo with one trace a second, whose search results are incomplete."""

    def search_between(
        self, query: str, start: int, end: int, traces: int = 20, spans: int = 3
    ) -> list[dict[str, Any]]:
        span = {"spanID": "ab" * 8, "startTimeUnixNano": "0"}
        return [
            {"traceID": f"{second:032x}", "spanSets": [{"matched": 1, "spans": [span]}]}
            for second in range(start, end)
        ][:traces]


class Verbose(Tempo):
    """Tempo with one trace for each duration, whose answers may have some."""

    some = 10

    def search_between(
        self, query: str, start: int, end: int, traces: int = 20, spans: int = 3
    ) -> list[dict[str, Any]]:
        durations = [*range(0, 20_000, 500)]
        if asked := re.search(r"duration >= (\d+)ns && duration < (\d+)ns", query):
            least, most = map(int, asked.groups())
            durations = [one for one in durations if least <= one < most]
        if len(durations) > self.some:
            told = BytesIO(b"response larger than the max (23445552 vs 16777216)")
            raise HTTPError(self.url, 500, "Internal Server Error", Message(), told)
        span = {"spanID": "ab" * 8, "startTimeUnixNano": "0"}
        return [
            {"traceID": f"{one:032x}", "spanSets": [{"matched": 1, "spans": [span]}]}
            for one in durations
        ][:traces]


@pytest.mark.parametrize(("some", "limit"), [(10, 1000), (1000, 10)])
def test_an_answer_that_is_too_large_is_divided_by_the_durations_of_spans(
    some: int, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Verbose, "some", some)
    monkeypatch.setattr("bench.drills.traces.MOST_TRACES", limit)
    traces = InTempo("")
    traces._tempo = Verbose("")
    found = [int(span.trace_id, 16) for span in traces._search("payments", 1000, 1040)]
    assert sorted(found) == [*range(0, 20_000, 500)]

    monkeypatch.setattr(Verbose, "some", 0)
    with pytest.raises(TooLargeError):
        traces._search("payments", 1000, 1040)


class Hesitant(Crowded):
    """Answers each search only when it is retried."""

    asked: ClassVar[list[int]] = []

    def search_between(
        self, query: str, start: int, end: int, traces: int = 20, spans: int = 3
    ) -> list[dict[str, Any]]:
        self.asked.append(start)
        if self.asked.count(start) % 2:
            raise OSError("timed out")
        return super().search_between(query, start, end, traces, spans)


def test_a_search_without_an_answer_is_retried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    traces = InTempo("")
    traces._tempo = Hesitant("")
    monkeypatch.setattr("e2e.poll.INTERVAL_SECONDS", 0)
    found = {int(span.trace_id, 16) for span in traces.between(1000, 1100)}
    assert found >= {*range(1000, 1100)}


def test_a_partition_that_has_just_lost_its_leader_is_asked_again() -> None:
    answers = [KafkaError.OFFSET_NOT_AVAILABLE, None, KafkaError.TOPIC_AUTHORIZATION_FAILED]

    def ask(timeout: float) -> str:
        if code := answers.pop(0):
            raise KafkaException(KafkaError(code))
        return "the end"

    assert _asked(ask) == "the end"
    with pytest.raises(OSError, match="TOPIC_AUTHORIZATION_FAILED"):
        _asked(ask)


class Trickle:
    """A trace store that returns one more span each time, up to `most`."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.count = 0

    def between(self, since: float, until: float) -> list[Span]:
        self.count = min(self.count + 1, self.most)
        return SPANS[: self.count]

    def linking(self, senders: object, until: float) -> list[Span]:
        return []

    def of(self, trace_ids: object) -> list[Span]:
        return []


@pytest.mark.parametrize("most", [len(SPANS), len(SPANS) - 1])
def test_spans_are_waited_for_as_long_as_some_come(
    most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    monkeypatch.setattr("time.sleep", lambda seconds: clock.append(clock.pop() + seconds))
    traces = Trickle(most)
    run = Run(SimpleNamespace(traces=traces, channels=InKafka("")))  # type: ignore[arg-type]
    found = run._spans(ORDERS, RECORDS, UNREAD, patience=3)
    assert len(found.missing) == len(SPANS) - most
    assert clock[0] >= 2 * (len(SPANS) - 1)


def test_a_run_without_any_order_proves_nothing() -> None:
    assert "nothing is proved" in broken(Promise("none"), figures([], [], []))[0]


def test_the_table_shows_a_broken_promise() -> None:
    kept, lost = figures(), figures(spans=SPANS[1:])
    assert report.row("kafka", Promise("a fault"), kept).endswith("| kept |\n")
    assert "**broken**: 1 spans lost" in report.row("kafka", Promise("a fault"), lost)
    columns = report.HEAD.splitlines()[0].count("|")
    assert report.row("kafka", Promise("a fault"), kept).count("|") == columns
    assert report.failed("kafka", Promise("a fault"), OSError("x")).count("|") == columns


def test_drills_of_the_default_broker_include_those_of_all_others() -> None:
    every = drills_for("another", default="one")
    assert {"kill", "poison", "broker_down"} <= {*every} < {*drills_for("one", default="one")}


@pytest.mark.parametrize(
    ("arguments", "broker", "said"),
    [
        (["memory"], "nats", "memory: only with BROKER=kafka"),
        (["kil"], "nats", "no drill is called kil"),
        ([], "redis", "BROKER=redis is no broker"),
    ],
)
def test_a_drill_that_is_not_for_the_broker_is_refused(
    arguments: list[str], broker: str, said: str
) -> None:
    environment = {**os.environ, "BROKER": broker, "PYTHONPATH": "tests"}
    done = subprocess.run(
        [sys.executable, "-m", "bench.drills", *arguments],
        cwd=TEMPLATE, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, said in done.stderr) == (2, True), done.stderr


def test_every_drill_has_its_promise() -> None:
    assert {module.name for module in pkgutil.iter_modules(drills)} == PROMISES.keys()


def test_the_trial_service_fits_into_the_baked_project(
    default_project: Path, tmp_path: Path
) -> None:
    project = tmp_path / "project"
    shutil.copytree(default_project, project, ignore=shutil.ignore_patterns(".venv"))

    add_trial(project)

    (package,) = (project / "src").iterdir()
    channels = runpy.run_path(str(package / "channels.py"))["CHANNELS"]
    assert {"shipments.dispatched", "trial.given", "trial.done"} <= {*channels}
    assert "trial" in yaml.safe_load((project / "compose.yaml").read_text())["services"]


# --- docs/drills.md, and the sum in the README


def test_each_promise_has_a_row_on_the_page() -> None:
    keys = {row.key for row in page.rows_of(page.PAGE.read_text("utf-8"))}
    default, *others = OPTIONS["broker"]
    assert keys == {
        (broker, PROMISES[name].fault)
        for broker in (default, *others)
        for name in drills_for(broker, default)
    }


@pytest.mark.parametrize("path", page.PAGES, ids=lambda path: path.name)
def test_a_page_shows_the_rows_and_their_sum(path: Path) -> None:
    """`python -m bench.drills --page` writes them."""
    rows = page.rows_of(page.PAGE.read_text("utf-8"))
    text = path.read_text("utf-8")
    assert page.BLOCK.search(text)
    assert page.filled(text, rows) == text


def test_a_new_row_takes_the_place_of_the_older_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copies = tuple(tmp_path / path.name for path in page.PAGES)
    for path, copy in zip(page.PAGES, copies, strict=True):
        shutil.copy(path, copy)
    monkeypatch.setattr(page, "PAGE", copies[0])
    monkeypatch.setattr(page, "PAGES", copies)
    old = page.rows_of(page.PAGE.read_text("utf-8"))
    newer = report.failed("nats", PROMISES["kill"], RuntimeError("no | pipe"))
    page.write(report.table({"kill": newer}))
    new = page.rows_of(page.PAGE.read_text("utf-8"))
    assert [row.key for row in new] == [row.key for row in old]
    assert [row.line for row in new if row not in old] == [newer]
    assert "promises broken: 1" in copies[1].read_text("utf-8")
