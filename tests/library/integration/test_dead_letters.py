"""Dead letters are listed and sent back by the program itself, over a broker on TCP."""

import asyncio
import json
import re
import sys
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from order_flow.__main__ import main

from ..ports import free_port
from .conftest import PACKAGE, Process, Start
from faststream_otel.kafka.embedded import embedded_kafka
from faststream_otel.dev.sink import OtlpSink

TRACE = "0af7651916cd43dd8448eb211c80319c"
PUT_AWAY = {
    "content-type": "text/plain",
    "traceparent": f"00-{TRACE}-b7ad6b7169203331-01",
    "dead-letter.topic": "events",
    "dead-letter.partition": "2",
    "dead-letter.offset": "41",
    "dead-letter.attempts": "3",
    "dead-letter.error.type": "shop.errors.NoCarrierError",
    "dead-letter.reason": "no carrier",
}
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
    """`python -m <package> <arguments>` on this broker, without telemetry, in this process."""
    monkeypatch.setenv("BROKER_URL", kafka)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")

    def run(*arguments: str) -> Done:
        monkeypatch.setattr(sys, "argv", [PACKAGE, *arguments])
        try:
            code = main()
        except SystemExit as ended:
            code = int(ended.code or 0)
        return Done(code, *capsys.readouterr())

    return run


def letters(program: Program, *arguments: str) -> list[dict[str, Any]]:
    done = program("dead-letters", "--json", *arguments)
    assert done.code == 0, done.err
    return [json.loads(line) for line in done.out.splitlines()]


def encoded(headers: dict[str, str]) -> Headers:
    return [(name, value.encode()) for name, value in headers.items()]


def put(broker: str, *letters: tuple[bytes | None, Headers]) -> None:
    """Put records into the dead letters, all into one partition."""

    async def produce() -> None:
        async with AIOKafkaProducer(bootstrap_servers=broker) as producer:
            for value, headers in letters:
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


def ping(process: Process) -> str:
    request = urllib.request.Request(f"http://127.0.0.1:{process.port}/ping", b"")
    with urllib.request.urlopen(request, timeout=10) as answer:
        trace_id: str = json.load(answer)["trace_id"]
    return trace_id


def test_a_message_is_listed_mended_and_replayed(
    sink: OtlpSink, start: Start, program: Program
) -> None:
    telemetry = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": sink.grpc_endpoint,
        "OTEL_BSP_SCHEDULE_DELAY": "100",
        "OTEL_SDK_DISABLED": "false",
    }
    stubborn = ["-m", f"{__package__}.stubborn"]
    broken = start(*stubborn, **telemetry, BROKEN="yes", RETRY_BACKOFF_SECONDS="0.01")
    probe = start("-m", f"{__package__}.probe", **telemetry)
    broken.wait_ready()
    probe.wait_ready()
    old = ping(probe)
    put_away = sink.wait_for(
        lambda sink: [one for one in sink.trace(old) if one.name == "send dead-letters"],
        "the dead letter's span",
        20,
    )
    (letter,) = letters(program)
    assert (letter["trace_id"], letter["topic"], letter["attempts"]) == (old, "pings", 3)
    assert (letter["error_type"], letter["reason"]) == ("LookupError", "no use for a ping")
    assert (letter["body"], letter["state"]) == ("ping", "open")

    assert broken.stop() == 0
    start(*stubborn, **telemetry).wait_ready()
    replay = start("-m", PACKAGE, "replay", letter["letter"], **telemetry)
    assert replay.popen.wait(30) == 0
    (new,) = re.findall("[0-9a-f]{32}", replay.output.read_text())

    handled = sink.wait_for(
        lambda sink: [one for one in sink.trace(new) if one.name == "process pings"],
        "the replayed message's span",
        20,
    )
    (sent,) = (one for one in sink.trace(new) if one.name == "send pings")
    assert (sent.service, sent.kind, sent.parent_id) == ("replay", "PRODUCER", None)
    assert sent.attributes["dead_letter.position"] == letter["letter"]
    assert [(one.trace_id, one.span_id) for one in sent.links] == [(old, put_away[0].span_id)]
    assert [(one.service, one.parent_id, one.status) for one in handled] == [
        ("stubborn", sent.span_id, "UNSET")
    ]
    assert any(one.service == "replay" and one.trace_id == new for one in sink.logs)
    assert not [point for point in sink.metrics if point.service == "replay"]

    assert letters(program) == []
    (replayed,) = letters(program, "--all")
    assert replayed["state"] == "replayed"


def test_each_letter_is_sent_once_however_many_there_are(
    kafka: str, start: Start, program: Program
) -> None:
    put(kafka, *((str(n).encode(), encoded(PUT_AWAY)) for n in range(MANY)))

    listed = program("dead-letters")
    assert listed.out.count("\n      no carrier\n") == 20
    assert listed.out.endswith(
        f"\n{MANY} open: {MANY} x NoCarrierError from events\n"
        "Shown: the newest 20 (--limit shows more)\n"
    )
    assert f"\n0/{MANY - 1}  20" in listed.out

    both = [start("-m", PACKAGE, "replay", "--all", OTEL_SDK_DISABLED="true") for _ in range(2)]
    assert {one.popen.wait(60) for one in both} <= {0, 1}  # 1: some were left to the other
    bodies = Counter(record.value for record in events(kafka))
    assert bodies == {str(n).encode(): 1 for n in range(MANY)}
    assert program("replay", "--all").out == "0 sent\n"
    assert program("dead-letters").out == (
        f"No open dead letters.\nNot shown: {MANY} replayed (--all shows them too)\n"
    )


