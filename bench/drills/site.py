"""The stack that the drills disturb, and one drill's time on it."""

import json
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from e2e.apis import Prometheus, Span
from e2e.load import SHARES
from e2e.poll import poll_until
from e2e.stack import Stack, docker
from e2e.stores import STORES
from e2e.stores import InTempo as InTempoApi
from ports import free_ports

from .accounting import Messages, Offsets, Placed, Record, Spans, Store, follow, look_up
from .flow import BATCHES, CONSUMERS, SERVICES
from .intake import Intake
from .promises import Figures, Interruption
from .topics import Message, Topics
from .traces import InSink, InTempo, Traces
from .whole_traces import WholeTraces

HEALTHY_SECONDS = 180.0
REJOIN_SECONDS = 20.0  # the clients' session time-out, and as long again to notice and to join
DRAINED_SECONDS = 600.0  # what fails by design is tried again, for longer than orders come
MOST_BY_ID = 300  # traces in one pass
REPLICAS = 2
CUT_SHORT = "cut short"
WATCHDOG_SECONDS = 20
SETTINGS = f"""\
DEPLOYMENT_ENVIRONMENT=drills
# Shorter than by default, so that a drill need not wait for it.
WATCHDOG_TIMEOUT_SECONDS={WATCHDOG_SECONDS}
"""
TRIAL = Path(__file__).with_name("trial.py.txt")


@dataclass
class Site:
    """The baked project, up; what is to be known of all drills."""

    stack: Stack
    rate: float = 50.0
    """Orders per second."""
    quick: bool = False
    """Whether long outages are cut short."""
    messages: int = 20_000
    """Of the soak."""
    seed: int | None = None
    """Of the inputs that are made up; by default another one each time."""
    replicas: int = 1
    """As many of orders have a port, in a row; which of them has which, Docker decides anew at
    each start."""

    @property
    def topics(self) -> Topics:
        return Topics(f"127.0.0.1:{self.stack.ports['KAFKA_PORT']}")

    @property
    def prometheus(self) -> Prometheus:
        return Prometheus(self.stack.url("PROMETHEUS_PORT"))

    @property
    def traces(self) -> Traces:
        url = self.stack.url(self.stack.traces_port)
        store = STORES[self.stack.traces](url)
        if not isinstance(store, InTempoApi):
            return WholeTraces(store)
        return InSink(url) if self.stack.stand_in else InTempo(url)

    def wait_until_healthy(self, *services: str) -> None:
        """Wait until every container of these services, by default of all, is up and well."""
        wanted = services or [one for one in self.stack.services if one != "channels"]
        poll_until(
            lambda: all(_is_well(one) for name in wanted for one in self.stack.replicas(name)),
            f"{', '.join(wanted)} to be healthy", HEALTHY_SECONDS,
        )  # fmt: skip

    def wait_until_drained(self, deadline: float = DRAINED_SECONDS) -> tuple[Offsets, Offsets]:
        """Wait until the groups have committed all that there is; return ends and commits.

        What is unread at the deadline is for the accounts to tell.
        """
        topics, until = self.topics, time.monotonic() + deadline
        while True:
            committed, ends = topics.committed(), topics.ends()
            behind = any(
                committed.get(one, 0) < end for one, end in ends.items() if one[0] in CONSUMERS
            )
            if not behind or time.monotonic() > until:
                return ends, committed
            time.sleep(1)


