"""What a rate of orders needs, calculated from the measured cost of one order.

It measures nothing itself: all of it is arithmetic on `Costs`, which come from a run, and
`Assumptions`, which do not.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor, log2, log10
from typing import Any

SERVICES = ("orders", "payments", "shipping", "notifications")
ONE_BY_ONE = ("payments", "shipping")
"""Consumers of single messages."""
CONSUMERS = (*ONE_BY_ONE, "notifications")
CHANNELS = 4
"""Of the example, each with as many partitions as the others."""
DAY = 86_400
ENDLESS = 1e8
"""Orders per second that nobody has."""


@dataclass(frozen=True)
class Assumptions:
    """What was not measured.

    Attributes:
        utilisation: Of a pod's cores, so that a burst and the loss of a replica find room.
        service_cores: Of a service's pod. A Python process uses hardly more than one.
        collector_cores: Of a Collector's pod.
        collector_bytes: Of its memory that waiting spans may take.
        broker_cores: Of a broker's node.
        broker_bytes: That a node's disk writes in a second.
        store_cores: Of a store that is one process.
        copies: Of each message. Each copy is taken to cost a broker as much as the first.
        growth: By how much the rate may grow before partitions must be added, which moves keys.
        trace_seconds: How long a trace is live in Tempo: until its last span came, and a second.
        trace_bytes: Of traces that are worth storing a day; beyond it, they are sampled.
        prometheus_series: That one Prometheus holds.
        least: Replicas of each service, so that one may be lost.
        confirm: Seconds until all copies of a published message are confirmed, for which a consumer
            of single messages waits.
        wait: Seconds that its handler waits for others, such as a database.
    """

    utilisation: float = 0.6
    service_cores: float = 1.0
    collector_cores: float = 2.0
    collector_bytes: float = 2e9
    broker_cores: float = 4.0
    broker_bytes: float = 100e6
    store_cores: float = 8.0
    copies: int = 3
    growth: float = 2.0
    trace_seconds: float = 6.0
    trace_bytes: float = 200e9
    prometheus_series: float = 5e6
    least: int = 2
    confirm: float = 0.005
    wait: float = 0.0


SHARES = (100, 50, 20, 10, 5, 2, 1)
"""Percent of the ordinary traces that may be stored."""


@dataclass(frozen=True)
class Costs:
    """What one order takes, and what the parts are configured to take at most.

    Attributes:
        cpu: CPU seconds of an order, by part.
        layers: The same of each of two layers of Collectors.
        tail: What tail sampling adds to a Collector.
        disk: Bytes that an order leaves, by store.
        spans: Of an order.
        trace_bytes: That Tempo receives of an order.
        log_bytes: That Loki receives of an order.
        unpaired: Spans of an order that wait for the whole time in the service graph.
        waiting_span: Bytes of a span that waits for its trace's choice.
        series: Of one replica, by service; and of all that does not grow with replicas.
        partition_cores: That the lag exporter takes for a partition of one channel.
        limits: By name, as the configuration has them.
    """

    cpu: Mapping[str, float]
    layers: tuple[float, float]
    tail: float
    disk: Mapping[str, float]
    spans: float
    trace_bytes: float
    log_bytes: float
    unpaired: float
    waiting_span: float
    series: Mapping[str, int]
    lag_cores: float
    partition_cores: float
    limits: Mapping[str, float]


def costs_of(figures: Mapping[str, Any]) -> Costs:
    """Take the costs out of the figures of a run."""
    cost, tail, layers = figures["cost"], figures["tail"], figures["layers"]
    *_, usual, fastest = cost["windows"]
    counted = fastest["counted"]
    cpu = {name: ms / 1000 for name, ms in fastest["cpu_ms"].items()}
    for store in ("tempo", "loki"):  # close to what they take at rest: so the highest of the rates
        cpu[store] = max(one["cpu_ms"][store] for one in cost["windows"]) / 1000
    first, second = (layers["cpu_ms"][one] / 1000 for one in ("first-layer", "otel-collector"))
    collector = "otel-collector"
    held = tail["rate"] * figures["limits"]["tail_seconds"] * tail["counted"]["spans"]
    taken = tail["memory"][collector] - usual["memory"][collector]
    few, many = (figures["partitions"]["cores"][one]["lag"] for one in ("few", "many"))
    added = figures["partitions"]["many"] - figures["partitions"]["few"]
    return Costs(
        cpu=cpu,
        layers=(first, second),
        tail=max(0.0, tail["cpu_ms"][collector] - usual["cpu_ms"][collector]) / 1000,
        disk=cost["disk"],
        spans=counted["spans"],
        trace_bytes=counted["trace_bytes"],
        log_bytes=counted["log_bytes"],
        unpaired=tail["counted"]["unpaired"],
        waiting_span=max(0.0, taken / held),
        series=cost["series"],
        lag_cores=few,
        partition_cores=max(0.0, (many - few) / added),
        limits=figures["limits"],
    )


# --- How fast a backlog is handled


def drain_rate(
    partitions: int, replicas: int, message: float, machine: float = float("inf")
) -> float:
    """Orders per second of a backlog.

    A consumer handles one message after the other, and a partition has one consumer: no more
    replicas work than there are partitions.

    Args:
        message: Seconds that the slowest consumer spends on one, all that it waits for included.
        machine: Orders per second that the whole machine has the cores for.
    """
    return min(min(partitions, replicas) / message, machine)


def predictions(figures: Mapping[str, Any]) -> list[tuple[Mapping[str, Any], float]]:
    """Each measured backlog but for those that the model starts from, with the model's rate.

    It starts from one partition and one replica.
    """
    drains = figures["drains"]
    ones = {x["wait"]: x for x in drains if x["partitions"] == x["replicas"] == 1}
    busy = ones[0]
    order = sum(busy["cpu_s"].values()) / busy["orders"]
    found = []
    for drain in drains:
        one = ones[drain["wait"]]
        if drain is one:
            continue
        left = figures["machine"]["cores"] - (drain["elsewhere"] or 0)
        rate = drain_rate(drain["partitions"], drain["replicas"], 1 / one["rate"], left / order)
        found.append((drain, rate))
    return found


# --- What a rate needs


@dataclass(frozen=True)
class Wall:
    """What reaches its limit at a rate, in orders per second, and what helps."""

    what: str
    rate: float
    helps: str


@dataclass(frozen=True)
class Needs:
    """What so many orders per second need.

    Attributes:
        partitions: Of each channel.
        replicas: By service.
        collectors: Of the first layer and of the second. With one layer the first has none.
        share: Percent of the ordinary traces that are stored.
        brokers: Nodes.
        cores: Of all replicas together while they work, by part.
        disk: Bytes a day, by store; of the broker with all copies.
        series: That Prometheus has.
        passed: Limits of the configuration that must be raised, lowest first.
        wall: The next one above the rate that more replicas do not move.
    """

    rate: float
    partitions: int
    replicas: Mapping[str, int]
    collectors: tuple[int, int]
    share: int
    brokers: int
    cores: Mapping[str, float]
    disk: Mapping[str, float]
    series: int
    passed: Sequence[Wall]
    wall: Wall | None


def needs(rate: float, costs: Costs, assumed: Assumptions = Assumptions()) -> Needs:
    """Say what so many orders per second need."""
    replicas = {one: _replicas(rate, one, costs, assumed) for one in SERVICES}
    share = _share(rate, costs, assumed)
    collectors = _collectors(rate, costs, assumed, sampled=share < 100)
    partitions = _partitions(rate, costs, assumed)
    series = _series(replicas, sum(collectors), partitions, costs)
    stored = share / 100
    first, second = costs.layers
    counting = second + (costs.tail if share < 100 else 0)
    cores = {
        "services": rate * sum(costs.cpu[one] for one in SERVICES),
        "Kafka": rate * costs.cpu["kafka"] * assumed.copies,
        "Collectors": rate * (first + counting if collectors[0] else costs.cpu["otel-collector"]),
        "Tempo": rate * costs.cpu["tempo"] * stored,
        "Loki": rate * costs.cpu["loki"],
    }
    disk = {
        "Kafka": rate * DAY * costs.disk["kafka"] * assumed.copies,
        "Tempo": rate * DAY * costs.disk["tempo"] * stored,
        "Loki": rate * DAY * costs.disk["loki"],
    }
    brokers = max(
        3,
        ceil(cores["Kafka"] / (assumed.broker_cores * assumed.utilisation)),
        ceil(disk["Kafka"] / DAY / (assumed.broker_bytes * assumed.utilisation)),
    )
    walls = sorted(one_process(costs, assumed, stored), key=lambda one: one.rate)
    return Needs(
        rate=rate, partitions=partitions, replicas=replicas, collectors=collectors, share=share,
        brokers=brokers, cores=cores, disk=disk, series=series,
        passed=[one for one in walls if one.rate < rate],
        wall=next((one for one in walls if one.rate >= rate), None),
    )  # fmt: skip


def one_process(costs: Costs, assumed: Assumptions, stored: float = 1.0) -> list[Wall]:
    """The rates at which something that exists only once reaches its limit, if there are any.

    Args:
        stored: The share of the traces that are stored.
    """
    limits, busy = costs.limits, assumed.utilisation
    slowest = max(_message(one, costs, assumed) for one in CONSUMERS)
    walls = [
        Wall(
            "one replica of orders",
            busy / _message("orders", costs, assumed),
            "more replicas",
        ),
        Wall(
            "one partition, and so one key",
            busy / slowest,
            "more partitions, and as many replicas; for one key, only a faster handler",
        ),
        Wall(
            "one Collector",
            assumed.collector_cores * busy / costs.cpu["otel-collector"],
            "two layers",
        ),
        Wall(
            "the service graph's `max_items` of one Collector",
            limits["graph_edges"] / limits["graph_seconds"] / costs.unpaired,
            "raise it; more Collectors in the second layer",
        ),
        Wall(
            "tail sampling's `num_traces` of one Collector",
            limits["tail_traces"] / limits["tail_seconds"],
            "raise it, and the memory; more Collectors in the second layer",
        ),
        Wall(
            "Loki's `ingestion_rate_mb`",
            limits["loki_bytes"] / costs.log_bytes,
            "raise it",
        ),
        Wall(
            "Tempo's `rate_limit_bytes`",
            limits["tempo_bytes"] / (costs.trace_bytes * stored),
            "raise it; sample",
        ),
        Wall(
            "Tempo's `max_traces_per_user`",
            limits["tempo_traces"] / assumed.trace_seconds / stored,
            "raise it; sample",
        ),
        Wall(
            "one Kafka node",
            assumed.broker_cores * busy / costs.cpu["kafka"],
            "a cluster",
        ),
        Wall(
            "one Tempo",
            assumed.store_cores * busy / (costs.cpu["tempo"] * stored),
            "sample; the distributed Tempo",
        ),
        Wall(
            "one Loki",
            assumed.store_cores * busy / costs.cpu["loki"],
            "the distributed Loki; fewer records",
        ),
        Wall(
            "one Prometheus",
            _rate_of_series(costs, assumed),
            "one for each group of services; fewer series",
        ),
        Wall(
            "one lag exporter",
            _rate_of_lag(costs, assumed),
            "the broker's own exporter",
        ),
    ]
    return [one for one in walls if one.rate < ENDLESS]


def _message(service: str, costs: Costs, assumed: Assumptions) -> float:
    """Seconds that a replica spends on a message."""
    wait = assumed.confirm + assumed.wait if service in ONE_BY_ONE else 0
    return costs.cpu[service] / assumed.service_cores + wait


def _replicas(rate: float, service: str, costs: Costs, assumed: Assumptions) -> int:
    message = _message(service, costs, assumed)
    return max(assumed.least, ceil(rate * message / assumed.utilisation))


def _partitions(rate: float, costs: Costs, assumed: Assumptions) -> int:
    """A power of two, which as many replicas share evenly."""
    most = max(_replicas(rate, one, costs, assumed) for one in CONSUMERS)
    return int(2 ** ceil(log2(most * assumed.growth)))


def _share(rate: float, costs: Costs, assumed: Assumptions) -> int:
    """The largest of `SHARES` whose traces are worth storing."""
    day = rate * DAY * costs.disk["tempo"]
    return next((x for x in SHARES if day * x / 100 <= assumed.trace_bytes), SHARES[-1])


def _collectors(
    rate: float, costs: Costs, assumed: Assumptions, *, sampled: bool
) -> tuple[int, int]:
    each = assumed.collector_cores * assumed.utilisation
    tail = costs.tail if sampled else 0.0
    held = rate * costs.limits["tail_seconds"] * costs.spans * costs.waiting_span
    for_memory = ceil(held / assumed.collector_bytes) if sampled else 1
    alone = ceil(rate * (costs.cpu["otel-collector"] + tail) / each)
    if max(alone, for_memory) == 1:
        return (0, 1)
    first, second = costs.layers
    counting = ceil(rate * (second + tail) / each)
    return (max(2, ceil(rate * first / each)), max(2, counting, for_memory))


def _series(replicas: Mapping[str, int], collectors: int, partitions: int, costs: Costs) -> int:
    of = costs.series
    grows = {one: of[f"of {one}"] for one in SERVICES}
    rest = of["all"] - sum(grows.values()) - of["of spans"] - of["of lag"]
    return (
        rest
        + sum(replicas[one] * grows[one] for one in SERVICES)
        + collectors * of["of spans"]
        + partitions * of["of lag"]
    )


def _rate_of_series(costs: Costs, assumed: Assumptions) -> float:
    """At which one Prometheus is full, if all else grows."""

    def series(rate: float) -> int:
        replicas = {one: _replicas(rate, one, costs, assumed) for one in SERVICES}
        collectors = _collectors(rate, costs, assumed, sampled=True)
        return _series(replicas, collectors[1], _partitions(rate, costs, assumed), costs)

    return _first(lambda rate: series(rate) > assumed.prometheus_series)


def _rate_of_lag(costs: Costs, assumed: Assumptions) -> float:
    """At which the partitions keep the lag exporter busy."""

    def cores(rate: float) -> float:
        return costs.lag_cores + costs.partition_cores * _partitions(rate, costs, assumed)

    return _first(lambda rate: cores(rate) > assumed.service_cores * assumed.utilisation)


def _first(full: Callable[[float], bool]) -> float:
    """The lowest rate at which this is so, to two digits; `ENDLESS` if there is none."""
    low, high = 1.0, ENDLESS
    if not full(high):
        return high
    while high / low > 1.005:
        middle = (low * high) ** 0.5
        low, high = (low, middle) if full(middle) else (middle, high)
    return high


def rounded(number: float) -> float:
    """To two digits, downwards: no figure of a model is known better."""
    digit: float = 10.0 ** (floor(log10(number)) - 1)
    return floor(number / digit) * digit
