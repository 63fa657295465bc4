"""`make trace` draws what runs in Docker, from whichever backend keeps it."""

import os
import subprocess
import sys

import pytest

from .apis import Span
from .stack import Stack
from .stores import TraceStore
from .tables import LINKS, ORDERS


def faststream_otel(stack: Stack, *arguments: str) -> str:
    """Return what a command prints in the baked project; it reads the ports in .env."""
    inherited = {name: value for name, value in os.environ.items() if not name.endswith("_PORT")}
    done = subprocess.run(
        [sys.executable, "-m", "faststream_otel.cli", *arguments],
        cwd=stack.folder, env=inherited | {"COLUMNS": "200", "FASTSTREAM_OTEL_APP": "order_flow"},
        capture_output=True,
        encoding="utf-8", check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("kind", ORDERS)
def test_every_span_is_drawn_and_every_linked_trace(
    traces: dict[str, list[Span]], store: TraceStore, stack: Stack, kind: str
) -> None:
    trace_id = traces[kind][0].trace_id
    drawn = faststream_otel(stack, "trace", trace_id)
    own, _, linked = drawn.partition("Linked trace")
    for span in traces[kind]:
        assert store.as_it_tells(span.name) in own
    if kind in LINKS:
        assert store.as_it_tells(LINKS[kind][1].partition(": ")[2]) in linked
    assert ("ERROR" in own) == (kind == "failing")


def test_links_are_printed_above_it(
    traces: dict[str, list[Span]], store: TraceStore, stack: Stack
) -> None:
    trace_id = traces["failing"][0].trace_id
    grafana, *rest = faststream_otel(stack, "trace", trace_id).splitlines()
    assert grafana.startswith(f"{stack.url('GRAFANA_PORT')}/explore?")
    if store.page:
        assert rest[0] == stack.url(stack.traces_port) + store.page + trace_id


def test_where_things_are_is_said(stack: Stack) -> None:
    assert stack.url(stack.traces_port) in faststream_otel(stack, "urls")
