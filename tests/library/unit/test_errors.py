"""Telemetry says why a message does not fit, without quoting it."""

import io
import json
import logging
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fast_depends.exceptions import ValidationError as HandlerValidationError
from faststream.kafka import KafkaBroker, KafkaMessage, TestKafkaBroker
from faststream_otel import service as module
from faststream_otel.kafka.settings import KafkaSettings
from faststream_otel.logs import configure_logging
from faststream_otel.service import Service
from faststream_otel.telemetry import Telemetry
from faststream_otel.telemetry.errors import (
    MAX_FIELDS,
    MAX_STACK,
    MAX_TEXT,
    bounded,
    describe,
    stack,
)
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from pydantic import BaseModel, ValidationError

MARK = "ada-lovelace"
MEGABYTES = 2 * 1_048_576


class Item(BaseModel):
    name: str
    price: int
    tags: list[int] = []


class Output:
    """Everything that a service exported and printed, and its dead letters."""

    def __init__(self) -> None:
        self.spans = InMemorySpanExporter()
        self.logs = InMemoryLogRecordExporter()  # type: ignore[no-untyped-call]
        self.dead_letters: list[dict[str, str]] = []
        self.console = io.StringIO()

    def everything(self) -> dict[str, str]:
        return {
            "spans": "".join(span.to_json() for span in self.spans.get_finished_spans()),
            "records": "".join(
                f"{one.log_record.body!r}{one.log_record.attributes!r}"
                for one in self.logs.get_finished_logs()
            ),
            "console": self.console.getvalue(),
            "headers": json.dumps(self.dead_letters),
        }


@pytest.fixture
def output() -> Output:
    return Output()


