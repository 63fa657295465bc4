"""What a measured process has to do. It gets its plan in an environment variable."""

import json
import os
from dataclasses import asdict, dataclass
from typing import Any

VARIABLE = "BENCH_PLAN"


@dataclass(frozen=True)
class Plan:
    """The plan of one process.

    Attributes:
        broker: The kind of broker.
        url: Its address, `host:port`.
        channels: A message goes from each to the next; to the last one nobody listens.
        middlewares: Names of `stock.MIDDLEWARES`, for FastStream's own application.
        acknowledge: FastStream's name of an acknowledgement policy, or nothing for its default.
        tuned: Log level and garbage collection as in what is baked; the loop is an option of
            `faststream run`.
        warm_up: Handled messages, over all hops, before the figures begin.
        handled: Handled messages, over all hops, that the figures are of.
        descriptor: File descriptor for what the process reports, as lines of JSON.
        count_spans: Count the spans that end, also those that are never exported.
        profile: Report where the time goes.
    """

    broker: str
    url: str
    channels: tuple[str, ...]
    warm_up: int
    handled: int
    descriptor: int
    middlewares: tuple[str, ...] = ()
    acknowledge: str = ""
    tuned: bool = False
    count_spans: bool = False
    profile: bool = False

    @classmethod
    def read(cls) -> "Plan":
        fields: dict[str, Any] = json.loads(os.environ[VARIABLE])
        # JSON has lists in place of tuples.
        for name in ("channels", "middlewares"):
            fields[name] = tuple(fields[name])
        return cls(**fields)

    def variables(self) -> dict[str, str]:
        return {VARIABLE: json.dumps(asdict(self))}
