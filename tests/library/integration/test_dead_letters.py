"""The command line lists and replays dead letters, over a broker on TCP."""

import asyncio
import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from faststream_otel.cli.__main__ import main
from faststream_otel.dev.receiver import OtlpReceiver
from faststream_otel.kafka.embedded import embedded_kafka

from ..ports import free_port
from .conftest import PACKAGE, Start

TRACE = "0af7651916cd43dd8448eb211c80319c"
SENT = {
    "content-type": "text/plain",
    "traceparent": f"00-{TRACE}-b7ad6b7169203331-01",
    "dead-letter.channel": "events",
    "dead-letter.message-id": "2/41",
    "dead-letter.attempts": "3",
    "dead-letter.error.type": "shop.errors.NoCarrierError",
    "dead-letter.reason": "no carrier",
}
OLD = {
    name: SENT[name]
    for name in SENT
    if name not in ("dead-letter.channel", "dead-letter.message-id")
} | {
    "dead-letter.topic": "events",
    "dead-letter.partition": "2",
    "dead-letter.offset": "41",
}
"""As version 0.1 and earlier wrote them."""
CLI = ("-m", "faststream_otel.cli", "--app", PACKAGE)
MANY = 3000

Headers = list[tuple[str, bytes]]


@pytest.fixture
def kafka() -> Iterator[str]:
    """A broker of its own, with nothing in the dead letters."""
    with embedded_kafka(["events", "dead-letters"]) as address:
        yield address


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str


Program = Callable[..., Done]


@pytest.fixture
def program(
    kafka: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Program:
    """`faststream-otel <arguments>` on this broker, without telemetry, in this process."""
    monkeypatch.setenv("BROKER_URL", kafka)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    monkeypatch.setenv("FASTSTREAM_OTEL_APP", PACKAGE)

    def run(*arguments: str) -> Done:
        try:
            code = main(arguments)
        except SystemExit as ended:
            code = int(ended.code or 0)
        return Done(code, *capsys.readouterr())

    return run


def dead_letters(program: Program, *arguments: str) -> list[dict[str, Any]]:
    done = program("dead-letters", "--json", *arguments)
    assert done.code == 0, done.err
    return [json.loads(line) for line in done.out.splitlines()]


def encoded(headers: dict[str, str]) -> Headers:
    return [(name, value.encode()) for name, value in headers.items()]


def put(broker: str, *records: tuple[bytes | None, Headers]) -> None:
    """Put records into the dead letters, all into one partition."""

    async def produce() -> None:
        async with AIOKafkaProducer(bootstrap_servers=broker) as producer:
            for value, headers in records:
                await producer.send("dead-letters", value, b"key", partition=0, headers=headers)

    asyncio.run(produce())


def events(broker: str) -> list[Any]:
    """Everything that is in the topic `events`."""

    async def consume() -> list[Any]:
        found: list[Any] = []
        async with AIOKafkaConsumer(bootstrap_servers=broker) as consumer:
            partitions = [TopicPartition("events", number) for number in range(4)]
            consumer.assign(partitions)
            await consumer.seek_to_beginning(*partitions)
            while records := await consumer.getmany(timeout_ms=1000):
                found += [record for some in records.values() for record in some]
        return found

    return asyncio.run(consume())


async def ping(broker: str) -> None:
    headers = encoded({"traceparent": SENT["traceparent"], "content-type": "text/plain"})
    async with AIOKafkaProducer(bootstrap_servers=broker) as producer:
        await producer.send_and_wait("pings", b"ping", headers=headers)


def test_a_message_is_listed_and_replayed_after_a_fix(
    kafka: str, sink: OtlpReceiver, start: Start, program: Program
) -> None:
    telemetry = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": sink.grpc_endpoint,
        "OTEL_BSP_SCHEDULE_DELAY": "100",
        "OTEL_SDK_DISABLED": "false",
    }
    stubborn = ["-m", f"{__package__}.stubborn"]
    broken = start(*stubborn, **telemetry, BROKEN="yes", RETRY_BACKOFF_SECONDS="0.01")
    broken.wait_ready()
    asyncio.run(ping(kafka))
    sent_away = sink.wait_for(
        lambda sink: [one for one in sink.trace(TRACE) if one.name == "send dead-letters"],
        "the dead letter's span",
        20,
    )
    (found,) = dead_letters(program)
    assert (found["trace_id"], found["channel"], found["attempts"]) == (TRACE, "pings", 3)
    assert re.fullmatch("[0-3]/0", found["message_id"])
    assert (found["error_type"], found["reason"]) == ("LookupError", "no use for a ping")
    assert (found["body"], found["state"]) == ("ping", "open")

    assert broken.stop() == 0
    start(*stubborn, **telemetry).wait_ready()
    replay = start(*CLI, "replay", found["id"], **telemetry)
    assert replay.popen.wait(30) == 0
    (new,) = re.findall("[0-9a-f]{32}", replay.output.read_text())

    handled = sink.wait_for(
        lambda sink: [one for one in sink.trace(new) if one.name == "process pings"],
        "the replayed message's span",
        20,
    )
    (sent,) = (one for one in sink.trace(new) if one.name == "send pings")
    assert (sent.service, sent.kind, sent.parent_id) == ("replay", "PRODUCER", None)
    assert sent.attributes["dead_letter.id"] == found["id"]
    assert [(one.trace_id, one.span_id) for one in sent.links] == [(TRACE, sent_away[0].span_id)]
    assert [(one.service, one.parent_id, one.status) for one in handled] == [
        ("stubborn", sent.span_id, "UNSET")
    ]
    assert any(one.service == "replay" and one.trace_id == new for one in sink.logs)
    assert not [point for point in sink.metrics if point.service == "replay"]

    assert dead_letters(program) == []
    (replayed,) = dead_letters(program, "--all")
    assert replayed["state"] == "replayed"


