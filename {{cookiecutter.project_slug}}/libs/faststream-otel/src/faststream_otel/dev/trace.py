"""`make trace`: a trace of what runs in Docker, in the terminal, and the links to it."""

import json
import re
from urllib.parse import quote

from rich.console import Console

from . import backend, family
from .project import UserError, port
from .waterfall import Waterfall

WAIT_SECONDS = 20.0


def run(console: Console, trace_id: str) -> None:
    """Show a trace, and those that link to it, as soon as they are whole.

    Raises:
        UserError: It is no trace id, the backend does not answer, or it has no such trace.
    """
    if not trace_id:
        raise UserError(
            "Which trace? Give the id that a service answered or logged: make trace ARGS=<trace id>"
        )
    if not re.fullmatch("[0-9a-f]{32}", trace_id):
        raise UserError(f"{trace_id} is no trace id: give its 32 digits, 0 to 9 and a to f.")
    if not is_running():
        raise UserError(
            f"No {backend.NAME} answers at {_url()}: start it with `make up`, or set"
            f" {backend.PORT_VARIABLE} to the port that it has. (`make dev` shows traces by"
            " itself.)"
        )
    if not show(console, trace_id):
        raise UserError(f"{backend.NAME} has no trace {trace_id}.")


def is_running() -> bool:
    """Whether there is a backend to ask."""
    return backend.answers(_url())


def links(trace_id: str) -> list[str]:
    """Where the trace is: in Grafana, and where the backend has pages, in these."""
    grafana = explore_link(f"http://127.0.0.1:{port('GRAFANA_PORT')}", trace_id)
    own = backend.PAGE.format(trace_id=trace_id)
    return [grafana, f"{_url()}{own}"] if own else [grafana]


def explore_link(grafana: str, trace_id: str) -> str:
    """Make the address of Grafana's Explore page that shows this trace."""
    uid = "traces"  # of the data source, whatever it is
    query = backend.explore_query(trace_id)
    query = {"refId": "A", **query, "datasource": {**query["datasource"], "uid": uid}}
    pane = {"datasource": uid, "queries": [query], "range": {"from": "now-1h", "to": "now"}}
    panes = json.dumps({"trace": pane}, separators=(",", ":"))
    return f"{grafana}/explore?schemaVersion=1&panes={quote(panes, safe='')}&orgId=1"


def show(console: Console, trace_id: str) -> bool:
    """Print a trace as soon as it is whole, after the links to it; False if none of it came."""
    for link in links(trace_id):
        console.print(link, highlight=False, soft_wrap=True)
    with console.status("Waiting for its spans …"):
        spans = family.wait_for(_url(), trace_id, WAIT_SECONDS)
    if not spans:
        return False
    console.print()
    console.print(Waterfall(trace_id, spans))
    return True


def _url() -> str:
    return f"http://127.0.0.1:{port(backend.PORT_VARIABLE)}"
