"""Services and the exporter of lag on a broker that asks for TLS and a password."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from .apis import Prometheus, post
from .brokers import chosen_broker
from .poll import poll_until
from .secured import (
    PASSWORD,
    PLAIN_PASSWORD,
    REFUSALS,
    SECURED,
    USER,
    Refusal,
    write_certificates,
)
from .stack import Stack

BROKER = SECURED[chosen_broker()]

pytestmark = pytest.mark.every_broker


@pytest.fixture(scope="module")
def secured() -> Iterator[Stack]:
    with tempfile.TemporaryDirectory(prefix="e2e-secured-") as folder:
        stack = Stack.bake(Path(folder))
        compose = stack.folder / "compose.yaml"
        included = "  - compose.broker.yaml\n"
        text = compose.read_text("utf-8")
        assert included in text
        both = "  - path: [compose.broker.yaml, compose.secured.yaml]\n"
        compose.write_text(text.replace(included, both, 1), "utf-8")
        (stack.folder / "compose.secured.yaml").write_text(BROKER.compose)
        write_certificates(stack.folder, stack.broker)
        BROKER.configure(stack.folder)
        stack.configure(BROKER.settings)
        with stack.with_images():
            stack.services = [stack.broker]
            stack.up()
            BROKER.prepare(stack)
            stack.services = ["orders", "payments", "shipping", "notifications", "lag",
                              "prometheus", "otel-collector"]  # fmt: skip
            stack.up()
            yield stack


@pytest.fixture(scope="module")
def order(secured: Stack) -> None:
    body = {"sku": "keyboard", "amount_cents": 12900, "country": "FI"}
    assert post(f"{secured.url('ORDERS_PORT')}/orders", body).status == 202


@pytest.mark.usefixtures("order")
@pytest.mark.parametrize(
    "query",
    [
        # The whole way of an order: each service publishes and consumes.
        'faststream_received_processed_messages_total{app_name="notifications"} > 0',
        # What the exporter learns from the broker.
        'messaging_consumer_lag{messaging_destination_template="orders.placed"}',
    ],
)
def test_orders_and_lag_come_through(secured: Stack, query: str) -> None:
    prometheus = Prometheus(secured.url("PROMETHEUS_PORT"))
    poll_until(lambda: prometheus.series(query), query)


@pytest.mark.parametrize(
    "refusal", [*REFUSALS, *BROKER.refusals], ids=lambda refusal: "-".join(refusal[0])
)
def test_who_is_not_let_in_is_told_why(secured: Stack, refusal: Refusal) -> None:
    """The one-shot ends with it; a service says it at each attempt, and goes on trying."""
    variables, said = refusal
    code, output = secured.run_once("channels", **variables)
    assert (code, said in output) == (1, True), output
    with secured.running_beside("orders", **variables) as output_so_far:
        poll_until(lambda: said in output_so_far(), f"a service to say {said}")
        output += output_so_far()
    assert PASSWORD not in output


@pytest.mark.skipif(chosen_broker() != "kafka", reason="others have one mechanism")
def test_the_other_mechanism(secured: Stack) -> None:
    code, output = secured.run_once(
        "channels", BROKER_SASL_MECHANISM="PLAIN", BROKER_PASSWORD=PLAIN_PASSWORD
    )
    assert code == 0, output


def test_no_password_is_told(secured: Stack) -> None:
    said = secured.last_logs()
    assert PASSWORD not in said
    assert PLAIN_PASSWORD not in said.replace(f'user_{USER}="{PLAIN_PASSWORD}"', "")
