"""Tempo finds late spans, which waited in the Collector's queue, by their own timestamps."""

import json
import secrets
import time
import urllib.request
from pathlib import Path

from backends import tempo
from e2e.apis import Tempo
from e2e.poll import poll_until

AGES = (5.0, 400.0)  # seconds


def test_spans_are_found_by_their_time_however_late_they_come(
    default_project: Path, tmp_path: Path
) -> None:
    with tempo(default_project, tmp_path) as store:
        assert isinstance(store.traces, Tempo)
        for age in AGES:
            at, trace_id = time.time() - age, f"1{secrets.token_hex(15)}f"
            send(f"http://127.0.0.1:{store.http}/v1/traces", trace_id, at)
            found = poll_until(
                lambda at=at: store.traces.search_between("{}", int(at) - 2, int(at) + 20),  # type: ignore[misc]
                f"a span that is {age:.0f} s old", 30,
            )  # fmt: skip
            assert [trace["traceID"] for trace in found] == [trace_id]


def send(url: str, trace_id: str, at: float) -> None:
    """Send a span of this time, in Unix seconds, as OTLP in JSON."""
    span = {
        "traceId": trace_id, "spanId": secrets.token_hex(8), "name": "late", "kind": 1,
        "startTimeUnixNano": str(int(at * 1e9)), "endTimeUnixNano": str(int(at * 1e9) + 1),
    }  # fmt: skip
    body = {"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    urllib.request.urlopen(request, timeout=10).close()
