"""Runs one variant once, in a process of its own, and checks that it was what it should be."""

import json
import os
import select
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from faststream_otel import Settings
from ports import free_ports

from .measured.plan import Plan
from .sink import Sink
from .sites import Site
from .variants import ROOT, Variant, environment

TIMEOUT = 600.0
HOPS = 3
SIZE = 100
"""Bytes of a body."""


class Wrong(Exception):
    """A run did not measure what it should. Says why."""


@dataclass(frozen=True)
class Load:
    """What a run is of.

    Attributes:
        warm_up: Messages before the figures begin.
        messages: Messages that the figures are of.
        hops: Of each message.
        size: Bytes of a body.
    """

    messages: int
    warm_up: int = 200
    hops: int = HOPS
    size: int = SIZE

    @property
    def published(self) -> int:
        return self.warm_up + self.messages


@dataclass(frozen=True)
class Sample:
    """What one run has shown.

    Attributes:
        told: The two reports of the process, `measured.meter.Meter`.
        arrived: At the receiver.
        handled: Messages over all hops that the figures are of.
    """

    told: Mapping[str, Any]
    arrived: Counter[str]
    handled: int

    @property
    def cpu_us(self) -> float:
        """CPU time of all threads per message and hop, in microseconds."""
        seconds: float = self.told["cpu"]
        return seconds / self.handled * 1e6

    @property
    def rate(self) -> float:
        """Messages per second, each hop counted."""
        seconds: float = self.told["wall"]
        return self.handled / seconds


class Process:
    """A measured process, started as a user starts it."""

    def __init__(
        self, variant: Variant, site: Site, sink: Sink, plan: Mapping[str, Any], collector: str = ""
    ) -> None:
        self._reports, write = os.pipe()
        made = Plan(
            broker=site.broker,
            url=site.url,
            descriptor=write,
            middlewares=variant.middlewares,
            acknowledge=variant.acknowledge,
            tuned=variant.tuned,
            **plan,
        )
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed by `end`)
        self._rest = b""
        self.port = free_ports(1)[0]
        self._process = subprocess.Popen(
            variant.command,
            cwd=ROOT,
            env=inherited()
            | environment(variant, sink.grpc, collector or sink.http)
            | made.variables()
            | {
                "BROKER_URL": site.url,
                "PORT": str(self.port),
                "BENCH_STARTED": str(time.time()),
            },
            stdout=subprocess.DEVNULL,
            stderr=self._errors,
            pass_fds=[write],
        )
        os.close(write)

    def report(self) -> dict[str, Any]:
        """The process's next report."""
        ends = time.monotonic() + TIMEOUT
        while b"\n" not in self._rest:
            if select.select([self._reports], [], [], max(0.0, ends - time.monotonic()))[0]:
                read = os.read(self._reports, 1 << 20)
                self._rest += read
                if read:
                    continue
            raise Wrong(f"the measured process has not reported:\n{self.errors()}")
        line, _, self._rest = self._rest.partition(b"\n")
        told: dict[str, Any] = json.loads(line)
        return told

    def errors(self) -> str:
        self._errors.seek(0)
        return self._errors.read()[-3000:].decode(errors="replace")

    def end(self) -> None:
        """Stop it as an orchestrator does; what does not stop is killed."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(40)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._reports)
        self._errors.close()


def inherited() -> dict[str, str]:
    """This process's environment, without what would change a service's defaults."""
    settings = {name.upper() for name in Settings.model_fields}
    return {
        name: value
        for name, value in os.environ.items()
        if name not in settings and not name.startswith(("OTEL_", "BENCH_"))
    }


@contextmanager
def started(
    variant: Variant, site: Site, sink: Sink, plan: Mapping[str, Any], **options: Any
) -> Iterator[Process]:
    process = Process(variant, site, sink, plan, **options)
    try:
        yield process
    finally:
        process.end()


def measure(
    variant: Variant,
    site: Site,
    sink: Sink,
    load: Load,
    *,
    drive: Callable[[Sequence[str]], None] | None = None,
    collector: str = "",
    count_spans: bool = False,
    profile: bool = False,
    may_lose: bool = False,
) -> Sample:
    """Run a variant once.

    Args:
        drive: Publishes the load once the service is ready. Default: it is there before.
        collector: An endpoint over HTTP that exports to the receiver, in its place.
        count_spans: See `Plan`.
        profile: See `Plan`.
        may_lose: Whether fewer spans may arrive than it makes.

    Raises:
        Wrong: The process failed, or was not what the variant is.
    """
    before = sink.counts()
    with site.created(load.hops) as channels:
        if drive is None:
            site.fill(channels[0], load.published, load.size)
        plan = {
            "channels": channels,
            "warm_up": load.warm_up * load.hops,
            "handled": load.messages * load.hops,
            "count_spans": count_spans,
            "profile": profile,
        }
        with started(variant, site, sink, plan, collector=collector) as process:
            told = process.report()
            if drive:
                drive(channels)
            told |= process.report()
    arrived = sink.counts()
    arrived.subtract(before)
    sample = Sample(told, arrived, load.messages * load.hops)
    if not collector:
        check(variant, sample, load.published * load.hops, may_lose=may_lose)
    return sample


def check(variant: Variant, sample: Sample, handled: int, *, may_lose: bool = False) -> None:
    """Raise `Wrong` if a run was not what its variant says.

    Args:
        handled: Messages over all hops, the warm-up included.
        may_lose: Whether fewer spans may arrive.
    """
    least, most = (number * handled for number in variant.spans)
    spans = sample.arrived["spans"]
    faults = []
    if not (0 if may_lose else least) <= spans <= most:
        faults.append(f"{spans} spans arrived, not {least:.0f} to {most:.0f}")
    faults += [
        f"{sample.arrived[name]} {name} arrived"
        for name in ("logs", "metrics")
        if bool(sample.arrived[name]) is not (name in variant.signals)
    ]
    if "logs" in variant.signals and not may_lose and sample.arrived["logs"] < handled:
        faults.append(f"only {sample.arrived['logs']} logs of {handled} messages arrived")
    counted = sample.told["counted"]
    if counted < handled if variant.counts else counted:
        faults.append(f"Prometheus metrics count {counted} of {handled} messages")
    if variant.confirms and "ACK_FIRST" in sample.told["acknowledges"]:
        faults.append("messages are acknowledged before they are handled")
    if faults:
        raise Wrong(f"{variant.title}: {'; '.join(faults)}")
