"""Reads spans from a trace store whose searches return whole traces."""

from collections.abc import Iterable, Mapping

from e2e.apis import Span
from e2e.stores import InJaeger, InZipkin

from .traces import Sender, whole

WINDOW_SECONDS = 10  # of one search: its result has the whole traces


class WholeTraces:
    """Jaeger or Zipkin."""

    def __init__(self, store: InJaeger | InZipkin) -> None:
        self._store = store

    def between(self, since: float, until: float) -> list[Span]:
        starts = range(int(since) - 1, int(until) + 1, WINDOW_SECONDS)
        return [
            span
            for start in starts
            for span in self._store.spans_between(start, start + WINDOW_SECONDS)
        ]

    def linking(self, senders: Mapping[Sender, float], until: float) -> list[Span]:
        return []  # the spans have all their links already

    def of(self, trace_ids: Iterable[str]) -> list[Span]:
        return whole(self._store.trace, trace_ids)
