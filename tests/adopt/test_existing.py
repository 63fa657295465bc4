"""OpenTelemetry that is there already: one provider a signal, nothing twice."""

from collections import Counter

import pytest

from .conftest import Run, Topics
from .receiver import Receiver
from .test_faststream import FASTSTREAM, HOP, USER
from .traces import trace_id, tree

SECTION = "OpenTelemetry that is there already"


def test_a_provider_of_the_application_is_used(
    run: Run, topics: Topics, receiver: Receiver
) -> None:
    service = run("existing_provider", SECTION, *FASTSTREAM)
    message = topics.answer(lambda: topics.publish(USER))
    output = service.stop()
    assert tree(receiver.trace(trace_id(message))) == HOP, output
    assert len(receiver.trace(trace_id(message))) == 2
    assert {span.service for span in receiver.spans} == {"theirs"}
    assert {record.service for record in receiver.logs} == {"theirs"}


@pytest.mark.parametrize("recipe", ["first_example", "existing_provider"])
def test_nothing_leaves_twice_under_opentelemetry_instrument(
    recipe: str, run: Run, topics: Topics, receiver: Receiver
) -> None:
    service = run(recipe, SECTION, "opentelemetry-instrument", *FASTSTREAM)
    message = topics.answer(lambda: topics.publish(USER))
    output = service.stop()
    if recipe == "first_example":
        spans = Counter(span.name for span in receiver.trace(trace_id(message)))
        assert spans == Counter(["process in-topic", "send out-topic"]), output
        assert {span.service for span in receiver.spans} == {"users"}
    records = Counter((record.body, record.time_ns) for record in receiver.logs if record.trace_id)
    assert records
    assert set(records.values()) == {1}, output
