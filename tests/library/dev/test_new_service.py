"""`service` adds a module, a test and a container, and prints further steps; or changes nothing."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from faststream_otel.cli.development import main
from faststream_otel.dev.new_service import add_service
from faststream_otel.dev.project import Project

COMPOSE = """\
# The services.
x-service: &service
  restart: unless-stopped

services:
  stock:
    <<: *service
    command: ["stock"] # a comment

  # For commands by hand.
  # docker compose run --rm tools dead-letters
  tools:
    <<: *service
    command: ["--help"]

networks:
  observability:
"""
FILES = {
    "pyproject.toml": "[tool.ruff]\nline-length = 100\nsrc = ['src']\n",
    "compose.yaml": COMPOSE,
    "compose.broker.yaml": "services:\n  kafka:\n    image: kafka\n",
    "observability/compose.yaml": "services:\n  otel-collector:\n    image: collector\n",
    "src/shop/__init__.py": "",
    "src/shop/channels.py": """\
DELIVERIES = "deliveries.arrived"
STORED = "deliveries.stored"
RETURNS = "returns.arrived"
SOLD = "sales.made"

CHANNELS = (DELIVERIES, STORED, RETURNS, SOLD)
""",
    "src/shop/contracts.py": """\
from typing import Annotated, Literal

from pydantic import BaseModel, Field


class Event(BaseModel):
    item_id: str
    version: Literal[1] = 1


class Place(BaseModel):
    shelf: Annotated[int, Field(ge=50)]


class Delivered(Event):
    quantity: int
    country: Annotated[str, Field(pattern="^[A-Z]{2}$")]


class Stored(Event):
    place: Place
    why: Literal["new", "returned"]
    tags: list[str]


class Returned(Event):
    code: Annotated[str, Field(pattern="^odd:[a-f]{5}$")]


class Sold(Event): ...
""",
    "src/shop/settings.py": "from faststream_otel.kafka import KafkaSettings\n\n\n"
    "class Settings(KafkaSettings): ...\n",
    "src/shop/services/__init__.py": "",
    "src/shop/services/stock.py": """\
from faststream_otel import Service

from ..channels import DELIVERIES, RETURNS, SOLD, STORED
from ..contracts import Delivered, Returned, Sold, Stored
from ..settings import Settings

service = Service("stock", Settings())
sold = service.publisher(SOLD, Sold)


@service.subscriber(DELIVERIES)
@service.publisher(STORED)
async def store(delivered: Delivered) -> Stored: ...


@service.subscriber(RETURNS, batch=True)
async def take_back(returned: list[Returned]) -> None: ...
""",
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path / "src")
    monkeypatch.chdir(tmp_path)
    forget()
    yield Project(tmp_path, "shop")
    forget()


def forget() -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "shop"]:
        del sys.modules[name]


def texts(project: Project) -> dict[str, str]:
    return {
        str(path.relative_to(project.root)): path.read_text()
        for path in project.root.rglob("*")
        if path.is_file() and not {"__pycache__", ".ruff_cache"}.intersection(path.parts)
    }


def runs(project: Project, name: str) -> None:
    """Import the service in a process of its own, and see that ruff finds nothing in it."""
    subprocess.run(
        [sys.executable, "-c", f"from shop.services.{name} import service; print(service.name)"],
        cwd=project.root / "src", check=True,
    )  # fmt: skip
    subprocess.run(
        [sys.executable, "-m", "ruff", "check", "-q", "--select", "E,F,I", "src", "tests"],
        cwd=project.root, check=True,
    )  # fmt: skip


def event_of(project: Project, name: str) -> Any:
    text = texts(project)[f"tests/test_{name}.py"]
    return eval(text.partition("EVENT = ")[2].partition('\n"""')[0])


@pytest.mark.parametrize(
    ("consumes", "batch", "contract", "event"),
    [
        ("", False, "Sold", {"item_id": "item-1"}),
        ("DELIVERIES", True, "Delivered", {"item_id": "item-1", "quantity": 1, "country": "FI"}),
        ("deliveries.stored", False, "Stored",
         {"item_id": "item-1", "place": {"shelf": 100}, "why": "new", "tags": ()}),
        ("returns.arrived", True, "Returned", {"item_id": "item-1", "code": ...}),
    ],
)  # fmt: skip
def test_a_service_of_an_existing_channel_runs_at_once(
    project: Project, consumes: str, batch: bool, contract: str, event: Any
) -> None:
    before = texts(project)
    left = add_service(project, "credit-notes", consumes, "", batch)
    after = texts(project)

    assert "Add to" not in left
    assert ("Replace each Ellipsis" in left) == (... in event.values())
    changed = {name for name, text in after.items() if before.get(name) != text}
    module, test = "src/shop/services/credit_notes.py", "tests/test_credit_notes.py"
    assert changed == {module, test, "compose.yaml"}
    assert (f"list[{contract}]" if batch else f"event: {contract}") in after[module]
    assert event_of(project, "credit_notes") == event
    runs(project, "credit_notes")


