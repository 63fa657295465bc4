"""Which boards there are, and in which files they end."""

import json
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from .boards import messaging, rabbitmq, service, slo, telemetry, topology, traces
from .jaeger import Jaeger
from .tempo import Tempo
from .tracestore import TraceStore
from .zipkin import Zipkin

BAKED = Path("{{cookiecutter.project_slug}}")
DASHBOARDS = Path("observability/grafana/dashboards")

STORES: dict[str, TraceStore] = {"tempo": Tempo(), "jaeger": Jaeger(), "zipkin": Zipkin()}
"""By the name of the answer, which is the overlay's."""


BROKERS = ("rabbitmq",)
"""Those with boards of their own, by the name of the answer."""


def overlay(store: str) -> Path:
    return BAKED / "overlays" / "trace_backend" / store / DASHBOARDS


def broker_overlay(broker: str) -> Path:
    return BAKED / "overlays" / "broker" / broker / DASHBOARDS


FOLDERS = [BAKED / DASHBOARDS, *map(overlay, STORES), *map(broker_overlay, BROKERS)]


def boards() -> dict[Path, list[Dashboard]]:
    """Return the boards by folder: those of all projects, and those of an option."""
    shared = [topology.board(), messaging.board(), slo.board(), telemetry.board()]
    own = {
        overlay(name): [traces.board(store), service.board(store)] for name, store in STORES.items()
    }
    return {BAKED / DASHBOARDS: shared, **own, broker_overlay("rabbitmq"): [rabbitmq.board()]}


def files() -> dict[Path, str]:
    """Return the text of every file, the same at every call."""
    return {
        folder / f"{board.uid}.json": json.dumps(
            board, cls=JSONEncoder, indent=2, sort_keys=True, ensure_ascii=False
        )
        + "\n"
        for folder, folder_boards in boards().items()
        for board in folder_boards
    }
