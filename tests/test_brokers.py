"""Bakes that differ in the broker alone: only its overlay and its names make the difference.

And each bake names its own broker only, and gives the services the settings that it has.
"""

import json
import re
import subprocess
import tomllib
from collections.abc import Iterator
from importlib import import_module
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml
from bakery import Bakery
from matrix import OPTIONS, QUESTIONS, TEMPLATE
from tools import docker_compose

BROKERS = OPTIONS["broker"]
PAIRS = list(combinations(BROKERS, 2))
OVERLAYS = TEMPLATE / "{{cookiecutter.project_slug}}/overlays/broker"

NAMES = {
    "kafka": re.compile(r"kafka|confluent", re.IGNORECASE),
    "rabbitmq": re.compile(r"rabbit|amqp|aio.?pika", re.IGNORECASE),
    "nats": re.compile(r"(?<![a-z])nats(?![a-z])", re.IGNORECASE),  # not "alternates"
}
"""What names a broker."""

MAY_NAME_OTHERS = {
    "uv.lock": "it locks what the library's extra `dev` brings, every embedded broker",
}
"""Files beside `libs/`, each with its reason."""

SAME = ("src/order_flow/services/", "src/order_flow/c", "tests/", "example.py")
"""The code that knows no broker: services, contracts, channels, and the tests."""


def is_text(path: Path) -> bool:
    return path.is_file() and b"\0" not in path.read_bytes()


@pytest.fixture(scope="module")
def bakes(bakery: Bakery) -> dict[str, Path]:
    return {
        broker: bakery.baked_once({"broker": broker}, bakery.home / f"broker-{broker}")
        for broker in BROKERS
    }


def its_own(broker: str) -> set[str]:
    """The files of its overlay, as they are named in a bake."""
    folder = OVERLAYS / broker
    paths = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {str(path).replace("{{cookiecutter.package_name}}", "order_flow") for path in paths}


def common_lines(project: Path, broker: str) -> dict[str, list[str]]:
    """The lines of each file that every bake has, with the broker's own words replaced.

    The library is the template's to the byte: test_bakes.py.
    """
    data = QUESTIONS["_brokers"][broker]
    fragment = (OVERLAYS / broker / "env.example").read_text("utf-8")
    words = {str(data["port"]): "<port>", f"| {data['memory']} | {data['limit']} |": "| <memory> |"}
    assert data["name"].lower() == broker  # so one pattern finds its name in every form
    variables = re.compile(rf"^  (?:{'|'.join(data['variables'])}):\n", re.MULTILINE)
    found = {}
    for path in sorted(project.rglob("*")):
        name = str(path.relative_to(project))
        if not is_text(path) or path.name == ".env" or name.startswith("libs/"):
            continue
        if {"__pycache__", ".venv"} & set(path.parts):
            continue
        text = path.read_text("utf-8").replace(fragment, "")
        if name == "compose.yaml":
            text = variables.sub("", text)
        for own, word in words.items():
            text = text.replace(own, word)
        found[name] = re.sub(broker, "<broker>", text, flags=re.IGNORECASE).splitlines()
    return found


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_two_bakes_differ_in_the_overlay_and_in_names_only(
    one: str, other: str, bakes: dict[str, Path]
) -> None:
    left, right = common_lines(bakes[one], one), common_lines(bakes[other], other)
    overlays = its_own(one) | its_own(other)
    assert (left.keys() ^ right.keys()) - overlays == set()
    assert [
        (name, line, theirs)
        for name in sorted((left.keys() & right.keys()) - overlays)
        for line, theirs in zip(left[name], right[name], strict=False)
        if line != theirs
    ] == []
    assert [
        name
        for name in (left.keys() & right.keys()) - overlays
        if len(left[name]) != len(right[name])
    ] == []


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_code_and_tests_are_the_same_to_the_byte(
    one: str, other: str, bakes: dict[str, Path]
) -> None:
    def code(project: Path) -> dict[str, bytes]:
        return {
            name: path.read_bytes()
            for path in project.rglob("*.py")
            if (name := str(path.relative_to(project))).startswith(SAME)
        }

    assert len(code(bakes[one])) > 10
    assert code(bakes[one]) == code(bakes[other])