@dataclass
class Run:
    """One drill's time: what it disturbed, what it saw."""

    site: Site
    since: Offsets = field(default_factory=dict)
    began: float = 0.0
    interruptions: list[Interruption] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    injected: int = 0
    """Messages that the drill itself put into topics."""
    records: Sequence[Record] = ()
    """What the accounts were drawn up from, for a drill to look closer."""
    store: Store = field(default_factory=Store)
    _looked_up: Counter[str] = field(default_factory=Counter)

    @property
    def stack(self) -> Stack:
        return self.site.stack

    @property
    def forgets_traces(self) -> bool:
        """Whether the trace store keeps its spans in memory alone."""
        return bool(self.stack.stand_in or STORES[self.stack.traces].in_memory)

    def note(self, text: str) -> None:
        """Add to what was seen."""
        self.notes.append(text)

    def must(self, condition: object, text: str) -> None:
        """Hold the run to a promise that the accounts do not show."""
        if not condition:
            self.faults.append(text)

    def seconds(self, full: float, quick: float) -> float:
        """How long something lasts; or how much of it there is."""
        if self.site.quick and CUT_SHORT not in self.notes:
            self.note(CUT_SHORT)
        return quick if self.site.quick else full

    @contextmanager
    def load(self, rate: float | None = None) -> Iterator[Intake]:
        """Place orders at the site's rate, or this one; undisturbed for the first seconds."""
        self.mark()
        with self.intake(rate) as intake:
            time.sleep(5)
            yield intake
            time.sleep(3)

    def intake(self, rate: float | None = None, shares: Mapping[str, float] = SHARES) -> Intake:
        """Return a load that has yet to be entered, at the site's rate or this one."""
        first = self.stack.ports["ORDERS_PORT"]
        return Intake(range(first, first + self.site.replicas), rate or self.site.rate, shares)

    def mark(self) -> None:
        """Begin the accounts here: everything in the topics is of an earlier drill."""
        self.since, self.began = self.site.topics.ends(), time.time()

    def inject(
        self, messages: Sequence[Message], compression: str = "none"
    ) -> list[tuple[str, int, int]]:
        """Put messages of the drill's own into topics; return where each of them lies."""
        self.injected += len(messages)
        return self.site.topics.send(messages, compression)

    def reckon(self, intake: Intake | None = None, patience: float = 120.0) -> Figures:
        """Wait until all is handled and told, and draw up the accounts.

        Args:
            intake: What placed orders, if anything did.
            patience: Seconds to wait for spans that have not arrived, since the last that did.
        """
        if intake and (said := intake.described()):
            self.note(said)
        self.site.wait_until_healthy()
        messages, spans = self.account(intake.placed if intake else (), patience)
        return Figures(
            sent=self.injected + (intake.sent if intake else 0),
            rate=intake.rate_reached if intake else None,
            messages=replace(messages, acknowledged=messages.acknowledged + self.injected),
            spans=spans, interruptions=self.interruptions, notes=self.notes, faults=self.faults,
        )  # fmt: skip

    def account(
        self,
        placed: Sequence[Placed],
        patience: float = 120.0,
        records: Sequence[Record] | None = None,
    ) -> tuple[Messages, Spans]:
        """Hold orders against records, and records against spans.

        Args:
            records: The ones that count; by default all that came since the drill began.
        """
        ends, committed = self.site.wait_until_drained()
        if records is None:
            records = self.site.topics.read(self.since)
        messages = follow(placed, records, committed, ends)
        return messages, self._spans(placed, records, committed, patience)

    def _spans(
        self, placed: Sequence[Placed], records: Sequence[Record], committed: Offsets,
        patience: float,
    ) -> Spans:  # fmt: skip
        store = Store()
        self.store, self.records = store, records
        fewest, until = math.inf, math.inf
        windows = [(self.began, time.time())]
        while True:
            self.read_spans(store, windows, records)
            spans = look_up(placed, records, committed, store)
            self.read_traces(store, (missing.trace_id for missing in spans.missing))
            spans = look_up(placed, records, committed, store)
            if len(spans.missing) < fewest:
                fewest, until = len(spans.missing), time.monotonic() + patience
            if not spans.missing or time.monotonic() > until:
                return spans
            windows = _windows([missing.at for missing in spans.missing])
            time.sleep(2)

    def read_spans(
        self, store: Store, windows: Sequence[tuple[float, float]], records: Sequence[Record]
    ) -> None:
        """Add what was alive in these stretches of time, and what links to these records."""
        traces = self.site.traces
        for window in windows:
            store.add(_insist(lambda one=window: traces.between(*one)))  # type: ignore[misc]
        unlinked = {
            record.sender: record.at
            for record in records
            if record.topic in BATCHES and record.sender and not store.linked(record.sender)
        }
        store.add(_insist(lambda: traces.linking(unlinked, time.time())))

    def read_traces(self, store: Store, trace_ids: Iterable[str]) -> None:
        """Add what these traces have, of which a search may have told but a part.

        Args:
            trace_ids: Each as often as it lacks a span.
        """
        # Those that were read least often come first, as of some there is no more to be had; and
        # those that lack little: a search tells a part of what lies in two blocks.
        lacks = Counter(one for one in trace_ids if one)
        ids = sorted(lacks, key=lambda one: (self._looked_up[one], lacks[one]))[:MOST_BY_ID]
        self._looked_up.update(ids)
        store.add(_insist(lambda: self.site.traces.of(ids)))

    # --- What goes wrong

    def stop(self, *services: str, kill: bool = False) -> None:
        """Stop the containers of services, in their own time, without starting them again."""
        began = time.time()
        ids = [one["Id"] for service in services for one in self.stack.replicas(service)]
        # Both by Docker: none is started again, and one that SIGTERM does not end is killed.
        docker("kill" if kill else "stop", *ids, timeout=90)
        docker("wait", *ids)
        for service in services:
            self.interrupted(service, began, killed=kill)

    def start(self, *services: str) -> None:
        """Start stopped containers, and wait until they are well."""
        for service in services:
            docker("start", *(one["Id"] for one in self.stack.replicas(service)))
        if services:
            self.site.wait_until_healthy(*services)

    @contextmanager
    def without(self, *services: str) -> Iterator[None]:
        """Stop these services; start them at the end, and wait until they are well.

        A trace store that keeps its spans in memory is cut off its network instead.
        """
        began = time.time()
        cut_off = {self.stack.traces} & {*services} if self.forgets_traces else set()
        stopped = [one for one in services if one not in cut_off]
        for service in cut_off:
            self.stack.disconnect(service, "observability")
        self.stop(*stopped)
        try:
            yield
        finally:
            for service in cut_off:
                self.stack.connect(service, "observability")
            self.start(*stopped)
            for service in services:
                self.interrupted(service, began)

    @contextmanager
    def changed(
        self, service: str, settings: Mapping[str, str] | None = None,
        override: Mapping[str, Any] | None = None,
    ) -> Iterator[None]:  # fmt: skip
        """Make a service's container anew with other settings; at the end, as it was.

        Args:
            settings: Variables of .env.
            override: What to lay over the service in the compose files.
        """
        env, file = self.stack.folder / ".env", self.stack.folder / "compose.override.yaml"
        before = env.read_text("utf-8")
        self.stack.configure("".join(f"{one}={value}\n" for one, value in (settings or {}).items()))
        if override:
            file.write_text(json.dumps({"services": {service: override}}), "utf-8")
        try:
            self._make_anew(service)
            yield
        finally:
            env.write_text(before, "utf-8")
            file.unlink(missing_ok=True)
            self._make_anew(service)

    def _make_anew(self, service: str) -> None:
        self.stack.compose("up", "--detach", "--no-build", "--no-deps", service, timeout=120)
        self.site.wait_until_healthy(service)

    def interrupted(self, what: str, since: float, *, killed: bool = False) -> None:
        """Note that something was away from then until now.

        The broker is until the groups of its consumers have formed anew: what they handle before
        cannot be committed, and comes again.
        """
        until = time.time() + (REJOIN_SECONDS if what == "kafka" else 0)
        self.interruptions.append(Interruption(what, since, until, killed))


