"""Services and Collector over TLS and with a password, as .env says, with the real Kafka."""

import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from .apis import Prometheus, post
from .poll import poll_until
from .stack import Stack

USER = "orders"
SCRAM_PASSWORD = "a $ecret #" + secrets.token_urlsafe(12)  # what has a meaning in files like .env
PLAIN_PASSWORD = secrets.token_urlsafe(12)

# The development broker, with one listener for containers that asks for TLS and a password.
SECURED = f"""
services:
  kafka:
    environment:
      KAFKA_LISTENERS: CONTAINERS://:9092,INSIDE://localhost:9091,CONTROLLER://localhost:9093
      KAFKA_ADVERTISED_LISTENERS: CONTAINERS://kafka:9092,INSIDE://localhost:9091
      KAFKA_LISTENER_SECURITY_PROTOCOL_MAP: "CONTAINERS:SASL_SSL,INSIDE:PLAINTEXT,\
        CONTROLLER:PLAINTEXT"
      KAFKA_INTER_BROKER_LISTENER_NAME: INSIDE
      KAFKA_SASL_ENABLED_MECHANISMS: SCRAM-SHA-512,PLAIN
      KAFKA_LISTENER_NAME_CONTAINERS_SCRAM___SHA___512_SASL_JAAS_CONFIG:
        org.apache.kafka.common.security.scram.ScramLoginModule required;
      KAFKA_LISTENER_NAME_CONTAINERS_PLAIN_SASL_JAAS_CONFIG:
        org.apache.kafka.common.security.plain.PlainLoginModule required
        user_{USER}="{PLAIN_PASSWORD}";
      KAFKA_SSL_KEYSTORE_TYPE: PEM
      KAFKA_SSL_KEYSTORE_LOCATION: /etc/kafka/secrets/kafka.pem
    volumes: ["./kafka-secrets:/etc/kafka/secrets:ro"]
    healthcheck:
      test: [CMD, /opt/kafka/bin/kafka-broker-api-versions.sh, --bootstrap-server, "localhost:9091"]
"""

SETTINGS = f"""
BROKER_SECURITY_PROTOCOL=SASL_SSL
BROKER_SASL_MECHANISM=SCRAM-SHA-512
BROKER_USERNAME={USER}
BROKER_PASSWORD='{SCRAM_PASSWORD}'
BROKER_CA_FILE=/certificates/kafka-ca.pem
"""


def write_certificates(project: Path) -> None:
    ours, theirs = trustme.CA(), trustme.CA()
    ours.cert_pem.write_to_path(project / "certificates/kafka-ca.pem")
    theirs.cert_pem.write_to_path(project / "certificates/other-ca.pem")
    issued = ours.issue_cert("kafka", key_type=trustme.KeyType.RSA)
    key = pkcs8(issued.private_key_pem.bytes())  # the only form that Kafka reads
    (project / "kafka-secrets").mkdir()
    file = project / "kafka-secrets/kafka.pem"
    file.write_bytes(key + issued.cert_chain_pems[0].bytes())
    file.chmod(0o644)


def pkcs8(pem: bytes) -> bytes:
    return serialization.load_pem_private_key(pem, None).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


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
        (stack.folder / "compose.secured.yaml").write_text(SECURED)
        with (stack.folder / ".env").open("a") as env:
            env.write(SETTINGS)
        write_certificates(stack.folder)
        with stack.with_images():
            stack.services = ["kafka"]
            stack.up()
            stack.execute(
                "kafka", "/opt/kafka/bin/kafka-configs.sh", "--bootstrap-server", "localhost:9091",
                "--alter", "--entity-type", "users", "--entity-name", USER,
                "--add-config", f"SCRAM-SHA-512=[password={SCRAM_PASSWORD}]",
            )  # fmt: skip
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
        # What the lag exporter learns from the broker.
        'messaging_consumer_lag{messaging_consumer_group_name="payments.orders.placed"}',
    ],
)
def test_orders_and_lag_come_through(secured: Stack, query: str) -> None:
    prometheus = Prometheus(secured.url("PROMETHEUS_PORT"))
    poll_until(lambda: prometheus.series(query), query)


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"BROKER_PASSWORD": "wrong"}, "BROKER_USERNAME or BROKER_PASSWORD"),
        ({"BROKER_CA_FILE": "/certificates/other-ca.pem"}, "BROKER_CA_FILE"),
        ({"BROKER_SASL_MECHANISM": "SCRAM-SHA-256"}, "BROKER_SASL_MECHANISM"),
        ({"BROKER_SECURITY_PROTOCOL": "SSL", "BROKER_SASL_MECHANISM": "",
          "BROKER_USERNAME": "", "BROKER_PASSWORD": ""}, "BROKER_SECURITY_PROTOCOL"),
    ],
    ids=lambda one: "" if isinstance(one, str) else "-".join(one),
)  # fmt: skip
def test_who_is_not_let_in_is_told_why(
    secured: Stack, variables: dict[str, str], said: str
) -> None:
    """The one-shot ends with it; a service says it at each attempt, and goes on trying."""
    code, output = secured.run_once("channels", **variables)
    assert (code, said in output) == (1, True), output
    with secured.running_beside("orders", **variables) as output_so_far:
        poll_until(lambda: said in output_so_far(), f"a service to say {said}")
        output += output_so_far()
    assert SCRAM_PASSWORD not in output


def test_the_other_mechanism(secured: Stack) -> None:
    code, output = secured.run_once(
        "channels", BROKER_SASL_MECHANISM="PLAIN", BROKER_PASSWORD=PLAIN_PASSWORD
    )
    assert code == 0, output


def test_no_password_is_told(secured: Stack) -> None:
    said = secured.last_logs()
    assert SCRAM_PASSWORD not in said
    assert PLAIN_PASSWORD not in said.replace(f'user_{USER}="{PLAIN_PASSWORD}"', "")