@pytest.mark.parametrize("broker", BROKERS)
def test_no_other_broker_is_named_outside_of_the_library(
    broker: str, bakes: dict[str, Path]
) -> None:
    project = bakes[broker]
    others = {name: NAMES[name] for name in BROKERS if name != broker}

    def named() -> Iterator[str]:
        for path in sorted(project.rglob("*")):
            name = path.relative_to(project)
            if {"libs", "__pycache__", ".venv"} & set(name.parts) or str(name) in MAY_NAME_OTHERS:
                continue
            text = f"{name}\n{path.read_text('utf-8')}" if is_text(path) else str(name)
            for other, pattern in others.items():
                for found in pattern.finditer(text):
                    yield f"{name}:{text.count(chr(10), 0, found.start())}: {other}, {found[0]}"

    assert list(named()) == []
    own = [path for path in project.rglob("*.md") if NAMES[broker].search(path.read_text("utf-8"))]
    assert own  # the patterns find what there is


@pytest.mark.parametrize("broker", BROKERS)
def test_the_services_get_the_settings_that_the_library_has(
    broker: str, bakes: dict[str, Path]
) -> None:
    compose = yaml.safe_load((bakes[broker] / "compose.yaml").read_text("utf-8"))
    passed = set(compose["x-broker"])
    (settings,) = (
        value
        for name, value in vars(import_module(f"faststream_otel.{broker}.settings")).items()
        if name.endswith("Settings") and name != "Settings"
    )
    known = {name.upper() for name in settings.model_fields if name.startswith("broker_")}
    assert passed == known - {"BROKER_START_TIMEOUT_SECONDS"}  # passed to services only
    example = (bakes[broker] / ".env.example").read_text("utf-8")
    assert passed - set(re.findall(r"^#?(BROKER_\w+)=", example, re.MULTILINE)) == set()


@pytest.mark.parametrize("broker", BROKERS)
def test_the_broker_is_the_service_of_its_name_on_a_port_that_env_moves(
    broker: str, bakes: dict[str, Path]
) -> None:
    data = QUESTIONS["_brokers"][broker]
    services = yaml.safe_load((bakes[broker] / "compose.broker.yaml").read_text("utf-8"))[
        "services"
    ]
    assert list(services) == [broker]
    (port,) = services[broker]["ports"]
    assert port.startswith(f"127.0.0.1:${{{broker.upper()}_PORT:-{data['port']}}}:")
    assert services[broker]["mem_limit"] == f"{data['limit']}m"
    example = (bakes[broker] / ".env.example").read_text("utf-8")
    assert f"\n#{broker.upper()}_PORT={data['port']}\n" in example
    extra = tomllib.loads((bakes[broker] / "pyproject.toml").read_text("utf-8"))
    assert any(f"[{broker}," in one for one in extra["project"]["dependencies"])


PASSWORD = re.compile(r"^(\w+_PASSWORD)=(.*)$", re.MULTILINE)


def passwords(file: Path) -> dict[str, str]:
    return dict(PASSWORD.findall(file.read_text("utf-8")))


@pytest.mark.parametrize("broker", BROKERS)
def test_every_password_of_an_example_is_random_in_env(
    broker: str, bakes: dict[str, Path], bakery: Bakery
) -> None:
    project = bakes[broker]
    wanted = passwords(project / ".env.example")
    assert set(wanted.values()) == {""}
    assert ("BROKER_PASSWORD" in wanted) == (broker == "rabbitmq")
    baked = passwords(project / ".env")

    for name in (".env", "observability/.env"):
        (project / name).rename(project / f"{name}.baked")
    bakery.run(project, "make", ".env", "observability/.env")
    made = passwords(project / ".env")
    assert passwords(project / "observability/.env").items() <= made.items()
    for name in (".env", "observability/.env"):
        assert (project / name).stat().st_mode & 0o77 == 0
        (project / f"{name}.baked").replace(project / name)

    assert baked.keys() == made.keys() == wanted.keys()
    each = [*baked.values(), *made.values()]
    assert len(set(each)) == len(each)
    assert min(map(len, each)) >= 24


def test_rabbitmq_has_one_user_whose_password_the_services_have(
    bakes: dict[str, Path], bakery: Bakery
) -> None:
    command = docker_compose("the services have RabbitMQ's password")
    printed = subprocess.run(
        [*command, "config", "--format", "json"],
        cwd=bakes["rabbitmq"], env=bakery.environment(),
        stdout=subprocess.PIPE, check=True, encoding="utf-8",
    ).stdout  # fmt: skip
    services: dict[str, Any] = json.loads(printed)["services"]
    broker, service = services["rabbitmq"]["environment"], services["payments"]["environment"]
    assert broker["RABBITMQ_DEFAULT_USER"] == service["BROKER_USERNAME"] == "services"
    password = passwords(bakes["rabbitmq"] / ".env")["BROKER_PASSWORD"]
    assert broker["RABBITMQ_DEFAULT_PASS"] == service["BROKER_PASSWORD"] == password
