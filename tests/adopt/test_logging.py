"""Other ways to log: each line has its trace, and each record leaves once."""

from collections import Counter

import pytest

from .conftest import Run, Topics
from .receiver import Receiver
from .test_faststream import FASTSTREAM, USER, UVICORN
from .traces import trace_id


@pytest.mark.parametrize(
    ("recipe", "section", "command"),
    [
        ("structlog", "structlog", FASTSTREAM),
        ("loguru", "loguru", FASTSTREAM),
        ("uvicorn_logging", "uvicorn", (*UVICORN, "--log-config", "logging.json")),
    ],
)
def test_lines_and_records_have_their_trace(
    recipe: str,
    section: str,
    command: tuple[str, ...],
    run: Run,
    topics: Topics,
    receiver: Receiver,
) -> None:
    service = run(recipe, section, *command)
    trace = trace_id(topics.answer(lambda: topics.publish(USER)))
    lines = service.stop().splitlines()
    about = ("registered", "Received", "Processed")  # the last two are FastStream's own
    for text in about:
        assert [trace in line for line in lines if text in line and trace in line] == [True], lines
    records = Counter(record.body for record in receiver.logs if record.trace_id == trace)
    assert {text: records[text] for text in about} == dict.fromkeys(about, 1)
