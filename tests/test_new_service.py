"""`make service`: the new service passes every check once its printed lines are pasted, and its
spans are in the trace of an order."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from bakery import Bakery
from ports import free_ports
from test_removing_the_example import make_service
from tools import docker_compose

LONG = "a-name-as-long-as-a-project-may-have-one"  # lines with it are longer than ours

ADDED = {
    # The first two run at once; what the others say is pasted.
    "invoicing": "--consumes shipments.dispatched",
    "archive": "--batch",
    "email": "--consumes orders.placed --batch --publishes emails.sent",
    "delivery-reports": "--consumes emails.sent --publishes reports.made",
}
AT_ONCE = ["invoicing", "archive"]
TESTS = [f"tests/test_{name.replace('-', '_')}.py" for name in ADDED]

EDGES = [
    ("shipping: send shipments.dispatched", "invoicing: process shipments.dispatched"),
    ("email: process orders.placed", "email: send emails.sent"),
    ("email: send emails.sent", "delivery-reports: process emails.sent"),
    ("delivery-reports: process emails.sent", "delivery-reports: send reports.made"),
]
LINK = ("orders: send orders.placed", "email: process orders.placed")

# Runs in the baked project: all services as processes, a broker on TCP, telemetry over OTLP.
FOLLOW = """
import json, sys
from example import SUCCEEDS, place
from faststream_otel.dev.local import run_locally
from faststream_otel.dev.project import Project

file, *names = sys.argv[1:]
with run_locally(lambda line: None, Project.here()) as local:
    local.wait_until_ready()
    _, trace_id = place(local.urls["orders"], SUCCEEDS.order)
    local.receiver.wait_for(
        lambda receiver: {*names} <= {f"{one.service}: {one.name}" for one in receiver.spans},
        f"spans {names}", 30,
    )
    local.receiver.wait_for(
        lambda receiver: any(
            one.service == "invoicing" and one.trace_id == trace_id for one in receiver.logs
        ),
        "the log record of invoicing", 30,
    )
    received = {
        "trace": trace_id,
        "spans": [
            (one.service + ": " + one.name, one.trace_id, one.span_id, one.parent_id,
             [link.span_id for link in one.links])
            for one in local.receiver.spans
        ],
        "logs": [(one.service, one.body, one.trace_id) for one in local.receiver.logs],
        "problems": local.receiver.problems,
    }
with open(file, "w") as file:
    json.dump(received, file)
"""


@pytest.fixture(scope="module")
def project(bakery: Bakery) -> Path:
    """A project with a long name and services of its own."""
    project = bakery.bake({"project_slug": LONG}, bakery.home / "with services")
    for name, arguments in ADDED.items():
        printed = make_service(
            bakery, project, "make", "service", f"NAME={name}", f"ARGS={arguments}"
        )
        assert ("Add to" in printed) == (name not in AT_ONCE)
    bakery.run(project, "make", "format")
    return project


@pytest.fixture(scope="module")
def received(project: Path, bakery: Bakery) -> dict[str, Any]:
    """The telemetry of one order, in a run without Docker."""
    (port,) = free_ports(1)
    file = bakery.home / "received.json"
    bakery.run(
        project,
        "env",
        f"ORDERS_PORT={port}",
        "uv",
        "run",
        "python",
        "-c",
        FOLLOW,
        str(file),
        *{name for edge in (*EDGES, LINK) for name in edge},
    )
    return dict(json.loads(file.read_text()))


def test_lint_is_clean(project: Path, bakery: Bakery) -> None:
    bakery.run(project, "make", "lint")


def test_their_tests_and_those_of_the_project_pass(project: Path, bakery: Bakery) -> None:
    others = ["tests/test_flow.py", "tests/test_run.py"]
    bakery.run(project, "make", "test", f"ARGS={' '.join([*TESTS, *others])}")


def test_the_run_test_takes_a_parent_that_arrives_after_its_children(
    project: Path, bakery: Bakery
) -> None:
    """With more services, a trace has enough spans before it has those of the example."""
    code = """
from types import SimpleNamespace as Span
from tests.test_run import edges

child = Span(span_id="2", parent_id="1", name="child")
parent = Span(span_id="1", parent_id=None, name="parent")
assert edges([child]) == set()
assert edges([child, parent]) == {("parent", "child")}
"""
    bakery.run(project, "uv", "run", "python", "-c", code)


def test_compose_accepts_it(project: Path, bakery: Bakery) -> None:
    compose = docker_compose("Compose reads what `make service` wrote")
    configured = subprocess.run(
        [*compose, "config", "--format", "json"],
        cwd=project, env=bakery.environment(), capture_output=True, encoding="utf-8", check=True,
    )  # fmt: skip
    services = json.loads(configured.stdout)["services"]
    for name in ADDED:
        assert services[name]["command"] == [name]
        assert services[name]["networks"] == services["payments"]["networks"]
        assert services[name]["read_only"]


@pytest.mark.parametrize(("parent", "child"), EDGES)
def test_its_spans_hang_together(received: dict[str, Any], parent: str, child: str) -> None:
    spans = {name: (own, above, trace) for name, trace, own, above, _ in received["spans"]}
    assert spans[child][1] == spans[parent][0], f"{child} does not hang off {parent}"
    assert (spans[child][2] == received["trace"]) == (child == EDGES[0][1])
    assert received["problems"] == []


def test_a_batch_links_to_the_orders_trace(received: dict[str, Any]) -> None:
    cause, effect = LINK
    ids = {name: own for name, trace, own, _, _ in received["spans"] if trace == received["trace"]}
    links = [links for name, _, _, _, links in received["spans"] if name == effect]
    assert links == [[ids[cause]]]


def test_what_it_logs_carries_the_trace_id(received: dict[str, Any]) -> None:
    records = [body for service, body, trace in received["logs"]
               if service == "invoicing" and trace == received["trace"]]  # fmt: skip
    (text,) = records
    assert text.startswith("Order ")
    assert text.endswith(" handled")


def test_a_bad_name_is_refused(bakery: Bakery, project: Path) -> None:
    done = subprocess.run(
        ["make", "service", "NAME=Invoicing"],
        cwd=project, env=bakery.environment(), capture_output=True, encoding="utf-8",
    )  # fmt: skip
    assert done.returncode != 0
    assert done.stderr.splitlines()[-2] == (
        "NAME=Invoicing cannot name a service: use at most 40 lower-case letters and digits,"
        " with - between words, and no Python keyword. A good one: NAME=invoicing"
    )
