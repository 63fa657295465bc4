"""`python example.py order|load|demo`: places orders with the example's services.

It belongs to the example, and is deleted with it: docs/removing-the-example.md.
"""

import random
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from threading import Semaphore
from typing import Annotated, NamedTuple

import httpx
import typer
from faststream_otel.dev.local import Local, run_locally
from faststream_otel.dev.otlp import Span
from faststream_otel.dev.project import Project, UserError
from faststream_otel.dev.receiver import OtlpReceiver
from faststream_otel.dev.signals import orderly_signals
from faststream_otel.dev.trace import Traces
from faststream_otel.dev.waterfall import Waterfall, linked_traces, orphans
from rich.console import Console
from rich.rule import Rule

WORKERS = 16

cli = typer.Typer(add_completion=False, rich_markup_mode=None, no_args_is_help=True)
console = Console()


@dataclass(frozen=True)
class Order:
    """An order to place. More than 100000 cents are declined. An order to Antarctica (AQ) fails,
    because no carrier goes there, and ends in the dead letters."""

    sku: str = "keyboard"
    quantity: int = 1
    amount_cents: int = 12_900
    currency: str = "EUR"
    country: str = "FI"


class Outcome(NamedTuple):
    """An order, and spans expected in its trace or a linked one: service, name and status."""

    title: str
    order: Order
    spans: tuple[tuple[str, str, str], ...]


ACCEPTED = (
    ("orders", "POST /orders", "UNSET"),
    ("orders", "send orders.placed", "UNSET"),
    ("payments", "process orders.placed", "UNSET"),
    ("payments", "authorize card", "UNSET"),
)
SUCCEEDS = Outcome(
    "An order that succeeds",
    Order(),
    (
        *ACCEPTED,
        ("shipping", "process payments.authorized", "UNSET"),
        ("shipping", "send shipments.dispatched", "UNSET"),
        ("notifications", "process shipments.dispatched", "UNSET"),
    ),
)
DECLINED = Outcome(
    "An order that is declined: an answer, not an error",
    Order(sku="server rack", amount_cents=250_000),
    (*ACCEPTED, ("notifications", "process payments.declined", "UNSET")),
)
FAILS = Outcome(
    "An order that fails, is retried, and ends in the dead letters",
    Order(sku="ice axe", country="AQ"),
    (
        *ACCEPTED,
        ("shipping", "process payments.authorized", "ERROR"),
        ("shipping", "retry payments.authorized", "ERROR"),
        ("shipping", "send dead-letters", "UNSET"),
    ),
)


def mixed(declined: float = 0.1, failing: float = 0.02) -> Order:
    """Make a random order. Of many orders, these shares are declined and fail."""
    draw = random.random()
    if draw < failing:
        return FAILS.order
    if draw < failing + declined:
        return DECLINED.order
    sku = random.choice(("keyboard", "mouse", "screen", "cable"))
    country = random.choice(("FI", "DE", "FR", "SE"))
    return Order(sku, random.randint(1, 3), random.randrange(900, 60_000), country=country)


def place(url: str, order: Order) -> tuple[str, str]:
    """Place an order with the service at this URL; return the order's id and the trace id.

    Raises:
        UserError: The service does not answer, or refuses the order. The text says why.
    """
    try:
        answer = httpx.post(f"{url}/orders", json=asdict(order), timeout=10, trust_env=False)
    except httpx.HTTPError as error:
        raise UserError(
            f"No orders service answers at {url} ({error}): start it by `make up` or `make dev`, or"
            " set ORDERS_PORT to its port."
        ) from error
    if answer.status_code != 202:
        raise UserError(f"{url} refused the order with status {answer.status_code}: {answer.text}")
    accepted = answer.json()
    return accepted["order_id"], accepted["trace_id"]


@cli.command("order", help="Place an order, and show where its trace is.")
def place_order(
    sku: str = "keyboard",
    quantity: int = 1,
    amount_cents: Annotated[int, typer.Option(help="above 100000: declined")] = 12_900,
    currency: str = "EUR",
    country: Annotated[str, typer.Option(help="AQ: fails, has no carrier")] = "FI",
    no_wait: Annotated[bool, typer.Option("--no-wait", help="don't wait for the trace")] = False,
) -> None:
    project = Project.here()
    order = Order(sku, quantity, amount_cents, currency, country)
    order_id, trace_id = place(project.url("ORDERS_PORT", 8000), order)
    print(f"order  {order_id}\ntrace  {trace_id or 'none: tracing is off'}", flush=True)
    traces = Traces(project)
    if not trace_id or not traces.store.is_ready():
        print("`make dev` shows its trace; after `make up`, Grafana does.")
        return
    traces.print_links(console, trace_id)
    if not no_wait and not traces.print_trace(console, trace_id):
        print(f"{traces.store.NAME} has none of its spans yet.")


