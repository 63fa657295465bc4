"""Shows traces when they are complete."""

import time

from rich.console import Console

from .otlp import Span
from .receiver import OtlpReceiver
from .waterfall import Waterfall, linked_traces, orphans

QUIET_SECONDS = 1.5
"""A trace is complete when neither it nor a trace that links to it got a span for this long."""
PATIENCE_SECONDS = 15.0
"""The same for a trace with missing parents, which are sent only when they end."""


class LiveTraces:
    """Prints the waterfall of each trace once, when it is complete, and each problem.

    Args:
        export_interval: Seconds that services may keep a span before they send it.
    """

    def __init__(
        self, receiver: OtlpReceiver, console: Console, export_interval: float = 0.0
    ) -> None:
        self._receiver = receiver
        self._console = console
        self._export_interval = export_interval
        self._sizes: dict[str, int] = {}
        self._changed: dict[str, float] = {}
        self._shown: set[str] = set()
        self._problems = 0

    def show(self) -> None:
        """Print the traces that became complete since the last call."""
        spans = self._receiver.spans
        by_trace: dict[str, list[Span]] = {}
        for span in spans:
            by_trace.setdefault(span.trace_id, []).append(span)
        now = time.monotonic()
        for trace_id, own in by_trace.items():
            if self._sizes.get(trace_id) != len(own):
                self._sizes[trace_id] = len(own)
                self._changed[trace_id] = now
        for trace_id, own in by_trace.items():
            if trace_id in self._shown or self._belongs_to_another(own, by_trace):
                continue
            together = [one for one in linked_traces(trace_id, spans) if one in by_trace]
            members = [span for one in together for span in by_trace[one]]
            wait = PATIENCE_SECONDS if orphans(members) else QUIET_SECONDS + self._export_interval
            if now - max(self._changed[one] for one in together) >= wait:
                self._shown.update(together)
                self._console.print(Waterfall(trace_id, members, self._receiver.logs))
        self._forget(by_trace)
        self._show_problems()

    def _belongs_to_another(self, own: list[Span], by_trace: dict[str, list[Span]]) -> bool:
        """Whether it will be shown beneath a trace that is not complete yet."""
        causes = {link.trace_id for span in own for link in span.links} - {own[0].trace_id}
        return any(cause in by_trace and cause not in self._shown for cause in causes)

    def _forget(self, by_trace: dict[str, list[Span]]) -> None:
        self._shown.intersection_update(by_trace)
        for kept in (self._sizes, self._changed):
            for trace_id in kept.keys() - by_trace.keys():
                del kept[trace_id]

    def _show_problems(self) -> None:
        problems = self._receiver.problems
        for problem in problems[self._problems :]:
            self._console.print(f"! {problem}", style="yellow", markup=False, highlight=False)
        self._problems = len(problems)
