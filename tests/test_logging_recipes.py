"""What docs/telemetry.md shows for structlog and loguru exports their records, with the trace."""

import re
import textwrap
from pathlib import Path

import pytest
from bakery import Bakery

BEFORE = """
import logging
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter
from faststream_otel import Telemetry
from faststream_otel.logs import configure_logging

configure_logging("INFO")
exporter = InMemoryLogRecordExporter()
telemetry = Telemetry("tested", log_exporter=exporter)
tracer = telemetry.tracer_provider.get_tracer("tested")
"""
USE = {
    "structlog": """
log = structlog.get_logger("shop")
with tracer.start_as_current_span("handling") as span:
    log.info("order placed", order="o-1")
    log.debug("not this")
    try:
        raise LookupError("no parcel")
    except LookupError:
        log.exception("not shipped", order="o-1")
bound = {"order": "o-1"}
""",
    "loguru": """
with tracer.start_as_current_span("handling") as span:
    logger.bind(order="o-1").info("order {}", "placed")
    try:
        raise LookupError("no parcel")
    except LookupError:
        logger.bind(order="o-1").exception("not shipped")
bound = {"extra": {"order": "o-1"}}
""",
}
AFTER = """
telemetry.close()
placed, failed = [one.log_record for one in exporter.get_finished_logs()]
assert (placed.body, failed.body) == ("order placed", "not shipped"), (placed.body, failed.body)
assert dict(placed.attributes) == bound, placed.attributes
assert failed.attributes["exception.message"] == "no parcel", failed.attributes
assert placed.trace_id == failed.trace_id == span.get_span_context().trace_id
"""


def recipe(project: Path, library: str) -> str:
    """The block of the document that imports the library."""
    text = (project / "docs/telemetry.md").read_text("utf-8")
    blocks = re.findall(r"^(?:(?:    .*)?\n)+", text, re.MULTILINE)
    imports = re.compile(rf"^    (import|from) {library}", re.MULTILINE)
    (found,) = filter(imports.search, blocks)
    return textwrap.dedent(found)


@pytest.mark.parametrize("library", USE)
def test_records_of_another_library_are_exported(
    library: str, default_project: Path, bakery: Bakery
) -> None:
    program = BEFORE + recipe(default_project, library) + USE[library] + AFTER
    none = [f"OTEL_{signal}_EXPORTER=none" for signal in ("TRACES", "METRICS")]
    bakery.run(
        default_project, "env", *none, "uv", "run", "--with", library, "python", "-c", program
    )