def test_each_dead_letter_is_sent_once_however_many_there_are(
    kafka: str, start: Start, program: Program
) -> None:
    put(kafka, *((str(n).encode(), encoded(SENT)) for n in range(MANY)))

    listed = program("dead-letters")
    assert listed.out.count("\n      no carrier\n") == 20
    assert listed.out.endswith(
        f"\n{MANY} open: {MANY} x NoCarrierError from events\n"
        "Shown: the newest 20 (--limit shows more)\n"
    )
    assert f"\n0/{MANY - 1}  20" in listed.out

    both = [start(*CLI, "replay", "--all", OTEL_SDK_DISABLED="true") for _ in range(2)]
    assert {one.popen.wait(60) for one in both} <= {0, 1}  # 1: some were left to the other
    bodies = Counter(record.value for record in events(kafka))
    assert bodies == {str(n).encode(): 1 for n in range(MANY)}
    assert program("replay", "--all").out == "0 sent\n"
    assert program("dead-letters").out == (
        f"No open dead letters.\nNot shown: {MANY} replayed (--all shows them too)\n"
    )


def test_a_message_goes_back_as_it_was(kafka: str, program: Program) -> None:
    body = b"\x00\xff" * 500_000
    put(kafka, (body, [*encoded(SENT), ("tenant", b"acme"), ("flow-started", b"1")]))

    assert program("replay", "0/0").code == 0
    (record,) = events(kafka)
    assert (record.value, record.key) == (body, b"key")
    assert dict(record.headers) == {"content-type": b"text/plain", "tenant": b"acme"}


def test_a_tombstone_goes_back_as_one(kafka: str, program: Program) -> None:
    tombstone = ("dead-letter.tombstone", b"true")
    put(kafka, (b"", [*encoded(SENT), tombstone]), (b"", encoded(SENT)))
    assert [one["body"] for one in dead_letters(program)] == [None, ""]

    assert program("replay", "--all").code == 0
    records = events(kafka)
    assert [record.value for record in records] == [None, b""]
    assert all("dead-letter.tombstone" not in dict(record.headers) for record in records)


def test_records_of_others_are_listed_and_stay(kafka: str, program: Program) -> None:
    put(
        kafka,
        (None, []),
        (b"", [("dead-letter.channel", b"\xff\xfe"), ("dead-letter.state", b"replayed")]),
        (b'{"ids": ["0/0", "0/1", "0/99"]}', [("dead-letter.state", b"replayed")]),
        (b'{"offsets": [0, 1, 2, 99]}', [("dead-letter.mark", b"replayed")]),
        (b"{" * 10_000, [("traceparent", b"\xff"), ("dead-letter.reason", b"\x1b[2J" * 9000)]),
        (b"good", encoded(SENT)),
    )
    assert [one["id"] for one in dead_letters(program)] == [f"0/{n}" for n in range(6)]
    listed = program("dead-letters", "--body")
    assert listed.code == 0
    assert "\x1b" not in listed.out

    done = program("replay", "--all")
    assert done.code == 1
    assert done.out.endswith("1 sent, 5 not\n")
    assert (
        "0/0 not sent: it does not say which channel it came from; name one with --to\n" in done.err
    )
    assert [record.value for record in events(kafka)] == [b"good"]
    assert program("discard", *(f"0/{n}" for n in range(5))).code == 0
    assert dead_letters(program) == []


