"""`make service` changes what it has to and nothing else, or nothing at all and says why."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]

from faststream_otel.dev.new_service import names
from faststream_otel.dev.new_service.plan import Options, Plan, plan
from faststream_otel.dev.project import ROOT, UserError, package

PROJECT = {
    "pyproject.toml": "[tool.ruff]\nline-length = 100\n",
    "compose.yaml": """\
# The services.
name: "my-shop"

include:
  - compose.broker.yaml

x-service: &service
  restart: unless-stopped
  environment: &environment
    LOG_LEVEL:

services:
  stock:
    <<: *service
    command: ["stock"] # a comment

  # For commands by hand.
  tools:
    <<: *service
    command: ["--help"]

networks:
  observability:
""",
    "compose.broker.yaml": "services:\n  kafka:\n    image: kafka\n",
    "observability/compose.yaml": "services:\n  otel-collector:\n    image: collector\n",
    ".env.example": """\
# --- Ports
#STOCK_PORT=8000

# --- The services
# How much is logged.
#LOG_LEVEL=INFO

# --- Telemetry
#OTEL_LOG_LEVEL=info
""",
    "src/shop/__init__.py": "",
    "src/shop/channels.py": """\
DELIVERIES = "deliveries.arrived"  # by lorry
STORED = "deliveries.stored"
DEAD_LETTERS = "dead-letters"

CHANNELS = (DELIVERIES, STORED, DEAD_LETTERS)
""",
    "src/shop/contracts.py": """\
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, Field


class Event(BaseModel):
    item_id: str
    version: Literal[1] = 1


class Size(StrEnum):
    SMALL = "small"


class Place(BaseModel):
    shelf_id: str
    level: Annotated[int, Field(ge=50)]


class Delivered(Event):
    quantity: int
    country: Annotated[str, Field(pattern="^[A-Z]{2}$")]


class Stored(Event):
    place: Place
    size: Size
    why: Literal["new", "returned"]
    tags: list[str]


class Odd(Event):
    code: Annotated[str, Field(pattern="^odd:[a-f]{5}$")]


class Plain(BaseModel):
    item_id: str
""",
    "src/shop/settings.py": '''\
from pydantic_settings import BaseSettings


class Settings(BaseSettings):
    log_level: str = "INFO"
    """How much is logged."""

    @property
    def verbose(self) -> bool:
        return self.log_level == "DEBUG"
''',
    "src/shop/services/__init__.py": "",
    "src/shop/services/stock.py": """\
from ..channels import DELIVERIES, STORED
from ..contracts import Delivered, Stored
from ..service import Service

service = Service("stock")