def test_a_message_goes_back_as_it_was(kafka: str, program: Program) -> None:
    body = b"\x00\xff" * 500_000
    put(kafka, (body, [*encoded(PUT_AWAY), ("tenant", b"acme"), ("flow-started", b"1")]))

    assert program("replay", "0/0").code == 0
    (record,) = events(kafka)
    assert (record.value, record.key) == (body, b"key")
    assert dict(record.headers) == {"content-type": b"text/plain", "tenant": b"acme"}


def test_a_tombstone_goes_back_as_one(kafka: str, program: Program) -> None:
    tombstone = ("dead-letter.tombstone", b"true")
    put(kafka, (b"", [*encoded(PUT_AWAY), tombstone]), (b"", encoded(PUT_AWAY)))
    assert [letter["body"] for letter in letters(program)] == [None, ""]

    assert program("replay", "--all").code == 0
    records = events(kafka)
    assert [record.value for record in records] == [None, b""]
    assert all("dead-letter.tombstone" not in dict(record.headers) for record in records)


def test_strangers_are_listed_and_stay(kafka: str, program: Program) -> None:
    put(
        kafka,
        (None, []),
        (b"", [("dead-letter.topic", b"\xff\xfe"), ("dead-letter.mark", b"replayed")]),
        (b'{"offsets": [0, 1, 2, 99]}', [("dead-letter.mark", b"replayed")]),
        (b"{" * 10_000, [("traceparent", b"\xff"), ("dead-letter.reason", b"\x1b[2J" * 9000)]),
        (b"good", encoded(PUT_AWAY)),
    )
    assert [one["letter"] for one in letters(program)] == [f"0/{n}" for n in range(5)]
    listed = program("dead-letters", "--body")
    assert listed.code == 0
    assert "\x1b" not in listed.out

    done = program("replay", "--all")
    assert done.code == 1
    assert done.out.endswith("1 sent, 4 not\n")
    assert "0/0 not sent: it does not say which topic it came from; --to names one\n" in done.err
    assert [record.value for record in events(kafka)] == [b"good"]
    assert program("discard", "0/0", "0/1", "0/2", "0/3").code == 0
    assert letters(program) == []


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["replay"], 2, "say which: "),
        (["replay", "--all", "0/0"], 2, "not both"),
        (["replay", "0-0"], 2, "0-0 is no <partition>/<offset>, such as 0/12"),
        (["dead-letters", "--limit", "0"], 2, "0 is no number from 1"),
        (["replay", "0/7"], 1, "There is no dead letter 0/7: partition 0 holds 0/0 to 0/1, marks"),
        (["replay", "0/0", "0/1"], 1, "There is no dead letter 0/1"),
        (["discard", "9/0"], 1, "There is no dead letter 9/0: partition 9 is empty, or not there."),
        (["replay", "0/0"], 1, "0/0 was replayed already; replay --again sends it once more.\n"),
        (["replay", "0/0", "--again", "--to", "gone"], 1, "There is no topic gone (--to).\n"),
    ],
)
def test_what_cannot_be_done_is_said_and_nothing_is_sent(
    kafka: str, program: Program, arguments: list[str], code: int, said: str
) -> None:
    replayed = [("dead-letter.mark", b"replayed")]
    put(kafka, (b"body", encoded(PUT_AWAY)), (b'{"offsets": [0]}', replayed))
    done = program(*arguments)
    assert (done.code, done.out) == (code, "")
    assert said in done.err
    assert "Traceback" not in done.err
    assert events(kafka) == []


def test_a_dry_run_sends_nothing(kafka: str, program: Program) -> None:
    put(kafka, (b"body", encoded(PUT_AWAY)))
    for command, what in (("replay", "sent"), ("discard", "discarded")):
        done = program(command, "--error-type", "NoCarrierError", "--dry-run")
        assert done.out.startswith("0/0  ")
        assert done.out.endswith(f"\n1 would be {what}\n")
    assert events(kafka) == []
    assert [one["state"] for one in letters(program)] == ["open"]


def test_without_a_collector_it_ends_all_the_same(kafka: str, start: Start) -> None:
    put(kafka, (b"body", encoded(PUT_AWAY)))
    nowhere = f"http://127.0.0.1:{free_port()}"
    replay = start("-m", PACKAGE, "replay", "--all", OTEL_EXPORTER_OTLP_ENDPOINT=nowhere)
    assert replay.popen.wait(40) == 0
    assert "1 spans and 1 log records are lost" in replay.output.read_text()
    assert len(events(kafka)) == 1


def test_whoever_reads_the_list_may_stop(kafka: str, start: Start) -> None:
    put(kafka, *((b"body", encoded(PUT_AWAY)) for _ in range(MANY)))
    listing = start(
        "-c",
        f"import subprocess, sys; sys.exit(subprocess.call("
        f"'{sys.executable} -m {PACKAGE} dead-letters --json | head -1', shell=True))",
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