def test_what_an_earlier_version_wrote_is_respected(kafka: str, program: Program) -> None:
    def changed(state: bytes, *offsets: int) -> tuple[bytes, Headers]:
        return json.dumps({"offsets": offsets}).encode(), [("dead-letter.mark", state)]

    put(
        kafka,
        *((str(n).encode(), encoded(OLD)) for n in range(6)),
        changed(b"begun", 0, 2, 4),
        changed(b"replayed", 0),
        changed(b"discarded", 1),
        changed(b"open", 2),
        changed(b"replayed", True, 3),  # no version wrote this
        (b"forged", [*encoded(SENT), ("dead-letter.topic", b"elsewhere")]),
    )
    found = {one["id"]: one for one in dead_letters(program, "--all")}
    assert {id: one["state"] for id, one in found.items()} == {
        "0/0": "replayed", "0/1": "discarded", "0/2": "open", "0/3": "open", "0/4": "begun",
        "0/5": "open", "0/10": "open", "0/11": "open",
    }  # fmt: skip
    assert (found["0/3"]["channel"], found["0/3"]["message_id"]) == ("events", "2/41")
    assert found["0/11"]["channel"] == "events"
    assert dict(found["0/3"]["headers"]) == {"content-type": "text/plain"}

    done = program("replay", "--all")
    assert done.out.endswith("4 sent, 1 not\n")
    assert "Skipped: 1 whose replay began less than a minute ago\n" in done.err
    assert {record.value for record in events(kafka)} == {b"2", b"3", b"5", b"forged"}
    assert all(dict(record.headers).keys() == {"content-type"} for record in events(kafka))
    assert [one["id"] for one in dead_letters(program)] == ["0/4", "0/10"]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["replay"], 2, "say which: "),
        (["replay", "--all", "0/0"], 2, "not both"),
        (["replay", "0-0"], 2, "0-0 is not an id of the form <partition>/<offset>, such as 0/12"),
        (["discard", "00/0"], 2, "00/0 is not an id of the form"),
        (["replay", "--topic", "x"], 2, "unrecognized arguments: --topic"),
        (["dead-letters", "--limit", "0"], 2, "0 is not a number from 1"),
        (["replay", "0/7"], 1, "There is no dead letter 0/7."),
        (["replay", "0/0", "0/1"], 1, "There is no dead letter 0/1"),
        (["discard", "9/0"], 1, "There is no dead letter 9/0."),
        (["replay", "0/0"], 1, "0/0 was already replayed; replay --again sends it once more.\n"),
        (
            ["replay", "0/0", "--again", "--to", "gone"],
            1,
            "The channel gone (--to) does not exist.",
        ),
    ],
)
def test_an_impossible_replay_is_an_error_and_sends_nothing(
    kafka: str, program: Program, arguments: list[str], code: int, said: str
) -> None:
    replayed = [("dead-letter.state", b"replayed")]
    put(kafka, (b"body", encoded(SENT)), (b'{"ids": ["0/0"]}', replayed))
    done = program(*arguments)
    assert (done.code, done.out) == (code, "")
    assert said in done.err
    assert "Traceback" not in done.err
    assert events(kafka) == []


def test_a_dry_run_sends_nothing(kafka: str, program: Program) -> None:
    put(kafka, (b"body", encoded(SENT)))
    for command, what in (("replay", "sent"), ("discard", "discarded")):
        done = program(command, "--error-type", "NoCarrierError", "--dry-run")
        assert done.out.startswith("0/0  ")
        assert done.out.endswith(f"\n1 would be {what}\n")
    assert events(kafka) == []
    assert [one["state"] for one in dead_letters(program)] == ["open"]


def test_it_ends_without_a_collector(kafka: str, start: Start) -> None:
    put(kafka, (b"body", encoded(SENT)))
    nowhere = f"http://127.0.0.1:{free_port()}"
    replay = start(*CLI, "replay", "--all", OTEL_EXPORTER_OTLP_ENDPOINT=nowhere)
    assert replay.popen.wait(40) == 0
    assert "1 spans and 1 log records are lost" in replay.output.read_text()
    assert len(events(kafka)) == 1


def test_a_reader_may_close_the_pipe(kafka: str, start: Start) -> None:
    put(kafka, *((b"body", encoded(SENT)) for _ in range(MANY)))
    listing = start(
        "-c",
        f"import subprocess, sys; sys.exit(subprocess.call("
        f"'{sys.executable} {' '.join(CLI)} dead-letters --json | head -1', shell=True))",
    )
    assert listing.popen.wait(30) == 0
    assert listing.output.read_text().count("\n") == 1


def test_without_a_broker_it_says_so(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    broker = f"127.0.0.1:{free_port()}"
    monkeypatch.setenv("BROKER_URL", broker)
    done = program("dead-letters")
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith(f"The broker at {broker} (BROKER_URL): ")
    assert done.err.count("\n") == 1
