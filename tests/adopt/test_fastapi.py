"""FastAPI beside FastStream: the request, its message and what follows are one trace."""

import pytest

from .conftest import Run, Topics
from .receiver import Receiver
from .test_faststream import HOP, USER, UVICORN
from .traces import trace_id, tree

ONE_TRACE = {"POST /users": {"send in-topic": HOP}}


@pytest.mark.parametrize("recipe", ["faststream_fastapi", "fastapi_lifespan", "fastapi_router"])
def test_request_and_messages_are_one_trace(
    recipe: str, run: Run, topics: Topics, receiver: Receiver
) -> None:
    service = run(recipe, "FastAPI", *UVICORN)
    message = topics.answer(lambda: service.post(USER))
    output = service.stop()
    assert tree(receiver.trace(trace_id(message))) == ONE_TRACE, output
    assert {span.service for span in receiver.spans} == {"users"}
