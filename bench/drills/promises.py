"""The promises, one row for each drill, and the comparison of a drill's figures with its row."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from .accounting import Duplicate, Messages, Missing, Spans
from .flow import CONSUMERS

BROKER = "broker"
"""What an interruption of the broker is called, whichever it is."""
IN_FLIGHT_SECONDS = 2.0
"""Messages sent this long before an interruption may have been in flight."""
EXPORT_SECONDS = 7.0
"""How long an ended span may wait in its process: OTEL_BSP_SCHEDULE_DELAY, and its export."""


@dataclass(frozen=True)
class Promise:
    fault: str
    messages: str = "none lost, none twice"
    spans: str = "none lost"
    duplicates: Literal["none", "in flight", "any"] = "none"
    """Which records may be duplicated."""
    missing: Literal["none", "unexported", "any"] = "none"
    """Which spans may be missing: none, those that a killed process had not exported, or any."""
    every_broker: bool = False
    """Whether the drill runs with every broker; if not, with the template's default one only."""


IN_FLIGHT = "none lost; twice only what was in flight"

PROMISES = {
    "sigterm": Promise("SIGTERM to each service", IN_FLIGHT, duplicates="in flight",
                       every_broker=True),
    "stop": Promise("`docker compose stop` and `start` of each service", IN_FLIGHT,
                    duplicates="in flight", every_broker=True),
    "restart": Promise("`docker compose restart` of all services at once", IN_FLIGHT,
                       duplicates="in flight", every_broker=True),
    "rolling": Promise("each replica restarted one by one, 1 of each service", IN_FLIGHT,
                       duplicates="in flight", every_broker=True),
    "rolling_two": Promise("each replica restarted one by one, 2 of each service", IN_FLIGHT,
                           duplicates="in flight"),
    "kill": Promise("kill -9 of each service", IN_FLIGHT,
                    "only what the dead process had not exported",
                    duplicates="in flight", missing="unexported", every_broker=True),
    "kill_in_handler": Promise("kill -9 in mid-handler", "handled again, once"),
    "broker_restart": Promise("broker restarted", IN_FLIGHT, duplicates="in flight",
                              every_broker=True),
    "broker_down": Promise("broker down 60 s", f"{IN_FLIGHT}; 503 with Retry-After meanwhile",
                           duplicates="in flight", every_broker=True),
    "broker_absent": Promise("broker absent when the services start",
                             "none lost; 503 with Retry-After meanwhile"),
    "collector_restart": Promise("Collector restarted"),
    "collector_down": Promise("Collector down 60 s"),
    "poison": Promise("poison: invalid JSON, wrong schema, wrong type, empty, future contract,"
                      " header not UTF-8, null or repeated; single and in a batch",
                      "each once in the dead letters, with reason, origin and trace",
                      "an error span each", every_broker=True),
    "trace_context": Promise("malformed traceparent or tracestate, missing headers, 1 MiB",
                             "handled like any other", "a new trace where W3C says so"),
    "large": Promise("larger than the limit, and just below it",
                     "413 to its sender, or dead letter; nothing half done", "a span each"),
    "memory": Promise("400 messages of 0.9 MB that fail", "each once in the dead letters",
                      "an error span each; the service's memory stays bounded"),
    "handlers": Promise("handler that always raises, raises twice, hangs",
                        "bounded retries, then the dead letters", "each attempt"),
    "stuck": Promise("event loop blocked, consumer stuck",
                     "the process exits with a reason, and is restarted",
                     "only what the dead process had not exported",
                     duplicates="in flight", missing="unexported"),
    "rebalance": Promise("rebalance storm", IN_FLIGHT, duplicates="in flight"),
    "clock_skew": Promise("clocks half an hour apart", "none lost", "none of negative duration"),
    "redelivery": Promise("duplicate and out-of-order delivery", "handled once and the same twice",
                          duplicates="any", every_broker=True),
    "collector_absent": Promise("Collector absent for a whole run",
                                "none lost, throughput within 10 %",
                                "bounded memory; what is dropped is counted", missing="any"),
    "backends_down": Promise("Trace backend, Loki and Prometheus down 5 minutes"),
    "backends_down_kill": Promise("Trace backend and Loki down 5 minutes, the Collector killed"
                                  " meanwhile"),
    "collector_full": Promise("Collector's queue full", "none lost, none twice",
                              "the newest dropped, counted, alert fires", missing="any"),
    "collector_disk_full": Promise("Collector's disk full", "none lost, none twice",
                                   "the queued may go too; counted, alert fires", missing="any"),
    "soak": Promise("soak, each container restarted twice", f"{IN_FLIGHT}; memory flat",
                    duplicates="in flight"),
    "fuzz": Promise("10,000 inputs made up: valid, wrong in one place, rubbish",
                    "none lost, each handled or in the dead letters once", "none lost"),
}  # fmt: skip


