"""The trace stores that `trace` can read, one module each."""

from importlib import import_module
from typing import Any, ClassVar, Protocol

import httpx

from ..otlp import Span
from ..project import Project, UserError

NAMES = ("tempo", "jaeger", "zipkin")


class Store(Protocol):
    """A running store. Its methods return nothing when it does not answer."""

    NAME: ClassVar[str]
    PORT: ClassVar[int]
    """The default port; the variable <NAME>_PORT changes it."""
    PAGE: ClassVar[str]
    """Path of a trace in the store's own UI; empty if it has none."""

    def __init__(self, url: str) -> None: ...

    def is_ready(self) -> bool: ...

    def trace(self, trace_id: str) -> list[Span]:
        """The spans of a trace; none if the store does not have it (yet)."""

    def linked(self, trace_id: str, since: float) -> list[str]:
        """The traces since `since` (Unix seconds) that link to this one."""

    def explore_query(self, trace_id: str) -> dict[str, Any]:
        """The query for a trace in Grafana's Explore, for this store's data source."""


def store_of(project: Project) -> Store:
    """The store that the variable TRACE_BACKEND names; tempo by default.

    Raises:
        UserError: There is no such store, or its port is not a port.
    """
    name = project.variable("TRACE_BACKEND") or NAMES[0]
    if name not in NAMES:
        raise UserError(f"TRACE_BACKEND={name} is not a trace store: use {', '.join(NAMES)}.")
    store: type[Store] = getattr(import_module(f"{__name__}.{name}"), name.capitalize())
    return store(project.url(port_variable(store), store.PORT))


def port_variable(store: Store | type[Store]) -> str:
    return f"{store.NAME.upper()}_PORT"


class HttpStore:
    """A store that answers with JSON over HTTP."""

    def __init__(self, url: str) -> None:
        self.url = url
        # No proxy: the store listens on this machine.
        self._client = httpx.Client(base_url=url, trust_env=False)

    def _answers(self, path: str) -> bool:
        try:
            return self._client.get(path, timeout=2).is_success
        except httpx.HTTPError:
            return False

    def _get(self, path: str, timeout: float = 2.0, **query: str | int) -> Any:
        """The JSON of a successful response, else None."""
        try:
            answer = self._client.get(path, params=query or None, timeout=timeout)
            return answer.json() if answer.is_success else None
        except (httpx.HTTPError, ValueError):
            return None
