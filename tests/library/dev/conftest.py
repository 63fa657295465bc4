"""Fixtures: a project of files only, and a trace store with given spans."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
from faststream_otel.dev import trace
from faststream_otel.dev.otlp import Span
from faststream_otel.dev.project import Project

Keep = Callable[..., None]

FILES = {
    "pyproject.toml": '[tool.faststream-otel]\nentrance = "orders"\nnext_step = "make order"\n',
    ".env.example": """\
#ORDERS_PORT=8000
#GRAFANA_PORT=3000
#OTLP_GRPC_PORT=4317
#KAFKA_PORT=9092
TRACE_BACKEND=jaeger
""",
    "src/shop/services/__init__.py": "",
    "src/shop/services/billing.py": "",
    "src/shop/services/orders.py": "",
    "src/shop/services/stock_taking.py": "",
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project, whose folder is the current directory and whose package is in the environment."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    for variable in ("TRACE_BACKEND", "GRAFANA_PORT", "ORDERS_PORT"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("FASTSTREAM_OTEL_APP", "shop")
    monkeypatch.chdir(tmp_path)
    return Project(tmp_path, "shop")


class MemoryStore:
    """A store, always ready."""

    NAME: ClassVar = "Memory"
    PORT: ClassVar = 1
    PAGE: ClassVar = "/page/{trace_id}"

    def __init__(self, url: str = "") -> None:
        self.spans: list[Span] = []

    def is_ready(self) -> bool:
        return True

    def trace(self, trace_id: str) -> list[Span]:
        return [span for span in self.spans if span.trace_id == trace_id]

    def linked(self, trace_id: str, since: float) -> list[str]:
        linking = (one for one in self.spans if any(to.trace_id == trace_id for to in one.links))
        return sorted({span.trace_id for span in linking})

    def explore_query(self, trace_id: str) -> dict[str, Any]:
        return {"datasource": {"type": "memory"}, "query": trace_id}


@pytest.fixture
def keep(monkeypatch: pytest.MonkeyPatch) -> Keep:
    """Have spans kept where the commands ask the project's store for them."""
    store = MemoryStore()
    monkeypatch.setattr(trace, "store_of", lambda project: store)
    return lambda *spans: store.spans.extend(spans)