def test_container_stands_before_the_tools(project: Project) -> None:
    add_service(project, "invoicing", "", "", False)
    added = '  invoicing:\n    <<: *service\n    command: ["invoicing"]\n\n'
    comment = "  # For commands by hand."
    text = texts(project)["compose.yaml"]
    assert text == COMPOSE.replace(comment, added + comment)
    assert yaml.safe_load(text)["services"]["invoicing"]["restart"] == "unless-stopped"


def test_container_is_the_first_where_there_are_no_tools(project: Project) -> None:
    compose = project.root / "compose.yaml"
    compose.write_text("x: &service {}\n\nservices:\n  stock: *service\n")
    add_service(project, "invoicing", "", "", False)
    assert list(yaml.safe_load(compose.read_text())["services"]) == ["invoicing", "stock"]


@pytest.mark.parametrize("batch", [False, True])
def test_a_service_of_new_channels_runs_after_its_printed_steps(
    project: Project, batch: bool
) -> None:
    left = add_service(project, "invoicing", "invoices.requested", "invoices.issued", batch)
    parts = left.split("\nAdd to ")[1:]
    assert [part.partition(",")[0] for part in parts] == [
        "src/shop/channels.py", "src/shop/contracts.py",
        "src/shop/channels.py", "src/shop/contracts.py",
    ]  # fmt: skip
    for part in parts:
        name, _, rest = part.partition(",")
        path = project.root / name
        block = rest.partition("\n\n")[2].partition("\n\n")[0].replace("\n    ", "\n").strip()
        path.write_text(f"{path.read_text()}\n\n{block}\n")
    text = texts(project)["src/shop/services/invoicing.py"]
    assert "InvoiceIssued(item_id=event.item_id)" in text
    assert event_of(project, "invoicing") == {"item_id": "item-1"}
    runs(project, "invoicing")


@pytest.mark.parametrize(
    ("channel", "contract"),
    [
        ("invoices.issued", "InvoiceIssued"),
        ("supplies.ordered", "SupplyOrdered"),
        ("addresses.changed", "AddressChanged"),
        ("status.changed", "StatusChanged"),
        ("boxes.packed", "BoxPacked"),
        ("stock.low", "StockLow"),
    ],
)
def test_a_contract_is_called_after_one_of_what_the_channel_holds(
    project: Project, channel: str, contract: str
) -> None:
    assert f"class {contract}(" in add_service(project, "invoicing", channel, "", False)


def test_code_with_long_names_is_formatted(project: Project) -> None:
    add_service(project, "a" * 40, "DELIVERIES", f"{'long-' * 12}name.issued", False)
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "format", "--check", "src/shop/services", "tests"]
    )
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["Invoicing"], "NAME=Invoicing cannot name a service: use at most 40 lower-case"),
        (["in_voicing"], "NAME=in_voicing cannot name"),
        (["import"], "NAME=import cannot name"),
        (["a" * 41], "cannot name"),
        ([""], "NAME= cannot name"),
        (["stock"], "NAME=stock is taken: a Compose file has a service of that name"),
        (["kafka"], "NAME=kafka is taken"),
        (["otel-collector"], "NAME=otel-collector is taken"),
        (["metrics"], "NAME=metrics is taken"),
        (["made"], "NAME=made is taken: src/shop/services/made.py exists"),
        (["proved"], "NAME=proved is taken: tests/test_proved.py exists"),
        (["invoicing", "--consumes", "In voices"], "In voices cannot name a channel"),
        (["invoicing", "--publishes", "x_y"], "x_y cannot name a channel"),
        (["invoicing", "--publishes", "SOLD"], "--publishes SOLD: the service consumes it"),
        (
            ["invoicing", "--publishes", "deliveries.stored"],
            "or another service already publishes to it",
        ),
    ],
)
def test_bad_names_are_refused_and_nothing_is_written(
    project: Project, arguments: list[str], error: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (project.root / "src/shop/services/made.py").touch()
    (project.root / "tests").mkdir()
    (project.root / "tests/test_proved.py").touch()
    before = texts(project)
    name, *options = arguments
    assert main("shop", ["service", *options, "--", name]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert error in line
    assert texts(project) == before


def test_compose_file_without_services_is_refused(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    (project.root / "compose.yaml").write_text("name: shop\n")
    before = texts(project)
    assert main("shop", ["service", "invoicing"]) == 1
    assert capsys.readouterr().err.startswith(
        "compose.yaml lacks `services:`, or the anchor &service"
    )
    assert texts(project) == before
