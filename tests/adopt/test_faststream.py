"""Services of FastStream alone: their telemetry, and all of it at the end."""

import difflib
from collections import Counter
from pathlib import Path

import pytest

from . import page
from .conftest import Run, Topics
from .receiver import DemandingReceiver, Receiver, Tls
from .traces import Tree, trace_id, tree

USER = {"user": "Ann", "user_id": 1}
HOP: Tree = {"process in-topic": {"send out-topic": {}}}
FASTSTREAM = ("faststream", "run", "service:app")
UVICORN = ("uvicorn", "service:app", "--port", "{port}")

# As FastStream's documentation has it.
FIRST_EXAMPLE = """from faststream import FastStream
from faststream.kafka import KafkaBroker

broker = KafkaBroker("localhost:9092")
app = FastStream(broker)


@broker.subscriber("in-topic")
@broker.publisher("out-topic")
async def handle_msg(user: str, user_id: int) -> str:
    return f"User: {user_id} - {user} registered"
"""


def test_it_takes_five_lines() -> None:
    adopted = (page.RECIPES / "first_example/service.py").read_text("utf-8")
    # The formatter's line breaks are not the reader's.
    adopted = adopted.replace("(\n    ", "(").replace("]\n)", "])")
    lines = list(difflib.ndiff(FIRST_EXAMPLE.splitlines(), adopted.splitlines()))
    assert len([line for line in lines if line.startswith("+ ") and line != "+ "]) == 5
    assert len([line for line in lines if line.startswith("- ") and line != "- "]) == 2


@pytest.mark.parametrize(
    ("recipe", "command"),
    [
        ("first_example", FASTSTREAM),
        ("asgi", UVICORN),
        ("asgi", (*UVICORN, "--workers", "2")),
        ("router", FASTSTREAM),
    ],
    ids=["FastStream", "AsgiFastStream", "workers", "router"],
)
def test_a_message_has_its_trace_and_the_end_exports_it(
    recipe: str, command: tuple[str, ...], run: Run, topics: Topics, receiver: Receiver
) -> None:
    service = run(recipe, "Only the telemetry", *command)
    message = topics.answer(lambda: topics.publish(USER))
    assert receiver.spans == []
    output = service.stop()
    assert tree(receiver.trace(trace_id(message))) == HOP, output
    assert {span.service for span in receiver.spans} == {"users"}
    assert "faststream_otel" not in output  # nothing to warn of


def test_two_brokers_share_one_telemetry(run: Run, topics: Topics, receiver: Receiver) -> None:
    service = run("two_brokers", "Several brokers, workers, forks", *FASTSTREAM)
    message = topics.answer(lambda: topics.publish(USER), second=True)
    output = service.stop()
    spans = receiver.trace(trace_id(message))
    assert tree(spans) == HOP, output
    assert {span.name: span.attributes["server.address"] for span in spans} == {
        "process in-topic": "here",
        "send out-topic": "there",
    }


def test_each_fork_is_an_instance_that_exports_all(
    run: Run, topics: Topics, receiver: Receiver
) -> None:
    service = run("fork", "Several brokers, workers, forks", "python", "service.py")
    for _ in range(3):  # without a group each of the two has every message, once it is ready
        topics.answer(lambda: topics.publish(USER))
    output = service.stop()
    spans = [span for span in receiver.spans if span.name == "process in-topic"]
    assert len({span.resource["service.instance.id"] for span in spans}) == 2, output


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_variables_alone_lead_to_another_place(
    protocol: str, run: Run, topics: Topics, certificates: tuple[Path, Path, Path]
) -> None:
    section = "Another place for telemetry"
    wanted = page.variables(section)
    assert set(wanted) == {
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "OTEL_EXPORTER_OTLP_HEADERS",
        "OTEL_EXPORTER_OTLP_CERTIFICATE",
        "OTEL_EXPORTER_OTLP_PROTOCOL",
    }
    authority, certificate, key = certificates
    with DemandingReceiver("Bearer 3f9a", tls=Tls(certificate, key)) as vendor:
        service = run(
            "first_example", section, *FASTSTREAM,
            **wanted | {
                "OTEL_EXPORTER_OTLP_ENDPOINT":
                    vendor.grpc_endpoint if protocol == "grpc" else vendor.http_endpoint,
                "OTEL_EXPORTER_OTLP_CERTIFICATE": str(authority),
                "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
            },
        )  # fmt: skip
        message = topics.answer(lambda: topics.publish(USER))
        output = service.stop()
        assert tree(vendor.trace(trace_id(message))) == HOP, output
        assert vendor.logs
        assert vendor.metrics
        assert {export.protocol for export in vendor.exports} == {protocol}


def test_a_failing_message_is_retried_and_becomes_a_dead_letter(
    run: Run, topics: Topics, receiver: Receiver
) -> None:
    service = run("retry", "Telemetry, retry, dead letters", *FASTSTREAM)
    letter = topics.answer(
        lambda: topics.publish({"user": "Ann", "user_id": -1}), topic="dead-letters"
    )
    output = service.stop()
    headers = dict(letter.headers() or ())
    assert headers["dead-letter.error.type"] == b"ValueError"
    spans = receiver.trace(trace_id(letter))
    assert Counter(span.name for span in spans) == Counter(
        ["process in-topic", "retry in-topic", "retry in-topic", "send dead-letters"]
    ), output
    (process,) = [span for span in spans if span.name == "process in-topic"]
    assert process.status == "ERROR"
    assert "The subscriber of" not in output


@pytest.mark.parametrize(
    ("recipe", "command"), [("prometheus", UVICORN), ("prometheus_faststream", FASTSTREAM)]
)
def test_metrics_of_messages_are_scraped(
    recipe: str, command: tuple[str, ...], run: Run, topics: Topics
) -> None:
    service = run(recipe, "Metrics of messages", *command)
    topics.answer(lambda: topics.publish({"user": "Ann", "user_id": -1}), topic="dead-letters")
    scraped = service.get("/metrics")
    for name in (
        "faststream_received_messages_total",
        "messaging_receive_delay_seconds_count",
        "messaging_retries_total",
        "messaging_dead_letters_total",
    ):
        (line, *_) = [line for line in scraped.splitlines() if line.startswith(f"{name}{{")]
        assert 'service_name="users"' in line
        assert float(line.rpartition(" ")[2]) > 0
