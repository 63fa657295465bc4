"""Reads spans from the trace store, many at a time.

Tempo needs a third of a second of CPU to find one trace by its id. A search returns some hundred
traces in that time, with the requested attributes. So this module searches, in windows of time. A
search is incomplete in these cases:

- Of a trace in two blocks, it returns only the spans of the block with more matching spans. So this
  searches for each service separately, and reads the remaining traces by id.
- Of a span with several matching links, it returns only the last. So this searches for the other
  links again.
- It does not find a link whose span id begins with a zero byte, since it compares seven bytes with
  eight. So this searches for the remaining links by trace id, and reads those traces by id.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Protocol
from urllib.error import HTTPError

from e2e.apis import Span, Tempo, get, spans_of
from e2e.poll import poll_until

from .flow import BATCHES, CONSUMERS, OTHERS, SERVICES

WORKERS = 4
ANSWER_SECONDS = 300.0  # for one search, with its retries
WINDOW_SECONDS = 40  # shorter ones take as long: a search reads whole blocks
MOST_TRACES = 10_000  # in one answer: many more exceed Tempo's limits of size and of memory
MOST_SPANS = 100  # of one trace: Tempo's own limit
MOST_LINKS = 600  # in one window
LINKS_ASKED = 120  # in one search
MOST_BY_TRACE = 200  # links to search for by trace id, in one pass
DURATIONS = (0, 10**12)  # of spans, in nanoseconds; a search that finds too much is divided by them
SOON_SECONDS = 30  # nearly every message is handled within this time
WANTED = (
    "span:parentID", "name", "kind", "status", "resource.service.name", "link:traceID",
    "link:spanID", "span.messaging.batch.message_count", "span.messaging.destination.template",
    "span.messaging.destination.partition.id", "span.messaging.kafka.offset",
    "span.messaging.message.id", "span.http.response.status_code",
)  # fmt: skip

Sender = tuple[str, str]
"""Trace and span."""


class TooLargeError(Exception):
    """An answer of the store is too large. Asking again would not help."""


class Traces(Protocol):
    def between(self, since: float, until: float) -> list[Span]:
        """Return the spans of the traces that were alive between two times, in Unix seconds.

        Raises:
            OSError: The store does not answer, or its answer is incomplete.
        """

    def linking(self, senders: Mapping[Sender, float], until: float) -> list[Span]:
        """Return spans that link to these.

        Args:
            senders: With the Unix seconds at which each one sent.
            until: Unix seconds.
        """

    def of(self, trace_ids: Iterable[str]) -> list[Span]:
        """Return the spans of these traces. Raises OSError as above."""


class InTempo:
    """Tempo, by its HTTP API."""

    def __init__(self, url: str) -> None:
        self._tempo = Tempo(url)

    def between(self, since: float, until: float) -> list[Span]:
        found: list[Span] = []
        for start in range(int(since) - 1, int(until) + 1, WINDOW_SECONDS):
            for service in (*SERVICES, *OTHERS):
                found += self._search(service, start, start + WINDOW_SECONDS)
        return found

    def linking(self, senders: Mapping[Sender, float], until: float) -> list[Span]:
        found: list[Span] = []
        left = sorted(senders, key=senders.__getitem__)
        # Nearly all are handled soon after they were sent. Searches over the whole time, or by
        # trace id, are limited: the rest is for the next pass.
        for seconds, most in ((SOON_SECONDS, len(left)), (math.inf, MOST_LINKS)):
            for ask, size, many in (
                (self._linking, MOST_LINKS, most),
                (self._linking_to_traces, LINKS_ASKED, MOST_BY_TRACE),
            ):
                for first in range(0, min(len(left), many), size):
                    group = left[first : min(first + size, many)]
                    end = min(senders[group[-1]] + seconds, until) + 5
                    found += _asked(ask, group, int(senders[group[0]]) - 5, int(end))
                known = {link for span in found for link in span.links}
                left = [one for one in left if one not in known]
        return found

    def _linking_to_traces(self, senders: Sequence[Sender], start: int, end: int) -> list[Span]:
        """Read the whole traces that link to any span in the senders' traces."""
        any_of = " || ".join(f'link:traceID = "{one.lstrip("0")}"' for one, _ in senders)
        query = f"{{ kind = consumer && ({any_of}) }}"
        traces = self._found(query, start, end)
        return self.of({trace["traceID"].zfill(32) for trace in traces})

    def _linking(self, senders: Sequence[Sender], start: int, end: int) -> list[Span]:
        """Search once for each link; of a span with several of these links, one is returned."""
        # Neighbours belong to the same batch, so they go into different searches.
        questions = -(-len(senders) // LINKS_ASKED)
        found = []
        for number in range(questions):
            asked = {
                span_id: (trace_id, span_id) for trace_id, span_id in senders[number::questions]
            }
            any_of = " || ".join(f'link:spanID = "{one}"' for one in sorted(asked))
            for service in sorted({CONSUMERS[channel] for channel in BATCHES}):
                # It returns the attributes in the condition: Tempo does not always accept a
                # select() after such a long query.
                query = (
                    f'{{ resource.service.name = "{service}" && kind = consumer'
                    f" && (status = error || status != error) && ({any_of}) }}"
                )
                for trace in self._found(query, start, end):
                    found += [
                        replace(span, links=[asked[link] for _, link in span.links])
                        for span in spans_found(trace)
                    ]
        return found

    def of(self, trace_ids: Iterable[str]) -> list[Span]:
        return whole(self._tempo.trace, trace_ids)

    def _search(
        self, service: str, start: int, end: int, durations: tuple[int, int] = DURATIONS
    ) -> list[Span]:
        least, most = durations
        some = "" if durations == DURATIONS else f" && duration >= {least}ns && duration < {most}ns"
        query = f'{{ resource.service.name = "{service}"{some} }} | select({", ".join(WANTED)})'
        try:
            traces = self._found(query, start, end)
        except TooLargeError:
            middle = math.isqrt(max(1, least) * most)
            if not least < middle < most:
                raise
            shorter = self._search(service, start, end, (least, middle))
            return shorter + self._search(service, start, end, (middle, most))
        too_large = {trace["traceID"].zfill(32) for trace in traces if not _is_all(trace)}
        found = [span for trace in traces if _is_all(trace) for span in spans_found(trace)]
        return found + self.of(too_large)

    def _found(self, query: str, start: int, end: int) -> list[dict[str, Any]]:
        """Search, and retry: one failed search of thousands must not discard the others.

        Raises:
            AssertionError: No answer in time.
            TooLargeError: The answer has too many traces, or is larger than what Tempo's components
                send to each other.
        """

        def ask() -> list[list[dict[str, Any]]]:
            try:
                return [self._tempo.search_between(query, start, end, MOST_TRACES, MOST_SPANS)]
            except HTTPError as error:
                if b"larger than" in error.read():
                    raise TooLargeError(query) from error
                raise

        (found,) = poll_until(ask, "Tempo to answer a search", ANSWER_SECONDS)
        if len(found) >= MOST_TRACES:
            raise TooLargeError(query)
        return found


def _asked(
    ask: Callable[[Sequence[Sender], int, int], list[Span]],
    senders: Sequence[Sender],
    start: int,
    end: int,
) -> list[Span]:
    """Search for links to these between two times, until nothing new is found."""
    found: list[Span] = []
    while senders:
        answer = ask(senders, start, end)
        found += answer
        known = {link for span in answer for link in span.links}
        if not known & {*senders}:
            break
        senders = [one for one in senders if one not in known]
    return found


class InSink:
    """The OTLP receiver in place of Tempo, which lists all its spans."""

    def __init__(self, url: str) -> None:
        self._url = url

    def between(self, since: float, until: float) -> list[Span]:
        start, end = (str(int(time * 1e9)) for time in (since - 1, until + WINDOW_SECONDS))
        return spans_of(get(f"{self._url}/api/spans", start=start, end=end))

    def linking(self, senders: Mapping[Sender, float], until: float) -> list[Span]:
        return []  # `between` has returned all spans

    def of(self, trace_ids: Iterable[str]) -> list[Span]:
        return []


def whole(trace: Callable[[str], list[Span]], trace_ids: Iterable[str]) -> list[Span]:
    """Read traces by their ids, a few at a time."""
    with ThreadPoolExecutor(WORKERS) as pool:
        return [span for spans in pool.map(trace, trace_ids) for span in spans]


def _is_all(trace: dict[str, Any]) -> bool:
    """Whether a search returned all matching spans of a trace."""
    return all(spans["matched"] <= len(spans["spans"]) for spans in trace["spanSets"])


def spans_found(trace: dict[str, Any]) -> Iterable[Span]:
    """Read the spans of a trace in a search result. Raises OSError if they are incomplete."""
    if not _is_all(trace):
        raise OSError(f"trace {trace['traceID']} has more than {MOST_SPANS} spans")
    for spans in trace["spanSets"]:
        for span in spans["spans"]:
            yield _span(span, trace["traceID"].zfill(32))


def _span(span: dict[str, Any], trace_id: str) -> Span:
    values = {one["key"]: next(iter(one["value"].values())) for one in span.get("attributes", ())}
    parent = str(values.get("span:parentID", ""))
    link = (
        str(values.get("link:traceID", "")).zfill(32),
        str(values.get("link:spanID", "")).zfill(16),
    )
    start = int(span["startTimeUnixNano"])
    return Span(
        trace_id=trace_id,
        span_id=span["spanID"].zfill(16),
        parent_id=parent.zfill(16) if parent.strip("0") else "",
        service=str(values.get("service.name", "")),
        name=span.get("name", ""),
        kind=str(values.get("kind", "")).upper(),
        status=str(values.get("status", "")).upper(),
        links=[link] if link[1].strip("0") else [],
        attributes={key: int(value) if key in _NUMBERS else value for key, value in values.items()},
        start_ns=start,
        end_ns=start + int(span.get("durationNanos", 0)),
    )


_NUMBERS = {
    "messaging.batch.message_count",
    "messaging.kafka.offset",
    "http.response.status_code",
}
