"""A baked project under test, wherever it runs: its folder, its ports, what its .env says."""

import os
import shutil
import subprocess
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from cookiecutter.main import cookiecutter
from matrix import OPTIONS, TEMPLATE
from repository import copy_files

from .stores import STORES

PORTS = [
    "ORDERS_PORT",
    "GRAFANA_PORT",
    "PROMETHEUS_PORT",
    "LOKI_PORT",
    "OTLP_GRPC_PORT",
    "OTLP_HTTP_PORT",
]

FOREIGN = (
    "OTEL_",
    "OTLP_",
    "FORWARD",
    "BROKER_",
    "KAFKA_",
    "RABBITMQ_",
    "NATS_",
    "COMPOSE_",
    "GRAFANA_",
)


@dataclass
class Baked(ABC):
    folder: Path
    project: str
    ports: dict[str, int]
    services: list[str] = field(default_factory=list)
    """Those that are run, by their names in the files that run them."""
    traces: str = "tempo"
    """The trace backend, which is also its service's name."""
    broker: str = OPTIONS["broker"][0]
    """The message broker, which is also its service's name."""
    stand_in: str = ""
    """The image name under which a stand-in was made, if one was."""

    @abstractmethod
    def prepare_images(self) -> list[str]:
        """Build, pull or stand in for all images; return what is left unproved for want of one.

        Raises:
            AssertionError: An image is missing that the others cannot run without.
        """

    @abstractmethod
    def up(self) -> None:
        """Start everything and wait until it is healthy."""

    @abstractmethod
    def down(self) -> None:
        """Remove all that this has made."""

    @abstractmethod
    def last_logs(self) -> str:
        """What state everything is in, and what it said last."""

    @abstractmethod
    def is_well(self, service: str) -> bool:
        """Whether all of a service's replicas run and are healthy."""

    @abstractmethod
    def execute(self, service: str, *command: str) -> str:
        """Run a command in a service's container; return its output."""

    @property
    def traces_port(self) -> str:
        """The name of the port of what keeps the traces."""
        return port_of(self.traces)

    @property
    def broker_port(self) -> str:
        """The name of the broker's port."""
        return port_of(self.broker)

    def address(self, port: str) -> tuple[str, int]:
        """Return host and number of a port, by its name."""
        return "127.0.0.1", self.ports[port]

    def url(self, port: str) -> str:
        """Return the base URL behind a port, by its name."""
        host, number = self.address(port)
        return f"http://{host}:{number}"

    def password(self) -> str:
        """Return that of Grafana's user admin."""
        return self.setting("GRAFANA_ADMIN_PASSWORD")

    def setting(self, name: str) -> str:
        """Return the value of a variable in .env; empty if it is not there."""
        lines = (self.folder / ".env").read_text().splitlines()
        values = [line.partition("=")[2] for line in lines if line.startswith(f"{name}=")]
        return values[-1] if values else ""


def bake(where: Path, **answers: str) -> Path:
    """Bake the template as it is here below `where`, with these answers; return the folder."""
    with TemporaryDirectory() as scratch:
        template = Path(scratch, TEMPLATE.name)
        copy_files(template)  # cookiecutter would copy what git ignores too
        return Path(
            cookiecutter(
                str(template), no_input=True, default_config=True, output_dir=str(where),
                extra_context=answers,
            )
        )  # fmt: skip


def port_of(service: str) -> str:
    return f"{service.upper()}_PORT"


def clean_environment() -> dict[str, str]:
    """The environment less what would win over the project's .env."""
    return {
        name: value
        for name, value in os.environ.items()
        if name not in {*PORTS, *map(port_of, [*STORES, *OPTIONS["broker"]])}
        and not name.startswith(FOREIGN)
    }


def run(
    command: list[str], timeout: float = 60, cwd: Path | None = None, *, errors: bool = False,
    text: str | None = None,
) -> str:  # fmt: skip
    """Return the command's output.

    Args:
        errors: Whether to return what it says on standard error, too.
        text: What it reads on standard input.

    Raises:
        AssertionError: It failed; the end of what it said is in the message.
    """
    assert shutil.which(command[0]), f"{command[0]} is needed for the end-to-end tests"
    result = subprocess.run(
        command, cwd=cwd, timeout=timeout, env=clean_environment(), input=text, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, (
        f"{' '.join(command)} exited {result.returncode}:\n{result.stdout[-4000:]}"
        f"{result.stderr[-4000:]}"
    )
    return result.stdout + (result.stderr if errors else "")
