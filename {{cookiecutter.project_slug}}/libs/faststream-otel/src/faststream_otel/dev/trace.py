"""Shows a trace from the stack in Docker in the terminal, and the links to it."""

import json
import re
import time
from urllib.parse import quote

from rich.console import Console

from .otlp import Span
from .project import Project, UserError
from .stores import Store, port_variable, store_of
from .waterfall import Waterfall, orphans

DATA_SOURCE = "faststream-traces"
"""The uid of Grafana's data source for traces, the same for every store."""
WAIT_SECONDS = 20.0
QUIET_SECONDS = 6.0
"""A trace without new spans for this long is complete: services send their spans every 5 s."""
MAX_TRACES = 20
"""How many linked traces to show, at most."""


def show_trace(console: Console, project: Project, trace_id: str) -> None:
    """Show a trace, and the traces that link to it, once they are complete.

    Raises:
        UserError: The id is not a trace id, or the store is unreachable or has no such trace.
    """
    if not re.fullmatch("[0-9a-f]{32}", trace_id):
        raise UserError(f"{trace_id} is not a trace id: give its 32 digits, 0 to 9 and a to f.")
    traces = Traces(project)
    if not traces.store.is_ready():
        raise UserError(
            f"{traces.store.NAME} does not answer at {traces.url}: start it with `make up`, or set"
            f" {port_variable(traces.store)} to its port. (`make dev` shows traces by itself.)"
        )
    traces.print_links(console, trace_id)
    if not traces.print_trace(console, trace_id):
        raise UserError(f"{traces.store.NAME} has no trace {trace_id}.")


class Traces:
    """The traces in the project's store."""

    def __init__(self, project: Project) -> None:
        self.store: Store = store_of(project)
        self.url = project.url(port_variable(self.store), self.store.PORT)
        self._grafana = project.url("GRAFANA_PORT", 3000)

    def links(self, trace_id: str) -> list[str]:
        """Links to a trace: in Grafana, and in the store's own UI if it has one."""
        own = self.store.PAGE.format(trace_id=trace_id)
        grafana = explore_link(self._grafana, self.store, trace_id)
        return [grafana, f"{self.url}{own}"] if own else [grafana]

    def print_links(self, console: Console, trace_id: str) -> None:
        for link in self.links(trace_id):
            console.print(link, highlight=False, soft_wrap=True)

    def print_trace(self, console: Console, trace_id: str) -> bool:
        """Print a trace once it is complete; return False if no span of it arrived."""
        with console.status("Waiting for its spans …"):
            spans = wait_for(self.store, trace_id, WAIT_SECONDS)
        if spans:
            console.print()
            console.print(Waterfall(trace_id, spans))
        return bool(spans)


def explore_link(grafana: str, store: Store, trace_id: str) -> str:
    """The URL of a trace in Grafana's Explore."""
    query = store.explore_query(trace_id)
    query = {"refId": "A", **query, "datasource": {**query["datasource"], "uid": DATA_SOURCE}}
    pane = {"datasource": DATA_SOURCE, "queries": [query], "range": {"from": "now-1h", "to": "now"}}
    panes = json.dumps({"trace": pane}, separators=(",", ":"))
    return f"{grafana}/explore?schemaVersion=1&panes={quote(panes, safe='')}&orgId=1"


def wait_for(store: Store, trace_id: str, timeout: float) -> list[Span]:
    """Wait for a trace and those that link to it; after `timeout` seconds, return what has arrived.

    They are complete when every parent and every linked span has arrived. A trace without links to
    it is complete when no more spans arrive for a while.
    """
    deadline = time.monotonic() + timeout
    spans: list[Span] = []
    changed = time.monotonic()
    while time.monotonic() < deadline:
        before = len(spans)
        own = store.trace(trace_id)
        others = _linked(store, trace_id, own) if own else []
        spans = own + others
        if len(spans) != before:
            changed = time.monotonic()
        if own and others and _is_whole(own, others):
            break
        if own and time.monotonic() - changed > QUIET_SECONDS:
            break
        time.sleep(0.5)
    return spans


def _linked(store: Store, trace_id: str, own: list[Span]) -> list[Span]:
    """Read the traces that link to a trace, directly or through others: a replay, and its batch."""
    since = min(span.start_ns for span in own) / 1e9 - 1
    traces = [trace_id]
    for one in traces:  # grows while iterating
        more = [other for other in store.linked(one, since) if other not in traces]
        traces += more[: MAX_TRACES - len(traces)]
    return [span for one in traces[1:] for span in store.trace(one)]


def _is_whole(own: list[Span], others: list[Span]) -> bool:
    ids = {(span.trace_id, span.span_id) for span in own}
    targets = {(link.trace_id, link.span_id) for span in others for link in span.links}
    return not orphans(own) and {one for one in targets if one[0] == own[0].trace_id} <= ids
