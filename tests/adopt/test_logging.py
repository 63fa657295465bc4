"""Other ways to log: each line has its trace, and each record leaves once."""

import json
from collections import Counter
from typing import Any

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


ABOUT_IT = ("registered", "Ann is number -1")


def test_structlog_loses_nothing(run: Run, topics: Topics, receiver: Receiver) -> None:
    """Keys that `logging` reserves, context variables, arguments and tracebacks, in both places."""
    trace, lines, records = _log_of_an_error("structlog", run, topics, receiver)
    found = [json.loads(line) for line in lines if line.startswith("{")]
    events = {event["event"]: event for event in found if event["trace_id"] == trace}
    assert events["registered"]["name_"] == "Ann"
    assert {events[text]["user_id"] for text in (*ABOUT_IT, "refused")} == {-1}
    for text in ("refused", "refused, says logging"):
        assert events[text]["exception"].endswith("ValueError: no such user")
        assert "Traceback" in records[text]["exception.stacktrace"]
        assert "exc_info" not in events[text]
    assert records["registered"] == {"name_": "Ann", "user_id": -1}
    assert records["Ann is number -1"] == {"user_id": -1}


def test_loguru_loses_nothing(run: Run, topics: Topics, receiver: Receiver) -> None:
    trace, lines, records = _log_of_an_error("loguru", run, topics, receiver)
    refused = [
        number for number, line in enumerate(lines, 1) if trace in line and "refused" in line
    ]
    assert [lines[after] for after in refused] == ["Traceback (most recent call last):"] * 2
    assert records["registered"] == {"extra": {"user_id": -1, "name": "Ann"}}
    assert "Ann is number -1" in records
    for text in ("refused", "refused, says logging"):
        assert "Traceback" in records[text]["exception.stacktrace"]


def _log_of_an_error(
    recipe: str, run: Run, topics: Topics, receiver: Receiver
) -> tuple[str, list[str], dict[str, Any]]:
    """A trace, all lines that the service prints, and the attributes of the trace's records."""
    service = run(recipe, recipe, *FASTSTREAM)
    trace = trace_id(topics.answer(lambda: topics.publish({"user": "Ann", "user_id": -1})))
    lines = service.stop().splitlines()
    records = {one.body: one.attributes for one in receiver.logs if one.trace_id == trace}
    return trace, lines, records