@service.subscriber(DELIVERIES, batch=True)
@service.publisher(STORED)
async def store(delivered: list[Delivered]) -> Stored: ...
""",
    "tests/unit/test_flow.py": "",
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, text in PROJECT.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def files(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): path.read_text()
        for path in root.rglob("*")
        if path.is_file() and not {"__pycache__", ".ruff_cache"}.intersection(path.parts)
    }


def add(root: Path, name: str, **options: object) -> Plan:
    made = plan(Options(name, **options), root)  # type: ignore[arg-type]
    made.write()
    return made


def lines_added(before: str, after: str) -> Iterator[str]:
    """The lines that are new; fails if one of the others is gone or moved."""
    old = iter(before.splitlines())
    expected = next(old, None)
    for line in after.splitlines():
        if line == expected:
            expected = next(old, None)
        else:
            yield line
    assert expected is None, f"{expected!r} is gone"


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))


# --- What is written


def test_it_goes_on_where_the_flow_ends(root: Path) -> None:
    before = files(root)
    made = add(root, "labels")
    after = files(root)

    new = {"src/shop/services/labels.py", "tests/unit/test_labels.py"}
    assert after.keys() - before.keys() == new
    assert [name for name in before if before[name] != after[name]] == ["compose.yaml"]
    assert list(lines_added(before["compose.yaml"], after["compose.yaml"])) == [
        "  labels:",
        "    <<: *service",
        '    command: ["labels"]',
        "",
    ]
    assert list(yaml.safe_load(after["compose.yaml"])["services"]) == ["stock", "labels", "tools"]
    handlers = after["src/shop/services/labels.py"]
    assert "@service.subscriber(STORED)\nasync def handle(event: Stored, span" in handlers
    assert 'span.set_attribute("item.id", event.item_id)' in handlers
    assert "deliveries.stored is the last channel" in made.notes[0]


def test_a_channel_that_is_new_is_declared_with_its_contract(root: Path) -> None:
    before = files(root)
    add(root, "labels", consumes="DELIVERIES", publishes="labels.printed")
    after = files(root)

    assert after["src/shop/channels.py"] == before["src/shop/channels.py"].replace(
        "DEAD_LETTERS = ", 'LABELS_PRINTED = "labels.printed"\nDEAD_LETTERS = '
    ).replace(", DEAD_LETTERS)", ", LABELS_PRINTED, DEAD_LETTERS)")
    assert after["src/shop/contracts.py"] == before["src/shop/contracts.py"] + (
        '\n\nclass LabelPrinted(Event):\n    """What travels over labels.printed."""\n'
    )
    handlers = after["src/shop/services/labels.py"]
    assert "(event: Delivered, span: CurrentSpan)" in handlers
    assert "send(publisher, LabelPrinted(item_id=event.item_id))" in handlers


def test_a_channel_that_nobody_publishes_to_yet_may_be_published_to(root: Path) -> None:
    add(root, "archive", consumes="labels.printed")
    before = files(root)
    made = add(root, "labels", consumes="STORED", publishes="labels.printed")
    assert {path.name for path in made.changed} == {"compose.yaml"}
    assert files(root)["src/shop/channels.py"] == before["src/shop/channels.py"]
    handlers = (root / "src/shop/services/labels.py").read_text()
    assert "service.publisher(LABELS_PRINTED, LabelPrinted)" in handlers
    assert "send(publisher, LabelPrinted(item_id=event.item_id))" in handlers

    with pytest.raises(UserError, match="is there already, for LabelPrinted"):
        add(root, "more-labels", consumes="STORED", publishes="LABELS_PRINTED")


def test_a_long_list_of_channels_stays_in_format_and_keeps_its_comments(root: Path) -> None:
    channels = root / "src/shop/channels.py"
    replace(
        channels,
        "(DELIVERIES, STORED, DEAD_LETTERS)",
        "(\n    DELIVERIES,  # first\n    STORED,\n    DEAD_LETTERS,\n)",
    )
    add(root, "labels", publishes="labels.printed", consumes="labels.requested")
    assert channels.read_text().endswith(
        "(\n    DELIVERIES,  # first\n    STORED,\n    LABELS_REQUESTED,\n    LABELS_PRINTED,\n"
        "    DEAD_LETTERS,\n)\n"
    )


def test_a_file_that_was_not_in_format_is_left_as_it_was(root: Path) -> None:
    channels = root / "src/shop/channels.py"
    replace(channels, '"deliveries.stored"', "'deliveries.stored'")
    add(root, "labels", publishes="labels.printed")
    assert "STORED = 'deliveries.stored'" in channels.read_text()


def test_settings_are_declared_handed_through_and_explained(root: Path) -> None:
    before = files(root)
    made = add(
        root, "labels", settings=["width_mm=62", "dpi=300.5", "printer=a =b", "cut=true", "nan=NaN"]
    )
    after = files(root)

    settings = "src/shop/settings.py"
    fields = [line for line in lines_added(before[settings], after[settings]) if ":" in line]
    assert fields == [
        "    labels_width_mm: int = 62",
        "    labels_dpi: float = 300.5",
        '    labels_printer: str = "a =b"',
        "    labels_cut: bool = True",
        '    labels_nan: str = "NaN"',
    ]
    (own,) = (
        service["environment"]
        for name, service in yaml.safe_load(after["compose.yaml"])["services"].items()
        if name == "labels"
    )
    variables = [made.service.variable(name) for name in made.service.settings]
    assert set(own) == {"LOG_LEVEL", *variables}
    assert "# Of the service labels.\n#LABELS_WIDTH_MM=62\n" in after[".env.example"]
    assert "#LABELS_PRINTER='a =b'\n#LABELS_CUT=true\n" in after[".env.example"]
    assert after[".env.example"].index("LABELS_") < after[".env.example"].index("# --- Telemetry")


@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize("publishes", ["", "labels.printed"])
def test_what_is_written_is_python_in_format(root: Path, batch: bool, publishes: str) -> None:
    made = add(root, "labels-and-more", batch=batch, publishes=publishes, settings=["a=1"])
    written = [str(path) for path in made.new | made.changed if path.suffix == ".py"]
    for path in written:
        ast.parse(Path(path).read_text())
    ruff = [sys.executable, "-m", "ruff", "format", "--check", *written]
    done = subprocess.run(ruff, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    handlers = root / "src/shop/services/labels_and_more.py"
    assert 'Service("labels-and-more")' in handlers.read_text()
    assert '    command: ["labels-and-more"]' in (root / "compose.yaml").read_text()


def test_a_second_one_comes_behind_the_first(root: Path) -> None:
    add(root, "labels", publishes="labels.printed")
    second = add(root, "archive")
    assert second.service.consumes.contract == "LabelPrinted"
    compose = yaml.safe_load((root / "compose.yaml").read_text())
    assert list(compose["services"]) == ["stock", "labels", "archive", "tools"]


def test_the_first_of_all_finds_nothing_to_go_on_with(root: Path) -> None:
    """As after the example was removed, and nothing put in its place."""
    (root / "src/shop/services/stock.py").unlink()
    replace(root / "src/shop/channels.py", "(DELIVERIES, STORED, DEAD_LETTERS)", "(DEAD_LETTERS,)")
    replace(
        root / "compose.yaml",
        '  stock:\n    <<: *service\n    command: ["stock"] # a comment\n\n',
        "",
    )
    made = add(root, "labels")
    assert made.service.consumes.topic == "labels.requested"
    assert made.service.consumes.contract == "LabelRequested"
    assert "let ENTRANCE in devtools/project.py" in "".join(made.notes)
    assert list(yaml.safe_load((root / "compose.yaml").read_text())["services"]) == [
        "labels",
        "tools",
    ]


# --- What its test sends


@pytest.mark.parametrize(
    ("channel", "sample"),
    [
        ("DELIVERIES", {"item_id": "item-1", "quantity": 1, "country": "FI"}),
        (
            "STORED",
            {
                "item_id": "item-1",
                "place": {"shelf_id": "shelf-1", "level": 100},
                "size": "small",
                "why": "new",
                "tags": [],
            },
        ),
    ],
)
def test_a_message_is_made_up_that_fits_the_contract(
    root: Path, channel: str, sample: dict[str, object]
) -> None:
    assert plan(Options("labels", channel), root).service.sample == sample


def test_where_none_can_be_made_up_the_handler_takes_any_event(root: Path) -> None:
    replace(root / "src/shop/services/stock.py", "-> Stored", "-> Odd")
    made = plan(Options("labels"), root)
    assert made.service.consumes.contract == "Event"
    assert made.service.sample == {"item_id": "item-1"}
    assert "No message could be made up for a test of Odd" in "".join(made.notes)


# --- What is refused


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("", "Which service?"),
        ("Labels", "is no name for a service: use lower-case letters and digits"),
        ("la_bels", "is no name for a service"),
        ("labels-", "is no name for a service"),
        ("7labels", "is no name for a service"),
        ("../labels", "is no name for a service"),
        ("labels\n", "is no name for a service"),
        ("class", "is a keyword of Python"),
        ("topics", "is a command of the package"),
        ("metrics", "is the name by which Prometheus finds"),
        ("stock", "is there already"),
        ("kafka", "is there already"),
        ("otel-collector", "is there already"),
        ("a" * 53, "is longer than 52 characters"),
        ("flow", "tests/unit/test_flow.py is there already"),
    ],
)
def test_a_bad_name_is_refused(root: Path, name: str, said: str) -> None:
    before = files(root)
    with pytest.raises(UserError, match=said):
        add(root, name)
    assert files(root) == before


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"consumes": "dead-letters"}, "make replay"),
        ({"consumes": "Labels"}, "--consumes Labels is no name .* A good one: --consumes invoices"),
        ({"publishes": "a" * 181}, "is longer than 180 characters"),
        ({"publishes": "deliveries.arrived"}, "is there already, for Delivered"),
        ({"publishes": "deliveries.stored"}, "what it consumes has no end"),
        ({"consumes": "labels.new", "publishes": "labels.new"}, "has no end"),
        ({"consumes": "events"}, "would be Event in src/shop/contracts.py"),
        ({"consumes": "services"}, "would be Service in src/shop/contracts.py"),
        ({"publishes": "event"}, "would be EVENT in src/shop/channels.py"),
        ({"settings": ["width"]}, "A good one: --setting due_days=30"),
        ({"settings": ["width=1\n2"]}, "A good one: --setting due_days=30"),
        ({"settings": ["Width=1"]}, "A good one: --setting due_days=30"),
        ({"settings": ["note=it's"]}, "a value without '"),
        ({"settings": ["path=a\\"]}, "a value without '"),
    ],
)
def test_bad_options_are_refused(root: Path, options: dict[str, object], said: str) -> None:
    before = files(root)
    with pytest.raises(UserError, match=said):
        add(root, "labels", **options)
    assert files(root) == before


@pytest.mark.parametrize(
    ("name", "setting", "variable"),
    [
        ("otel", "service_name=x", "OTEL_SERVICE_NAME"),
        ("compose", "file=x", "COMPOSE_FILE"),
        ("shelf", "port=1", "SHELF_PORT"),
        ("log", "level=x", "LOG_LEVEL"),
    ],
)
def test_a_setting_is_no_variable_that_means_something_else(
    root: Path, name: str, setting: str, variable: str
) -> None:
    replace(root / ".env.example", "#STOCK_PORT=8000", "#STOCK_PORT=8000\n#SHELF_PORT=8001")
    before = files(root)
    with pytest.raises(UserError, match=f"variable {variable}, which means something else"):
        add(root, name, settings=[setting])
    assert files(root) == before


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        ("compose.yaml", "&service", "&other", "compose.yaml has no mapping with the anchor"),
        ("compose.yaml", "services:\n  stock", "x-s:\n  stock", "has no services:"),
        ("src/shop/channels.py", "DEAD_LETTERS)", ")", "does not hold DEAD_LETTERS"),
        ("src/shop/channels.py", "CHANNELS =", "OTHERS =", "channels.py has no CHANNELS"),
        ("src/shop/contracts.py", "item_id: str\n    v", "v", "no field without a default"),
        ("src/shop/contracts.py", "class Event", "class Other", "no class Event"),
        ("src/shop/contracts.py", "from enum", "from gone", "No module named 'gone'"),
        ("src/shop/services/stock.py", "-> Stored", "-> Plain", "Plain, which travels over deliv"),
        ("src/shop/services/stock.py", "def store", "def", "stock.py:10 is no Python"),
    ],
)
def test_a_project_that_is_otherwise_is_left_alone(
    root: Path, file: str, old: str, new: str, said: str
) -> None:
    replace(root / file, old, new)
    before = files(root)
    with pytest.raises(UserError, match=said):
        add(root, "labels", publishes="labels.printed")
    assert files(root) == before


def test_what_cannot_be_written_whole_is_not_written(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = plan(Options("labels", publishes="labels.printed"), root)
    before = files(root)
    last = list(made.changed)[-1]
    write = Path.write_text

    def fail_once(path: Path, *arguments: str) -> int:
        if path == last:
            monkeypatch.setattr(Path, "write_text", write)
            raise OSError(28, "No space left on device", str(path))
        return write(path, *arguments)

    monkeypatch.setattr(Path, "write_text", fail_once)
    with pytest.raises(UserError, match=r"No space left on device\. Nothing was changed"):
        made.write()
    assert files(root) == before


# --- What it knows of the project


@pytest.mark.parametrize(
    ("topic", "contract"),
    [
        ("invoices.issued", "InvoiceIssued"),
        ("credit-notes.sent-back", "CreditNoteSentBack"),
        ("deliveries.arrived", "DeliveryArrived"),
        ("boxes.packed", "BoxPacked"),
        ("status.changed", "StatusChanged"),
        ("analysis.done", "AnalysisDone"),
        ("audit", "Audit"),
    ],
)
def test_a_contract_is_named_after_what_happened(topic: str, contract: str) -> None:
    assert names.contract(topic) == contract


def test_the_commands_that_no_service_may_be_called_by_are_those_that_there_are() -> None:
    said = subprocess.run(
        [sys.executable, "-m", package(), "--help"], cwd=ROOT, capture_output=True, text=True,
        check=True,
    ).stdout  # fmt: skip
    present = set(re.findall(r"^    (\S+)", said, re.MULTILINE))
    services = {path.stem.replace("_", "-") for path in (ROOT / "src").glob("*/services/[!_]*.py")}
    assert present - services == names.COMMANDS
