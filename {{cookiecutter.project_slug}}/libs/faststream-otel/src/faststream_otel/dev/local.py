"""The whole project without Docker: embedded broker, sink, and every service as a process."""

import json
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..kafka.embedded import embedded_kafka
from . import project, web
from .project import UserError
from .sink import OtlpSink
from .supervisor import Command, Supervisor, service_ports

READY_SECONDS = 60.0
LOG = Path(".devtools") / "services.log"
ENVIRONMENT = Path(".devtools") / "environment.json"
"""What other commands need to know of a run, for as long as it lasts."""


@dataclass(frozen=True)
class Local:
    """What runs, and where: `urls` by the service's name, `log` takes what services print."""

    sink: OtlpSink
    supervisor: Supervisor
    urls: Mapping[str, str]
    broker: str
    log: Path

    def wait_until_ready(self) -> None:
        """Wait until every service says that it is ready.

        Raises:
            UserError: One ended, or is not ready after a minute; with what it printed last.
        """
        deadline = time.monotonic() + READY_SECONDS
        for name, url in self.urls.items():
            while web.status(f"{url}/health/ready") not in (200, 204):
                self.check()
                if time.monotonic() > deadline:
                    raise UserError(
                        f"{name} was not ready after {READY_SECONDS:g} s; its output is in"
                        f" {self.log}.{self._tail(name)}"
                    )
                time.sleep(0.1)

    def check(self) -> None:
        """Raise UserError if a service ended by itself, with what it printed last."""
        for name, code in self.supervisor.ended().items():
            raise UserError(
                f"{name} ended with exit code {code}; all output is in"
                f" {self.log}.{self._tail(name)}"
            )

    def _tail(self, name: str) -> str:
        lines = self.supervisor.last_lines(name)[-15:]
        return "".join(f"\n  {name} | {line}" for line in lines)


@contextmanager
def run_locally(show: Callable[[str], None], root: Path = project.ROOT) -> Iterator[Local]:
    """Start everything, and stop it in order at the end: services, sink, broker.

    Args:
        show: Is told what happens to the services, a line at a time.
        root: Folder of the project.

    Raises:
        UserError: A port is taken, or a package is missing.
    """
    package, names = project.package(root), project.services(root)
    variable = project.ENTRANCE_PORT
    ports = service_ports(names, project.port(variable, root), variable)
    path = root / LOG
    path.parent.mkdir(exist_ok=True)
    path.with_name(".gitignore").write_text("*\n", encoding="utf-8")
    with (
        embedded_kafka() as broker,
        OtlpSink() as sink,
        path.open("w", encoding="utf-8") as log,
    ):
        commands = [
            Command(name, package, [name], _environment(sink, broker, ports[name], root))
            for name in names
        ]
        with Supervisor(commands, log, show, root) as supervisor, _told(sink, broker, root):
            urls = {name: f"http://127.0.0.1:{ports[name]}" for name in names}
            yield Local(sink, supervisor, urls, broker, path.relative_to(root))


def environment(root: Path = project.ROOT) -> dict[str, str] | None:
    """What the services of the run that there is have for broker and telemetry; None: no run."""
    try:
        told: dict[str, str] = json.loads((root / ENVIRONMENT).read_text("utf-8"))
        host, _, port = told["BROKER_URL"].partition(":")
        socket.create_connection((host, int(port)), timeout=2).close()
    except (OSError, ValueError, KeyError):  # killed, and so not tidied up
        return None
    return told


@contextmanager
def _told(sink: OtlpSink, broker: str, root: Path) -> Iterator[None]:
    path = root / ENVIRONMENT
    service = _environment(sink, broker, 0, root)
    told = {name: value for name, value in service.items() if name.startswith("OTEL_")}
    path.write_text(json.dumps(told | {"BROKER_URL": broker}), encoding="utf-8")
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _environment(sink: OtlpSink, broker: str, port: int, root: Path) -> dict[str, str]:
    """The user's environment, but for what says where telemetry goes and how to meet the broker."""
    protocol = os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL") or "grpc"
    attributes = [
        "deployment.environment.name=development",
        f"service.namespace={root.name}",
        os.environ.get("OTEL_RESOURCE_ATTRIBUTES", ""),
    ]
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("OTEL_", "BROKER_"))
    }
    return kept | {
        "BROKER_URL": broker,
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
        "OTEL_EXPORTER_OTLP_ENDPOINT": (
            sink.grpc_endpoint if protocol == "grpc" else sink.http_endpoint
        ),
        "OTEL_RESOURCE_ATTRIBUTES": ",".join(filter(None, attributes)),
        # Soon on the screen, at the price of smaller batches.
        "OTEL_BSP_SCHEDULE_DELAY": "200",
        "OTEL_BLRP_SCHEDULE_DELAY": "200",
        "OTEL_METRIC_EXPORT_INTERVAL": "5000",
        "PYTHONUNBUFFERED": "1",
        # gRPC and urllib would send local traffic through a proxy.
        "NO_PROXY": ",".join(filter(None, [os.environ.get("NO_PROXY", ""), "127.0.0.1,localhost"])),
        "no_proxy": ",".join(filter(None, [os.environ.get("no_proxy", ""), "127.0.0.1,localhost"])),
    }