def drills_for(broker: str, default: str) -> list[str]:
    """Return the names of the drills that run with a broker."""
    return [name for name, one in PROMISES.items() if one.every_broker or broker == default]


@dataclass(frozen=True)
class Interruption:
    """Something was stopped or disconnected, from `start` to `end` (Unix seconds)."""

    what: str
    start: float
    end: float
    killed: bool = False


@dataclass(frozen=True)
class Figures:
    """What a drill found."""

    sent: int
    rate: float | None
    """Orders sent per second; None if the drill sent its messages at once."""
    messages: Messages
    spans: Spans
    interruptions: Sequence[Interruption] = ()
    notes: Sequence[str] = ()
    """Further observations."""
    faults: Sequence[str] = ()
    """Broken promises that the drill itself found."""


def broken(promise: Promise, figures: Figures) -> list[str]:
    """Describe how the promise was broken; empty if it was kept."""
    messages = figures.messages
    found = list(figures.faults)
    if not messages.acknowledged:
        found.append("nothing was acknowledged: nothing is proved")
    if messages.lost:
        found.append(f"{len(messages.lost)} orders lost, such as {messages.lost[0]}")
    for group, count in messages.unread.items():
        found.append(f"{count} messages unread by {group}")
    if messages.astray:
        found.append(f"{len(messages.astray)} orders ended otherwise, such as {messages.astray[0]}")
    twice = [one for one in messages.duplicates if not _may_be_twice(promise, one, figures)]
    if twice:
        found.append(f"{len(twice)} messages twice, such as {twice[0]}")
    missing = [one for one in figures.spans.missing if not _may_miss(promise, one, figures)]
    if missing:
        services = Counter(one.service for one in missing)
        by = ", ".join(f"{count} of {service}" for service, count in services.items())
        found.append(f"{len(missing)} spans lost ({by}), such as {missing[0]}")
    return found


def _may_be_twice(promise: Promise, one: Duplicate, figures: Figures) -> bool:
    """Whether its sender or the broker was down when it was sent, or its sender itself got a
    duplicate, which is judged separately."""
    match promise.duplicates:
        case "none":
            return False
        case "any":
            return True
        case "in flight":
            sender = one.first.producer
            given = {
                other.first.order_id
                for other in figures.messages.duplicates
                if CONSUMERS.get(other.first.channel) == sender
            }
            return one.first.order_id in given or any(
                interruption.what in {sender, BROKER}
                and interruption.start - IN_FLIGHT_SECONDS <= one.first.at <= interruption.end
                for interruption in figures.interruptions
            )


def _may_miss(promise: Promise, missing: Missing, figures: Figures) -> bool:
    match promise.missing:
        case "none":
            return False
        case "any":
            return True
        case "unexported":
            return any(
                one.killed
                and one.what == missing.service
                and one.start - EXPORT_SECONDS <= missing.at <= one.end
                for one in figures.interruptions
            )
