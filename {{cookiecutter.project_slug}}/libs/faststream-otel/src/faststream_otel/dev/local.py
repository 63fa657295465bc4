"""Runs a project without Docker: embedded broker, OTLP receiver, and a process per service."""

import json
import os
import socket
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import httpx

from ..cli.app import App
from ..settings import BadSetting
from .project import Project, UserError
from .receiver import OtlpReceiver
from .signals import uninterrupted
from .supervisor import Command, Supervisor, service_ports

READY_SECONDS = 60.0
FOLDER = ".dev"
LOG = f"{FOLDER}/services.log"
ENVIRONMENT = f"{FOLDER}/environment.json"
"""Holds the variables of a run for other commands, while it lasts."""


class NoEmbeddedBroker(UserError):
    """The embedded broker's server is not installed. The text says what to do."""


@dataclass(frozen=True)
class Local:
    """A local run: the services' URLs by name, and the file with their output."""

    receiver: OtlpReceiver
    supervisor: Supervisor
    urls: Mapping[str, str]
    log: Path

    def wait_until_ready(self) -> None:
        """Wait until every service says that it is ready.

        Raises:
            UserError: A service ended, or is not ready after a minute; with its last output.
        """
        deadline = time.monotonic() + READY_SECONDS
        for name, url in self.urls.items():
            while not _is_ready(url):
                with uninterrupted():
                    self.check()
                if time.monotonic() > deadline:
                    raise UserError(
                        f"{name} was not ready after {READY_SECONDS:g} s; its output is in"
                        f" {self.log}.{self._tail(name)}"
                    )
                time.sleep(0.1)

    def check(self) -> None:
        """Raise UserError, with its last output, if a service ended by itself."""
        for name, code in self.supervisor.ended().items():
            raise UserError(
                f"{name} ended with exit code {code}; all output is in"
                f" {self.log}.{self._tail(name)}"
            )

    def _tail(self, name: str) -> str:
        lines = self.supervisor.last_lines(name)[-15:]
        return "".join(f"\n  {name} | {line}" for line in lines)


@contextmanager
def embedded_broker(project: Project) -> Iterator[tuple[str, bool]]:
    """Run a broker for the project's services, with their channels.

    Yields its address, and whether it is the user's own, of BROKER_URL.

    Raises:
        NoEmbeddedBroker: Its server is not installed.
        UserError: There is no embedded broker of that kind.
    """
    name = project.broker
    try:
        module = import_module(f"faststream_otel.{name}.embedded")
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("faststream_otel."):
            raise
        raise UserError(
            f"There is no embedded broker {name}: set `broker` in pyproject.toml,"
            " [tool.faststream-otel], to a supported one, such as kafka."
        ) from error
    channels: Collection[str] = ()
    with suppress(BadSetting):  # a project without a list of channels creates them in its own way
        channels = App(project.package).channels()
    with ExitStack() as running:
        try:
            address = running.enter_context(getattr(module, f"embedded_{name}")(channels))
        except FileNotFoundError as error:
            raise NoEmbeddedBroker(str(error)) from error
        own = getattr(module, "USES_BROKER_URL", False) and bool(os.environ.get("BROKER_URL"))
        yield address, own


@contextmanager
def run_locally(show: Callable[[str], None], project: Project) -> Iterator[Local]:
    """Start everything, and stop it in order at the end: services, receiver, broker.

    Args:
        show: Called with news of the services, one line at a time.

    Raises:
        NoEmbeddedBroker: The broker's server is not installed.
        UserError: A port is taken, or the project lacks something.
    """
    variable = project.entrance_port
    ports = service_ports(project.services, project.port(variable, 8000), variable)
    log_path, environment_path = project.root / LOG, project.root / ENVIRONMENT
    log_path.parent.mkdir(exist_ok=True)
    log_path.with_name(".gitignore").write_text("*\n", encoding="utf-8")
    with (
        embedded_broker(project) as (broker, own),
        OtlpReceiver() as receiver,
        log_path.open("w", encoding="utf-8") as log,
    ):
        shared = _environment(receiver, broker, project)
        commands = [
            Command(name, project.package, [name], _inherited(own) | shared | {"PORT": str(port)})
            for name, port in ports.items()
        ]
        with Supervisor(commands, log, show, project.root) as supervisor:
            # Readable by the owner only: one of them may be a password.
            environment_path.unlink(missing_ok=True)
            environment_path.touch(0o600)
            environment_path.write_text(json.dumps(credentials(own) | shared), encoding="utf-8")
            try:
                urls = {name: f"http://127.0.0.1:{port}" for name, port in ports.items()}
                yield Local(receiver, supervisor, urls, Path(LOG))
            finally:
                environment_path.unlink(missing_ok=True)


def running_environment(project: Project) -> dict[str, str] | None:
    """The broker's and telemetry's variables of the current run; None without a run."""
    try:
        found: dict[str, str] = json.loads((project.root / ENVIRONMENT).read_text("utf-8"))
        host, _, port = found["BROKER_URL"].rpartition("/")[2].rpartition(":")
        socket.create_connection((host, int(port)), timeout=2).close()
    except (OSError, ValueError, KeyError):  # no file, or one left behind by a killed run
        return None
    return found


def _inherited(own: bool) -> dict[str, str]:
    """The user's variables, without those for telemetry and for another broker."""
    foreign = ("OTEL_",) if own else ("OTEL_", "BROKER_")
    return {name: value for name, value in os.environ.items() if not name.startswith(foreign)}


def credentials(own: bool) -> dict[str, str]:
    """The `BROKER_*` variables of the user, if the broker is the user's own."""
    found = _inherited(own).items()
    return {name: value for name, value in found if name.startswith("BROKER_")}


def _environment(receiver: OtlpReceiver, broker: str, project: Project) -> dict[str, str]:
    protocol = os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL") or "grpc"
    endpoint = receiver.grpc_endpoint if protocol == "grpc" else receiver.http_endpoint
    attributes = [
        "deployment.environment.name=development",
        f"service.namespace={project.root.name}",
        os.environ.get("OTEL_RESOURCE_ATTRIBUTES", ""),
    ]
    # gRPC and urllib would send local traffic through a proxy.
    proxies = {
        name: ",".join(filter(None, [os.environ.get(name, ""), "127.0.0.1,localhost"]))
        for name in ("NO_PROXY", "no_proxy")
    }
    return proxies | {
        "BROKER_URL": broker,
        "HOST": "127.0.0.1",
        "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "OTEL_RESOURCE_ATTRIBUTES": ",".join(filter(None, attributes)),
        # Show telemetry soon, at the price of smaller batches.
        "OTEL_BSP_SCHEDULE_DELAY": "200",
        "OTEL_BLRP_SCHEDULE_DELAY": "200",
        "OTEL_METRIC_EXPORT_INTERVAL": "5000",
        "PYTHONUNBUFFERED": "1",
    }


def _is_ready(url: str) -> bool:
    timeout = httpx.Timeout(2).as_dict()
    request = httpx.Request("GET", f"{url}/health/ready", extensions={"timeout": timeout})
    try:
        # Not an httpx.Client, which logs each request: this polls ten times a second.
        with httpx.HTTPTransport() as transport:
            return transport.handle_request(request).is_success
    except httpx.HTTPError:
        return False
