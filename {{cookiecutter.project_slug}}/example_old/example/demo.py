"""`make demo`: the same run, with three orders whose traces are shown and checked."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.rule import Rule

from .. import backend
from ..local import Local, run_locally
from ..model import Span
from ..project import ROOT, UserError, services
from ..sink import OtlpSink
from ..waterfall import Waterfall, linked_traces, orphans
from .orders import ORDERS, Order, Outcome, place

TRACE_SECONDS = 20.0

Expected = Sequence[tuple[str, str, str]]
"""Service, span name and status of what an order's trace, and those linked to it, must hold."""

TAKEN: Expected = [
    ("orders", "POST /orders", "UNSET"),
    ("orders", "send orders.placed", "UNSET"),
    ("payments", "process orders.placed", "UNSET"),
    ("payments", "authorize card", "UNSET"),
]
EXPECTED: dict[Outcome, Expected] = {
    "succeeds": [
        *TAKEN,
        ("payments", "send payments.authorized", "UNSET"),
        ("shipping", "process payments.authorized", "UNSET"),
        ("shipping", "send shipments.dispatched", "UNSET"),
        ("notifications", "process shipments.dispatched", "UNSET"),
    ],
    "is declined": [
        *TAKEN,
        ("payments", "send payments.declined", "UNSET"),
        ("notifications", "process payments.declined", "UNSET"),
    ],
    "fails": [
        *TAKEN,
        ("payments", "send payments.authorized", "UNSET"),
        ("shipping", "process payments.authorized", "ERROR"),
        ("shipping", "retry payments.authorized", "ERROR"),
        ("shipping", "send dead-letters", "UNSET"),
    ],
}
TITLES: dict[Outcome, str] = {
    "succeeds": "An order that succeeds",
    "is declined": "An order that is declined: an answer, not an error",
    "fails": "An order that fails, is retried, and ends in the dead letters",
}


@dataclass(frozen=True)
class _Family:
    """The spans of a trace and of those that link to it."""

    spans: list[Span]

    @classmethod
    def of(cls, trace_id: str, sink: OtlpSink) -> "_Family":
        spans = sink.spans
        family = linked_traces(trace_id, spans)
        return cls([span for span in spans if span.trace_id in family])

    def missing(self, expected: Expected) -> list[str]:
        present = {(span.service, span.name, span.status) for span in self.spans}
        return [
            f"{name} of {service}{' with status ERROR' if status == 'ERROR' else ''}"
            for service, name, status in expected
            if (service, name, status) not in present
        ]


def run(console: Console) -> None:
    """Run it all once.

    Raises:
        UserError: Something did not start, or a trace was not as it must be.
    """
    needed = {service for expected in EXPECTED.values() for service, _, _ in expected}
    if absent := sorted(needed - set(services())):
        raise UserError(
            f"The demo shows the example's services, and {', '.join(absent)} is not there: use"
            " `make dev`."
        )
    started = time.monotonic()
    with run_locally(lambda line: console.print(line, markup=False)) as local:
        console.print(f"Starting {', '.join(local.urls)}, a Kafka broker and an OTLP receiver …")
        local.wait_until_ready()
        failures = [
            failure
            for outcome, order in ORDERS.items()
            for failure in _follow(console, local, outcome, order)
        ]
        failures += local.sink.problems
        console.print(f"Stopping, in order; what the services printed is in {local.log} …")
    if failures:
        raise UserError("The demo found:" + "".join(f"\n  {failure}" for failure in failures))
    _say_what_next(console, time.monotonic() - started)


def _follow(console: Console, local: Local, outcome: Outcome, order: Order) -> list[str]:
    """Place an order, show its trace, and return what was wrong with it."""
    expected = EXPECTED[outcome]
    placed = place(local.urls["orders"], order)
    trace_id = placed.trace_id

    def complete(sink: OtlpSink) -> bool:
        family = _Family.of(trace_id, sink)
        return not family.missing(expected) and not orphans(family.spans)

    failures = []
    try:
        local.sink.wait_for(complete, f"the trace of an order that {outcome}", TRACE_SECONDS)
        local.sink.wait_for(
            lambda sink: any(record.trace_id == trace_id for record in sink.logs),
            "a log record of that trace",
        )
        time.sleep(0.5)  # the log lines of its last services are on their way
    except TimeoutError:
        local.check()
        family = _Family.of(trace_id, local.sink)
        failures += [
            f"An order that {outcome} (trace {trace_id}) has no span {missing}."
            for missing in family.missing(expected)
        ]
        failures += [
            f"{span.name} of {span.service} (trace {trace_id}) has lost its parent."
            for span in orphans(family.spans)
        ]
        if not any(record.trace_id == trace_id for record in local.sink.logs):
            failures.append(f"Trace {trace_id} has no log record.")
    console.print()
    console.print(Rule(TITLES[outcome], align="left"))
    console.print(f"POST /orders  {_curl_body(order)}", style="dim", highlight=False, markup=False)
    console.print()
    console.print(Waterfall(trace_id, local.sink.spans, local.sink.logs))
    return failures


def _curl_body(order: Order) -> str:
    return f"{order.sku}, {order.amount_cents / 100:,.2f} {order.currency}, to {order.country}"


def _say_what_next(console: Console, seconds: float) -> None:
    console.print()
    console.print(Rule("Done", align="left"))
    console.print(f"Every expected span arrived, each where it belongs ({seconds:.0f} s).")
    console.print("\nThe project is in", highlight=False)
    console.print(f"  {ROOT}", style="bold", highlight=False, soft_wrap=True)
    console.print("\nNext, in that folder:")
    for command, what in (
        ("docker compose up", f"the same with Kafka, {backend.NAME}, Prometheus, Loki and Grafana"),
        ("make order", "place an order, get the link to its trace"),
        ("make dev", "this run, until Ctrl-C, restarting on change"),
        ("README.md", "how it is laid out, and how to make it yours"),
    ):
        console.print(f"  {command:<18} {what}", highlight=False)
