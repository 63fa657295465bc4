"""All services as `make dev` runs them: processes, a broker over TCP, telemetry over OTLP."""

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx
import pytest
from faststream_otel.dev.local import Local, NoEmbeddedBroker, run_locally
from faststream_otel.dev.otlp import Span
from faststream_otel.dev.project import Project

from .conftest import ORDER
from .test_flow import EDGES

IN_TRACE = {"orders", "payments", "shipping"}
PROJECT = Project(Path(__file__).parents[1], "{{ cookiecutter.package_name }}")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Iterator[Local]:
    # The other services take the ports above it, below the range that the system gives to clients.
    monkeypatch.setenv(PROJECT.entrance_port, str(random.randrange(20_000, 32_000)))
    shown: list[str] = []
    try:
        with run_locally(shown.append, PROJECT) as run:
            run.wait_until_ready()
            yield run
    except NoEmbeddedBroker as error:
        pytest.skip(str(error))
    assert shown == []  # for example "payments did not stop and was killed"


def edges(spans: Sequence[Span]) -> set[tuple[str, str]]:
    """Pairs of names, parent and child. A parent may arrive after its children."""
    names = {span.span_id: span.name for span in spans}
    return {(names[span.parent_id], span.name) for span in spans if span.parent_id in names}


def test_an_order_arrives_as_one_trace_of_all_services(run: Local) -> None:
    answer = httpx.post(f"{run.urls['orders']}/orders", json=ORDER, trust_env=False)
    trace_id = answer.json()["trace_id"]

    run.receiver.wait_for(
        lambda receiver: edges(receiver.trace(trace_id)) >= set(EDGES), "the order's trace"
    )
    spans = run.receiver.trace(trace_id)
    assert {span.service for span in spans} >= IN_TRACE

    (sent,) = (span.span_id for span in spans if span.name == "send shipments.dispatched")
    run.receiver.wait_for(
        lambda receiver: any(
            link.span_id == sent
            for span in receiver.spans
            for link in span.links
            if span.service == "notifications"
        ),
        "the batch that links to it",
    )
    run.receiver.wait_for(
        lambda receiver: (
            {log.service for log in receiver.logs if log.trace_id == trace_id} >= IN_TRACE
        ),
        "a log record of each service with the order's trace id",
    )
    run.receiver.wait_for(
        lambda receiver: {point.service for point in receiver.metrics} == set(PROJECT.services),
        "metrics of each service",
    )
    assert run.receiver.problems == []
