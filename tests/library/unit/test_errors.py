"""What is told of a message that does not fit: where and why, and nothing of what was in it."""

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
    MAX_PLACES,
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


class Told:
    """All that a service exported and printed, and what it put away."""

    def __init__(self) -> None:
        self.spans = InMemorySpanExporter()
        self.logs = InMemoryLogRecordExporter()  # type: ignore[no-untyped-call]
        self.letters: list[dict[str, str]] = []
        self.console = io.StringIO()

    def everything(self) -> dict[str, str]:
        return {
            "spans": "".join(span.to_json() for span in self.spans.get_finished_spans()),
            "records": "".join(
                f"{one.log_record.body!r}{one.log_record.attributes!r}"
                for one in self.logs.get_finished_logs()
            ),
            "console": self.console.getvalue(),
            "headers": json.dumps(self.letters),
        }


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def service(told: Told, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    """A service that takes items, one by one and in batches, and fails at those of no price."""

    def telemetry(name: str, **options: Any) -> Telemetry:
        return Telemetry(
            name, span_exporter=told.spans, log_exporter=told.logs, make_global=False, **options
        )

    monkeypatch.setattr(module, "Telemetry", telemetry)
    monkeypatch.setattr(sys, "stdout", told.console)
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
    async def letters(message: KafkaMessage) -> None:
        told.letters.append(dict(message.headers))

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
async def test_nothing_of_a_message_that_does_not_fit_is_told(
    service: Service, told: Told, topic: str, place: str
) -> None:
    await send(service, topic, {"name": MARK, "price": MARK})

    reason = f"{place}: Input should be a valid integer"
    assert [letter["dead-letter.reason"][: len(reason)] for letter in told.letters] == [reason]
    for where, text in told.everything().items():
        assert MARK not in text, where
        assert reason in text, where


@pytest.mark.parametrize("topic", ["items", "lists"])
async def test_a_large_message_that_does_not_fit_makes_little_telemetry(
    service: Service, told: Told, topic: str
) -> None:
    body = {"name": "a" * MEGABYTES, "price": 1, "tags": ["b"] * 100_000}
    await send(service, topic, body)

    assert len(told.letters) == 1
    for where, text in told.everything().items():
        assert len(text) < 20_000, where


async def test_an_error_that_quotes_the_message_is_cut(service: Service, told: Told) -> None:
    await send(service, "items", {"name": "a" * MEGABYTES, "price": 0})

    (letter,) = told.letters
    assert letter["dead-letter.reason"].startswith("no price: name='aaaa")
    assert len(letter["dead-letter.reason"]) <= MAX_TEXT
    spans = told.spans.get_finished_spans()
    failed = [span for span in spans if span.name == "sell"]
    assert len(failed) == 3
    for span in failed:  # recorded by OpenTelemetry, not by us
        (event,) = span.events
        assert str((event.attributes or {})["exception.message"]).startswith("no price: name='aaaa")
        assert span.end_time
        assert len(span.to_json()) < 4 * MAX_STACK
    for where, text in told.everything().items():
        assert len(text) < 100_000, where


class UnspeakableError(Exception):
    """Raises over its text, and over whether it is true."""

    def __str__(self) -> str:
        raise LookupError

    def __bool__(self) -> bool:
        raise LookupError


async def test_an_error_without_a_text_is_the_errors_own(service: Service, told: Told) -> None:
    @service.subscriber("unspeakable")
    async def fails(item: Item) -> None:
        raise UnspeakableError

    await send(service, "unspeakable", {"name": "a", "price": 1})

    assert len(told.letters) == 1
    for where, text in told.everything().items():
        assert "UnspeakableError" in text, where


def a_handler_error() -> Exception:
    with pytest.raises(ValidationError) as raised:
        Item.model_validate({"name": MARK, "price": MARK})
    return HandlerValidationError(
        incoming_options={"item": MARK}, locations=(), expected={}, original_error=raised.value
    )


def test_a_record_about_an_error_tells_nothing_of_it(service: Service, told: Told) -> None:
    """As FastStream's own middleware logs what no retry policy takes."""
    error = a_handler_error()
    logging.getLogger("faststream.tested").error("%s: %s", "Error", error, exc_info=error)
    try:
        raise KeyError("other") from error
    except KeyError:
        logging.getLogger("tested").exception("failed")
    service.telemetry.close()

    everything = told.everything()
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
        (wrong_in_many_places, f"and {50 - MAX_PLACES} more"),
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


def test_the_stack_tells_what_led_to_what() -> None:
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