@pytest.fixture
def service(output: Output, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    """A service that handles items, one by one and in batches, and fails for a price of zero."""

    def telemetry(name: str, **options: Any) -> Telemetry:
        return Telemetry(
            name, span_exporter=output.spans, log_exporter=output.logs, make_global=False, **options
        )

    monkeypatch.setattr(module, "Telemetry", telemetry)
    monkeypatch.setattr(sys, "stdout", output.console)
    service = Service("tested", KafkaSettings(retry_backoff_seconds=0))

    @service.subscriber("items")
    async def one(item: Item) -> None:
        with service.tracer.start_as_current_span("sell"):
            if not item.price:
                raise LookupError(f"no price: {item}")

    @service.subscriber("lists", batch=True)
    async def many(items: list[Item]) -> None: ...

    broker: KafkaBroker = service.broker.faststream

    @broker.subscriber("dead-letters")
    async def keep(message: KafkaMessage) -> None:
        output.dead_letters.append(dict(message.headers))

    yield service
    service.telemetry.close()
    monkeypatch.undo()
    configure_logging("INFO")  # for other tests, to their own stdout


async def send(service: Service, topic: str, body: object) -> None:
    async with TestKafkaBroker(service.broker.faststream):
        await service.broker.faststream.publish(body, topic)
    service.telemetry.close()


@pytest.mark.parametrize(
    ("topic", "place"), [("items", "item.price"), ("lists", "items.0.price")], ids=["one", "batch"]
)
async def test_a_message_that_does_not_fit_is_not_quoted(
    service: Service, output: Output, topic: str, place: str
) -> None:
    await send(service, topic, {"name": MARK, "price": MARK})

    reason = f"{place}: Input should be a valid integer"
    assert [one["dead-letter.reason"][: len(reason)] for one in output.dead_letters] == [reason]
    for where, text in output.everything().items():
        assert MARK not in text, where
        assert reason in text, where


@pytest.mark.parametrize("topic", ["items", "lists"])
async def test_a_large_message_that_does_not_fit_makes_little_telemetry(
    service: Service, output: Output, topic: str
) -> None:
    body = {"name": "a" * MEGABYTES, "price": 1, "tags": ["b"] * 100_000}
    await send(service, topic, body)

    assert len(output.dead_letters) == 1
    for where, text in output.everything().items():
        assert len(text) < 20_000, where


async def test_an_error_that_quotes_the_message_is_cut(service: Service, output: Output) -> None:
    await send(service, "items", {"name": "a" * MEGABYTES, "price": 0})

    (dead_letter,) = output.dead_letters
    assert dead_letter["dead-letter.reason"].startswith("no price: name='aaaa")
    assert len(dead_letter["dead-letter.reason"]) <= MAX_TEXT
    spans = output.spans.get_finished_spans()
    failed = [span for span in spans if span.name == "sell"]
    assert len(failed) == 3
    for span in failed:  # recorded by OpenTelemetry, not by this library
        (event,) = span.events
        assert str((event.attributes or {})["exception.message"]).startswith("no price: name='aaaa")
        assert span.end_time
        assert len(span.to_json()) < 4 * MAX_STACK
    for where, text in output.everything().items():
        assert len(text) < 100_000, where


class UnspeakableError(Exception):
    """Raises at `str` and at `bool`."""

    def __str__(self) -> str:
        raise LookupError

    def __bool__(self) -> bool:
        raise LookupError


async def test_an_error_whose_text_raises_is_still_reported(
    service: Service, output: Output
) -> None:
    @service.subscriber("unspeakable")
    async def fails(item: Item) -> None:
        raise UnspeakableError

    await send(service, "unspeakable", {"name": "a", "price": 1})

    assert len(output.dead_letters) == 1
    for where, text in output.everything().items():
        assert "UnspeakableError" in text, where


def a_handler_error() -> Exception:
    with pytest.raises(ValidationError) as raised:
        Item.model_validate({"name": MARK, "price": MARK})
    return HandlerValidationError(
        incoming_options={"item": MARK}, locations=(), expected={}, original_error=raised.value
    )


def test_a_log_record_does_not_quote_the_message(service: Service, output: Output) -> None:
    """Such as FastStream's own middleware logs for an error that no retry handles."""
    error = a_handler_error()
    logging.getLogger("faststream.tested").error("%s: %s", "Error", error, exc_info=error)
    try:
        raise KeyError("other") from error
    except KeyError:
        logging.getLogger("tested").exception("failed")
    service.telemetry.close()

    everything = output.everything()
    for where in ("records", "console"):
        assert MARK not in everything[where]
        assert everything[where].count("price: Input should be a valid integer") > 2
        assert "test_errors.py" in everything[where]


def wrong_in_many_places() -> Exception:
    errors: list[Any] = [{"type": "missing", "loc": ("a" * 500, n), "input": 1} for n in range(50)]
    return ValidationError.from_exception_data("Item", errors)


def half_a_pair() -> Exception:
    return ValueError(json.loads('"\\ud800"'))


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (a_handler_error, "price: Input should be a valid integer, unable to parse"),
        (wrong_in_many_places, f"and {50 - MAX_FIELDS} more"),
        (half_a_pair, "\\ud800"),
        (UnspeakableError, ""),
        (lambda: ExceptionGroup("some", [ValueError("one"), ValueError("two")]), "some"),
    ],
)
def test_describe(make: Callable[[], Exception], text: str) -> None:
    error = make()
    assert text in describe(error)
    assert len(describe(error)) <= MAX_TEXT
    assert len(stack(error)) <= MAX_STACK
    stack(error).encode()


def test_the_stack_shows_causes_first() -> None:
    try:
        try:
            raise LookupError("first")
        except LookupError as first:
            raise OSError("second") from first
    except OSError as second:
        second.add_note("a note")
        text = stack(second)
    assert text.count("Traceback (most recent call last)") == 2
    assert text.index("LookupError: first") < text.index("OSError: second\na note")


def test_a_text_is_cut_in_its_middle() -> None:
    assert bounded("a" * 100, 100) == "a" * 100
    cut = bounded("a" * 500 + "b" * 501, 100)
    assert len(cut) <= 100
    assert cut.startswith("aaa")
    assert cut.endswith("bbb")
    assert "901 characters more" in cut