@cli.command("load", help="Place mixed orders at a steady rate.")
def load(
    rate: Annotated[float, typer.Option(min=0.1, max=200, help="orders per second")] = 5.0,
    duration: Annotated[float, typer.Option(min=1, max=86_400, help="seconds")] = 60.0,
) -> None:
    url = Project.here().url("ORDERS_PORT", 8000)
    place(url, mixed(0, 0))
    print(f"{rate:g} orders per second to {url} for {duration:g} s: about 10 % declined, 2 %"
          " failing. Ctrl-C stops it.", flush=True)  # fmt: skip
    outcomes: Counter[str] = Counter()
    free = Semaphore(2 * WORKERS)

    def send() -> None:
        try:
            place(url, mixed())
            outcomes["accepted"] += 1
        except UserError as error:
            outcomes[str(error)] += 1
        finally:
            free.release()

    def report() -> None:
        seconds = time.monotonic() - begun
        print(f"{seconds:5.0f} s  {outcomes['accepted']} accepted", flush=True)
        for name in sorted(outcomes.keys() - {"accepted"}):
            print(f"         {outcomes[name]} x {name}", flush=True)

    begun = reported = time.monotonic()
    try:
        with ThreadPoolExecutor(WORKERS) as pool:
            for number in range(round(rate * duration)):
                time.sleep(max(0.0, begun + number / rate - time.monotonic()))
                # If the service is slower than the rate, skip orders rather than let them pile up.
                if free.acquire(blocking=False):
                    pool.submit(send)
                else:
                    outcomes["skipped, too many were in flight"] += 1
                if time.monotonic() - reported >= 5:
                    reported = time.monotonic()
                    report()
    except KeyboardInterrupt:  # a normal end
        pass
    finally:
        report()


@cli.command("demo", help="Run every service without Docker, send three orders, show their traces.")
def demo() -> None:
    project = Project.here()
    begun = time.monotonic()
    with run_locally(print, project) as local:
        print(f"Starting {', '.join(local.urls)}, a broker and an OTLP receiver …", flush=True)
        local.wait_until_ready()
        faults = [fault for one in (SUCCEEDS, DECLINED, FAILS) for fault in follow(local, one)]
        faults += local.receiver.problems
        print(f"Stopping; the services' output is in {local.log} …\n", flush=True)
    if faults:
        raise UserError("The demo found faults:" + "".join(f"\n  {fault}" for fault in faults))
    console.print(Rule("Done", align="left"))
    print(f"""\
Every expected span arrived, in its place in the tree ({time.monotonic() - begun:.0f} s).

The project is in
  {project.root}

Next, in that folder:
  docker compose up  the same with Collector, {Traces(project).store.NAME}, Prometheus and Grafana
  make order         place an order, get the link to its trace
  make dev           this run, until Ctrl-C, restarting on change
  README.md          how it is laid out, and how to make it yours""")


def follow(local: Local, outcome: Outcome) -> list[str]:
    """Place an order, show its trace, and return the faults found in it."""
    _, trace_id = place(local.urls["orders"], outcome.order)

    def spans(receiver: OtlpReceiver) -> list[Span]:
        shown = linked_traces(trace_id, receiver.spans)
        return [span for span in receiver.spans if span.trace_id in shown]

    def faults(receiver: OtlpReceiver) -> list[str]:
        found = spans(receiver)
        there = {(span.service, span.name, span.status) for span in found}
        missing = [one for one in outcome.spans if one not in there]
        return [
            *(f"Trace {trace_id} has no span {name} of {service}, status {status}."
              for service, name, status in missing),
            *(f"{span.name} of {span.service} (trace {trace_id}) has no parent."
              for span in orphans(found)),
            *([] if any(record.trace_id == trace_id for record in receiver.logs)
              else [f"Trace {trace_id} has no log record."]),
        ]  # fmt: skip

    try:
        local.receiver.wait_for(lambda one: not faults(one), outcome.title, 20)
        time.sleep(0.5)  # for the log records of the last services
    except TimeoutError:
        local.check()
    order = outcome.order
    console.print(Rule(outcome.title, align="left"))
    print(f"POST /orders  {order.sku}, {order.amount_cents / 100:,.2f} {order.currency},"
          f" to {order.country}\n")  # fmt: skip
    console.print(Waterfall(trace_id, local.receiver.spans, local.receiver.logs))
    return faults(local.receiver)


if __name__ == "__main__":
    try:
        with orderly_signals():
            cli(prog_name="example.py")
    except UserError as fault:
        sys.exit(str(fault))