def _insist(read: Callable[[], list[Span]]) -> list[Span]:
    """Read, also from a store that needs more time than that."""
    return poll_until(lambda: [read()], "the trace store to answer")[0]


def _windows(times: Sequence[float]) -> list[tuple[float, float]]:
    """Return stretches of time around these, as few as hold all of them."""
    found: list[tuple[float, float]] = []
    for at in sorted(times):
        if found and at - 60 < found[-1][1]:
            found[-1] = found[-1][0], at + 60
        else:
            found.append((at - 60, at + 60))
    return found


def make(where: Path, rate: float, messages: int, seed: int | None, *, quick: bool) -> Site:
    """Bake the default project, with a service more for what the example has no occasion for."""
    stack = Stack.bake(where, "drills", SETTINGS)
    first = stack.ports["ORDERS_PORT"] = _free_run(REPLICAS)
    stack.configure(f"ORDERS_PORT={first}-{first + REPLICAS - 1}\n")
    _add_trial(stack.folder)
    return Site(stack, rate, quick, messages, seed, REPLICAS)


def _add_trial(project: Path) -> None:
    (package,) = (project / "src").iterdir()
    (package / "services/trial.py").write_text(TRIAL.read_text("utf-8"), "utf-8")
    _insert(package / "channels.py", "SHIPMENTS, DEAD_LETTERS)", ', "trial.given", "trial.done")')
    notifications = '  notifications:\n    <<: *service\n    command: ["notifications"]\n'
    trial = notifications.replace("notifications", "trial")
    _insert(project / "compose.yaml", notifications, f"\n{trial}", keep=0)


def _insert(path: Path, after: str, what: str, keep: int = 1) -> None:
    """Put text behind other text that is there once, in place of so many of its last characters."""
    text = path.read_text("utf-8")
    assert text.count(after) == 1, f"{path.name} has no longer one {after!r}"
    path.write_text(text.replace(after, after[: len(after) - keep] + what), "utf-8")


def _free_run(count: int) -> int:
    """Return the first of so many ports in a row that nobody listens on."""
    while True:
        found = sorted(free_ports(2000))
        for position, first in enumerate(found[: -count + 1]):
            run = found[position : position + count]
            if all(after - before == 1 for before, after in pairwise(run)):
                return first


def _is_well(container: dict[str, Any]) -> bool:
    state = container["State"]
    health = state.get("Health", {}).get("Status", "healthy")
    return bool(state["Running"] and not state["Restarting"] and health == "healthy")


__all__ = ("SERVICES", "Run", "Site", "make")
