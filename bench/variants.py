"""The services that are compared: how each is started, and what it has to show for itself."""

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
COMPOSE = ROOT / "{{cookiecutter.project_slug}}/compose.yaml"

ONLY_TRACES = {"OTEL_METRICS_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none"}
SAMPLED = {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.1"}

# A queue for all spans of a run. What is dropped is not encoded: no variant may win by it.
ROOM = {"OTEL_BSP_MAX_QUEUE_SIZE": "100000"}

# `faststream run` takes uvloop where it is installed, but nothing of FastStream's brings it.
OWN_LOOP = "asyncio:new_event_loop"
BAKED_LOOP = "uvloop:new_event_loop"


@dataclass(frozen=True)
class Variant:
    """A way to run the same handlers.

    Attributes:
        title: As a row of a table.
        middlewares: Of FastStream's own application; see `measured.stock`.
        service: A module of `measured.bake.services` instead: the library's `Service`.
        loop: For `faststream run --loop`.
        tuned: Log level and garbage collection as in what is baked.
        acknowledge: A policy in place of FastStream's default.
        variables: Of its environment.
        spans: How many must arrive at the receiver for each handled message: from, to.
        signals: Metrics and logs that must arrive there; no others may.
        counts: Whether its Prometheus registry must have counted the messages.
        confirms: Whether a message must be acknowledged only after its handler.
    """

    title: str
    middlewares: tuple[str, ...] = ()
    service: str = ""
    loop: str = OWN_LOOP
    tuned: bool = False
    acknowledge: str = ""
    variables: Mapping[str, str] = field(default_factory=dict)
    spans: tuple[float, float] = (0, 0)
    signals: frozenset[str] = frozenset()
    counts: bool = False
    confirms: bool = False

    @property
    def command(self) -> list[str]:
        if self.service:
            return [sys.executable, "-m", "bench.measured.bake", self.service]
        application = ["bench.measured.stock:make_app", "--factory", "--loop", self.loop]
        return [sys.executable, "-m", "faststream", "run", *application]


TWO = (2, 2.2)  # the handling and the publication; a service may have few of its own
RECIPES = (2, 3.1)  # FastStream's middleware has a span more for each publication
TENTH = (0.1, 0.4)  # of two
NONE = (0, 0)
BOTH = frozenset({"logs", "metrics"})


def _service(
    title: str,
    spans: tuple[float, float] = TWO,
    signals: frozenset[str] = BOTH,
    *,
    module: str = "flow",
    variables: Mapping[str, str] | None = None,
) -> Variant:
    return Variant(
        title,
        service=module,
        variables=variables or {},
        spans=spans,
        signals=signals,
        counts=True,
        confirms=True,
    )


VARIANTS: dict[str, Variant] = {
    "bare": Variant("FastStream without telemetry, as `faststream run` starts it"),
    "bare-tuned": Variant(
        "the same with the loop, log level and garbage collection of what is baked",
        loop=BAKED_LOOP,
        tuned=True,
    ),
    "bare-acknowledged": Variant(
        "as `faststream run` starts it, with acknowledgement after success",
        acknowledge="NACK_ON_ERROR",
        confirms=True,
    ),
    "recipe": Variant(
        "FastStream's docs recipe: traces",
        middlewares=("recipe",),
        variables=ROOM,
        spans=RECIPES,
    ),
    "recipe-prometheus": Variant(
        "the recipe with FastStream's Prometheus middleware",
        middlewares=("recipe", "recipe-prometheus"),
        variables=ROOM,
        spans=RECIPES,
        counts=True,
    ),
    "ours": Variant(
        "our telemetry in five lines: traces",
        middlewares=("ours",),
        variables=ONLY_TRACES | ROOM,
        spans=TWO,
    ),
    "ours-prometheus": Variant(
        "our telemetry with Prometheus metrics",
        middlewares=("ours", "ours-prometheus"),
        variables=ONLY_TRACES | ROOM,
        spans=TWO,
        counts=True,
    ),
    "service": _service("the whole service: all signals, all promises"),
    "service-sampled": _service("the whole service, sampled at 10 %", TENTH, variables=SAMPLED),
    "service-disabled": _service(
        "the whole service with `OTEL_SDK_DISABLED=true`",
        NONE,
        frozenset(),
        variables={"OTEL_SDK_DISABLED": "true"},
    ),
}

HTTP = "http/protobuf"
GRPC = {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
MEMORY: dict[str, Variant] = {
    "bare": VARIANTS["bare"],
    "recipe-prometheus": VARIANTS["recipe-prometheus"],
    "service": VARIANTS["service"],
    "service-grpc": _service("the whole service, exporting over gRPC", variables=GRPC),
    "service-http": _service("the whole service with a route of its own: FastAPI", module="web"),
}
"""Those whose memory and start are measured."""


def as_users_run(variant: Variant) -> Variant:
    """With the queue of spans that it has by default."""
    return replace(variant, variables={k: v for k, v in variant.variables.items() if k not in ROOM})


@cache
def baked_variables() -> Mapping[str, str]:
    """The `OTEL_*` variables that compose.yaml of a bake sets, without the endpoint."""
    text = COMPOSE.read_text("utf-8")
    found = dict(re.findall(r"^ +(OTEL_\w+): \$\{\w+:-([^}]*)\}$", text, re.MULTILINE))
    return {name: value for name, value in found.items() if not name.endswith("_ENDPOINT")}


def environment(variant: Variant, grpc: str, http: str) -> dict[str, str]:
    """The variables of telemetry: a service has those of a bake, others OpenTelemetry's defaults.

    Ours exports over http/protobuf; the recipe over gRPC, as FastStream's documentation has it.
    """
    made = {
        **(baked_variables() if variant.service else {}),
        "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc" if "recipe" in variant.middlewares else HTTP,
        **variant.variables,
    }
    over_http = made["OTEL_EXPORTER_OTLP_PROTOCOL"] == HTTP
    return made | {
        "OTEL_EXPORTER_OTLP_ENDPOINT": http if over_http else grpc,
        "OTEL_EXPORTER_OTLP_INSECURE": "true",
    }
