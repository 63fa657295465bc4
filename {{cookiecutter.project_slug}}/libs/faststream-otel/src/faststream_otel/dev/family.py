"""A trace and those that link to it, read from the backend as they arrive."""

import time

from . import backend
from .model import Span
from .waterfall import orphans

QUIET_SECONDS = 6.0
"""Services send their spans every 5 s: when nothing came for longer, nothing more will."""

MOST_TRACES = 20
"""That are shown with one."""


def wait_for(url: str, trace_id: str, timeout: float) -> list[Span]:
    """Wait for a trace and those that link to it; after so many seconds return what is there.

    It is whole when every parent and every linked span has arrived. One that nothing links to is
    whole when nothing came for a while.
    """
    deadline = time.monotonic() + timeout
    spans: list[Span] = []
    grown = time.monotonic()
    while time.monotonic() < deadline:
        before = len(spans)
        own = backend.trace(url, trace_id)
        others = _followers(url, trace_id, own) if own else []
        spans = own + others
        if len(spans) != before:
            grown = time.monotonic()
        if own and others and _whole(own, others):
            break
        if own and time.monotonic() - grown > QUIET_SECONDS:
            break
        time.sleep(0.5)
    return spans


def _followers(url: str, trace_id: str, own: list[Span]) -> list[Span]:
    """Read the traces that link to a trace, and those that link to them: a replay, and its own."""
    since = min(span.start_ns for span in own) / 1e9 - 1
    family = [trace_id]
    spans: list[Span] = []
    for one in family:  # grows on the way
        more = [other for other in backend.linked(url, one, since) if other not in family]
        family += more[: MOST_TRACES - len(family)]
        spans += [span for other in more if other in family for span in backend.trace(url, other)]
    return spans


def _whole(own: list[Span], others: list[Span]) -> bool:
    ids = {(span.trace_id, span.span_id) for span in own}
    targets = {(link.trace_id, link.span_id) for span in others for link in span.links}
    return not orphans(own) and {one for one in targets if one[0] == own[0].trace_id} <= ids
