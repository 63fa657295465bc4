"""A pytest plugin: services connected in memory, and their traces.

It comes with the library, and pytest loads it automatically. A project names the services to
connect once, in its conftest.py:

    @pytest.fixture
    def services():
        from shop.services import orders, payments

        return [orders.service, payments.service]

and its tests read

    async def test_an_order_is_one_trace(publish, trace):
        await publish("orders.placed", OrderPlaced(order_id="1"))
        assert trace.edges() == [
            ("send orders.placed", "process orders.placed"),
            ("process orders.placed", "send payments.authorized"),
        ]

This needs no broker, no other process and no socket, only a plugin for asynchronous tests:
pytest-asyncio or anyio's. `pytest --fixtures` describes each fixture.

Under pytest, the default of OTEL_{TRACES,METRICS,LOGS}_EXPORTER is `none`, so that no test sends
telemetry by accident. To send telemetry, a test sets the variable.
"""

from collections.abc import AsyncIterator, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pytest

try:
    from pytest_asyncio import fixture as async_fixture  # required by its strict mode
except ImportError:
    async_fixture = pytest.fixture  # type: ignore[assignment]  # anyio's plugin accepts these

if TYPE_CHECKING:
    from ..service import Service
    from .flow import Client, DeadLetter, Publish, ServiceFlow
    from .recording import Log, Trace

__all__ = ("Client", "DeadLetter", "Log", "Publish", "ServiceFlow", "Trace")


def __getattr__(name: str) -> Any:
    """Import OpenTelemetry and FastStream on first use, so that other tests start quickly."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import flow, recording

    return getattr(recording if name in ("Log", "Trace") else flow, name)


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests() -> None:
    # Before any conftest.py, which may import services.
    from ..telemetry import environment

    environment.default_exporter = "none"


def pytest_unconfigure() -> None:
    from ..telemetry import environment

    environment.default_exporter = "otlp"


@pytest.fixture
def services() -> "Sequence[Service]":
    """The services that `service_flow` connects. Override it in conftest.py, or in a test module.

    Import them inside the fixture, so that tests without them start quickly.
    """
    pytest.fail(
        "There are no services to connect. Override the fixture `services` in conftest.py:\n\n"
        "    @pytest.fixture\n"
        "    def services():\n"
        "        from shop.services import orders, payments\n\n"
        "        return [orders.service, payments.service]",
        pytrace=False,
    )


@pytest.fixture
def trace() -> "Iterator[Trace]":
    """The spans and log records of this test: `trace.edges()`, `.links()`, `.span(name)`, `.logs`.

    It records the services of `service_flow`. For a Telemetry without a Service, call
    `trace.record(telemetry.tracer_provider)`.
    """
    from .recording import recording

    with recording() as recorded:
        yield recorded


@async_fixture
async def service_flow(
    services: "Sequence[Service]", trace: "Trace"
) -> "AsyncIterator[ServiceFlow]":
    """The services, connected in memory. Publishing returns when all handlers are done.

    Retries, dead letters and spans work as in production. A batch holds one message.
    """
    from .flow import connected

    async with connected(services, trace) as flow:
        yield flow


@pytest.fixture
def publish(service_flow: "ServiceFlow") -> "Publish":
    """Publish to a channel: `await publish("orders.placed", OrderPlaced(...))`."""
    return service_flow.publish


@pytest.fixture
def http_client(service_flow: "ServiceFlow") -> "Client":
    """An httpx client of a service: `await http_client(orders.service).post("/orders", json={})`.

    It calls the ASGI application directly, without a socket.
    """
    return service_flow.client


@pytest.fixture
def dead_letters(service_flow: "ServiceFlow") -> "list[DeadLetter]":
    """The dead letters of this test."""
    return service_flow.dead_letters
