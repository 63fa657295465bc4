"""`make service`: what it adds passes every check of the project, and is found in the trace of an
order, without another edit."""

import json
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from bakery import Bakery
from ports import free_ports
from test_removing_the_example import remove_the_example
from tools import docker_compose

LONG = "a-name-as-long-as-a-project-may-have-one"  # lines with it are longer than ours

ADDED = {
    # Goes on where the flow ends, and so does the second.
    "invoicing": "--publishes invoices.issued --setting due_days=30 --setting strict=true",
    "credit-notes": "",
    "email": "--consumes orders.placed --batch --publishes emails.sent",
    "audit": "--consumes audits.requested",
}
TESTS = [f"tests/unit/test_{name.replace('-', '_')}.py" for name in ADDED]

EDGES = [
    ("shipping: send shipments.dispatched", "invoicing: process shipments.dispatched"),
    ("invoicing: process shipments.dispatched", "invoicing: send invoices.issued"),
    ("invoicing: send invoices.issued", "credit-notes: process invoices.issued"),
]
LINK = ("orders: send orders.placed", "email: process orders.placed")

# Runs in the baked project: all services as processes, a broker on TCP, telemetry over OTLP.
FOLLOW = """
import json, sys
from devtools.example.orders import ORDERS, place
from devtools.local import run_locally

services = set(sys.argv[2:])
with run_locally(lambda line: None) as local:
    local.wait_until_ready()
    trace_id = place(local.urls["orders"], ORDERS["succeeds"]).trace_id
    for kept in ("spans", "logs"):
        local.sink.wait_for(
            lambda sink: services <= {
                one.service for one in getattr(sink, kept) if one.trace_id == trace_id
            },
            f"{kept} of {services} in the trace", 30,
        )
    local.sink.wait_for(
        lambda sink: any(one.service == "email" and one.links for one in sink.spans),
        "the batch of email", 30,
    )
    told = {
        "trace": trace_id,
        "spans": [
            (one.service + ": " + one.name, one.trace_id, one.span_id, one.parent_id,
             [link.span_id for link in one.links])
            for one in local.sink.spans
        ],
        "logs": [(one.service, one.body, one.trace_id) for one in local.sink.logs],
        "problems": local.sink.problems,
    }
with open(sys.argv[1], "w") as file:
    json.dump(told, file)
"""


def add(bakery: Bakery, project: Path, name: str, arguments: str) -> None:
    bakery.run(project, "make", "service", f"NAME={name}", f"ARGS={arguments}")


@pytest.fixture(scope="module")
def project(bakery: Bakery) -> Path:
    """A project with a long name and services of its own."""
    project = bakery.bake({"project_slug": LONG}, bakery.home / "with services")
    for name, arguments in ADDED.items():
        add(bakery, project, name, arguments)
    return project


@pytest.fixture(scope="module")
def told(project: Path, bakery: Bakery) -> dict[str, Any]:
    """What the project without Docker tells of one order."""
    (port,) = free_ports(1)
    file = bakery.home / "told.json"
    bakery.run(
        project, "env", f"ORDERS_PORT={port}", "uv", "run", "python", "-c", FOLLOW, str(file),
        "invoicing", "credit-notes",
    )  # fmt: skip
    return dict(json.loads(file.read_text()))


def test_lint_is_clean(project: Path, bakery: Bakery) -> None:
    bakery.run(project, "make", "lint")


def test_their_tests_and_those_of_the_flow_pass(project: Path, bakery: Bakery) -> None:
    bakery.run(project, "make", "test", f"ARGS=tests/unit/test_flow.py {' '.join(TESTS)}")


def test_compose_accepts_it(project: Path, bakery: Bakery) -> None:
    compose = docker_compose("Compose reads what `make service` wrote")
    bakery.run(project, *compose, "config", "--quiet")
    configured = subprocess.run(
        [*compose, "config", "--format", "json"],
        cwd=project, env=bakery.environment() | {"INVOICING_DUE_DAYS": "31"},
        capture_output=True, encoding="utf-8", check=True,
    )  # fmt: skip
    services = json.loads(configured.stdout)["services"]
    assert services["invoicing"]["environment"]["INVOICING_DUE_DAYS"] == "31"
    assert not services["payments"]["environment"].keys() & {"INVOICING_DUE_DAYS"}
    for name in ADDED:
        assert services[name]["command"] == [name]
        assert services[name]["networks"] == services["payments"]["networks"]
        assert services[name]["read_only"]


@pytest.mark.parametrize(("parent", "child"), EDGES)
def test_it_is_in_the_orders_trace(told: dict[str, Any], parent: str, child: str) -> None:
    spans = {name: (own, above) for name, trace, own, above, _ in told["spans"]
             if trace == told["trace"]}  # fmt: skip
    assert spans[child][1] == spans[parent][0], f"{child} does not hang off {parent}"
    assert told["problems"] == []


def test_a_batch_links_to_the_orders_trace(told: dict[str, Any]) -> None:
    cause, effect = LINK
    ids = {name: own for name, trace, own, _, _ in told["spans"] if trace == told["trace"]}
    links = [links for name, _, _, _, links in told["spans"] if name == effect]
    assert links == [[ids[cause]]]


@pytest.mark.parametrize("name", ["invoicing", "credit-notes"])
def test_what_it_logs_carries_the_trace_id(told: dict[str, Any], name: str) -> None:
    records = Counter(body for service, body, trace in told["logs"]
                      if service == name and trace == told["trace"])  # fmt: skip
    (text,) = records
    assert text.startswith("Order ")
    assert text.endswith(" handled")


def test_it_works_after_the_example_was_removed(bakery: Bakery, tmp_path: Path) -> None:
    project = bakery.bake({}, tmp_path)
    remove_the_example(project)
    add(bakery, project, "labels", "--publishes labels.printed")
    add(bakery, project, "archive", "--batch")
    bakery.run(project, "make", "lint")
    bakery.run(project, "make", "test", "ARGS=tests/unit/test_labels.py tests/unit/test_archive.py")


def test_what_is_refused_is_told_and_nothing_is_written(bakery: Bakery, tmp_path: Path) -> None:
    project = bakery.bake({}, tmp_path)

    def texts() -> dict[Path, bytes]:
        return {
            path: path.read_bytes()
            for path in project.rglob("*")
            if path.is_file() and not {".venv", "__pycache__"}.intersection(path.parts)
        }

    bakery.run(project, "uv", "lock", "--quiet")
    before = texts()
    done = subprocess.run(
        ["make", "service", "NAME=Invoicing"],
        cwd=project, env=bakery.environment(), capture_output=True, encoding="utf-8",
    )  # fmt: skip
    assert done.returncode != 0
    assert done.stderr.splitlines()[-2] == (
        "NAME=Invoicing is no name for a service: use lower-case letters and digits, with - between"
        " words. A good one: NAME=invoicing"
    )
    assert texts() == before
