"""`make trace`: a trace of what runs in Docker, in the terminal, and the link to it in Grafana."""

import re

from rich.console import Console

from . import tempo
from .project import UserError, port
from .waterfall import Waterfall

WAIT_SECONDS = 20.0


def run(console: Console, trace_id: str) -> None:
    """Show a trace, and those that link to it, as soon as they are whole.

    Raises:
        UserError: It is no trace id, Tempo does not answer, or it has no such trace.
    """
    if not re.fullmatch("[0-9a-f]{32}", trace_id):
        raise UserError(f"{trace_id} is no trace id: give its 32 digits, 0 to 9 and a to f.")
    if not is_running():
        raise UserError(
            f"No Tempo answers at {_tempo_url()}: start it with `make up`, or set TEMPO_PORT to the"
            " port that it has. (`make dev` shows traces by itself.)"
        )
    if not show(console, trace_id):
        raise UserError(f"Tempo has no trace {trace_id}.")


def is_running() -> bool:
    """Whether there is a Tempo to ask."""
    return tempo.answers(_tempo_url())


def link(trace_id: str) -> str:
    """Where the trace is in Grafana."""
    return tempo.explore_link(f"http://127.0.0.1:{port('GRAFANA_PORT')}", trace_id)


def show(console: Console, trace_id: str) -> bool:
    """Print a trace as soon as it is whole, after the link to it; False if none of it came."""
    console.print(link(trace_id), highlight=False, soft_wrap=True)
    with console.status("Waiting for its spans …"):
        spans = tempo.wait_for_family(_tempo_url(), trace_id, WAIT_SECONDS)
    if not spans:
        return False
    console.print()
    console.print(Waterfall(trace_id, spans))
    return True


def _tempo_url() -> str:
    return f"http://127.0.0.1:{port('TEMPO_PORT')}"
