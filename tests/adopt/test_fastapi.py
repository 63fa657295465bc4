"""FastAPI beside FastStream: the request, its message and what follows are one trace."""

import pytest

from . import page
from .conftest import Run, Topics
from .receiver import Receiver
from .test_faststream import HOP, USER, UVICORN
from .traces import Tree, trace_id, tree

ONE_TRACE: Tree = {"POST /users": {"send in-topic": HOP}}


@pytest.mark.parametrize("recipe", ["faststream_fastapi", "fastapi_lifespan", "fastapi_router"])
def test_request_and_messages_are_one_trace(
    recipe: str, run: Run, topics: Topics, receiver: Receiver
) -> None:
    service = run(recipe, "FastAPI", *UVICORN, **page.variables("FastAPI"))
    message = topics.answer(lambda: service.post(USER))
    output = service.stop()
    spans = receiver.trace(trace_id(message))
    assert tree(spans) == ONE_TRACE, output
    assert len(spans) == 4
    assert "http.server.request.duration" in {point.name for point in receiver.metrics}
    assert {span.service for span in receiver.spans} == {"users"}


@pytest.mark.parametrize("recipe", ["faststream_fastapi", "fastapi_lifespan"])
def test_a_service_with_an_unreachable_broker_ends(recipe: str, run: Run) -> None:
    service = run(recipe, "FastAPI", *UVICORN, kafka="127.0.0.1:9")
    assert service.process.wait(30) != 0


def test_a_message_that_does_not_fit_fastapis_router_is_not_retried(
    run: Run, topics: Topics, receiver: Receiver
) -> None:
    service = run("fastapi_router", "FastAPI", *UVICORN, **page.variables("FastAPI"))
    letter = topics.answer(lambda: topics.publish({"user": "Ann"}), topic="dead-letters")
    output = service.stop()
    names = [span.name for span in receiver.trace(trace_id(letter))]
    assert sorted(names) == ["process in-topic", "send dead-letters"], output
    assert "The subscriber of" not in output


def test_a_scrape_is_answered_without_a_trace(run: Run, topics: Topics, receiver: Receiver) -> None:
    service = run("prometheus_fastapi", "FastAPI", *UVICORN, **page.variables("FastAPI"))
    message = topics.answer(lambda: service.post(USER))
    assert 'faststream_received_messages_total{app_name="faststream"' in service.get("/metrics")
    output = service.stop()
    assert tree(receiver.trace(trace_id(message))) == ONE_TRACE, output
    assert {span.name for span in receiver.spans if "metrics" in span.name} == set()
