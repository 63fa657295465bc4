"""The project around these tools: its folder, package, services, and the ports that .env names."""

import os
from pathlib import Path

from . import backend

ROOT = Path(__file__).resolve().parent.parent

ENTRANCE = "orders"
"""The service where work comes in: it has the port that .env names, and is stopped first."""
NEXT_STEP = "Place an order and see its trace: make order"
"""What to do when everything runs."""

ENTRANCE_PORT = f"{ENTRANCE.upper().replace('-', '_')}_PORT"
PORTS = {
    ENTRANCE_PORT: 8000,
    "GRAFANA_PORT": 3000,
    "PROMETHEUS_PORT": 9090,
    backend.PORT_VARIABLE: backend.PORT,
    "LOKI_PORT": 3100,
    "OTLP_GRPC_PORT": 4317,
    "OTLP_HTTP_PORT": 4318,
    "KAFKA_PORT": 9092,
}


class UserError(Exception):
    """What the user has to know and can mend, in one sentence; shown without a traceback."""


def package(root: Path = ROOT) -> str:
    """Name the package: the one folder of src/ that holds services.

    Raises:
        UserError: There is none, or more than one.
    """
    found = sorted(path.parent.name for path in (root / "src").glob("*/services"))
    if len(found) != 1:
        raise UserError(
            f"{root / 'src'} should hold one package with a folder `services`, but has"
            f" {', '.join(found) or 'none'}."
        )
    return found[0]


def services(root: Path = ROOT) -> list[str]:
    """Name the services as their commands are called, the one where work comes in first.

    Raises:
        UserError: That one is not there.
    """
    folder = root / "src" / package(root) / "services"
    modules = {path.stem for path in folder.glob("*.py") if not path.stem.startswith("_")}
    names = {module.replace("_", "-") for module in modules}
    if ENTRANCE not in names:
        raise UserError(
            f"There is no service {ENTRANCE} in {folder}: let ENTRANCE in devtools/project.py name"
            f" the one where work comes in, of {', '.join(sorted(names)) or 'those to come'}."
        )
    return [ENTRANCE, *sorted(names - {ENTRANCE})]


def port(variable: str, root: Path = ROOT) -> int:
    """Read a port from the environment, else from .env, else take its default.

    Of a range, such as 8000-8009 for several replicas, it is the first.

    Raises:
        UserError: It is no port number.
    """
    value = os.environ.get(variable) or _dotenv(root / ".env").get(variable)
    if not value:
        return PORTS[variable]
    first, _, last = value.partition("-")
    if not all(one.isdecimal() and 1 <= int(one) <= 65535 for one in (first, last or first)):
        raise UserError(
            f"{variable}={value} is no port: use a number from 1 to 65535, for example"
            f" {variable}={PORTS[variable]}."
        )
    return int(first)


def _dotenv(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    pairs = (line.partition("=") for line in lines if "=" in line and not line.startswith("#"))
    return {name.strip(): value.partition(" #")[0].strip().strip("'\"") for name, _, value in pairs}
