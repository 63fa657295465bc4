"""Each broker with TLS and a password for containers."""

import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import trustme
from cryptography.hazmat.primitives import serialization

from .stack import Stack

USER = "orders"
PASSWORD = "a $ecret #" + secrets.token_urlsafe(12)  # what has a meaning in files like .env
PLAIN_PASSWORD = secrets.token_urlsafe(12)
"""Of Kafka's other mechanism."""

SECRETS = "broker-secrets"
"""The folder of the broker's certificate, key and configuration, in the project."""

Refusal = tuple[Mapping[str, str], str]
"""Variables that are wrong, and the one that the error must name."""

REFUSALS: list[Refusal] = [
    ({"BROKER_PASSWORD": "wrong"}, "BROKER_USERNAME or BROKER_PASSWORD"),
    ({"BROKER_CA_FILE": "/certificates/other-ca.pem"}, "BROKER_CA_FILE"),
]
"""Of every broker."""


def nothing(stack: Stack) -> None:
    """Most brokers need nothing once they run."""


@dataclass(frozen=True)
class Secured:
    """How to secure a broker, and what its clients need.

    Attributes:
        compose: Is laid over compose.broker.yaml.
        settings: Lines of .env.
        configure: Writes files into the project, before the start.
        prepare: Is called once the broker runs.
        refusals: In addition to those of every broker.
    """

    compose: str
    settings: str
    configure: Callable[[Path], None]
    prepare: Callable[[Stack], None] = nothing
    refusals: Sequence[Refusal] = field(default_factory=list)


def write_certificates(project: Path, broker: str) -> None:
    """Write the broker's certificate and key, the CA's certificate, and that of another CA."""
    ours, theirs = trustme.CA(), trustme.CA()
    ours.cert_pem.write_to_path(project / "certificates/broker-ca.pem")
    theirs.cert_pem.write_to_path(project / "certificates/other-ca.pem")
    issued = ours.issue_cert(broker, key_type=trustme.KeyType.RSA)
    certificate = issued.cert_chain_pems[0].bytes()
    key = pkcs8(issued.private_key_pem.bytes())  # the only form that Kafka reads
    folder = project / SECRETS
    folder.mkdir()
    for name, content in {
        "certificate.pem": certificate,
        "key.pem": key,
        "both.pem": key + certificate,
    }.items():
        (folder / name).write_bytes(content)
        (folder / name).chmod(0o644)


def pkcs8(pem: bytes) -> bytes:
    return serialization.load_pem_private_key(pem, None).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def appended(file: str, lines: str) -> Callable[[Path], None]:
    """Put the development broker's configuration with these lines into the folder of secrets."""

    def configure(project: Path) -> None:
        text = (project / "broker" / file).read_text("utf-8")
        (project / SECRETS / file).write_text(f"{text}\n{lines}", "utf-8")

    return configure


def add_scram_user(stack: Stack) -> None:
    stack.execute(
        "kafka", "/opt/kafka/bin/kafka-configs.sh", "--bootstrap-server", "localhost:9091",
        "--alter", "--entity-type", "users", "--entity-name", USER,
        "--add-config", f"SCRAM-SHA-512=[password={PASSWORD}]",
    )  # fmt: skip


CLIENT = f"""
BROKER_USERNAME={USER}
BROKER_PASSWORD='{PASSWORD}'
BROKER_CA_FILE=/certificates/broker-ca.pem
"""
# As compose.broker.yaml has it, which says why; the listener without TLS has another port here.
KAFKA_ANSWERS = r"""
exec 3<>/dev/tcp/localhost/9091 && printf '\0\0\0\17\0\3\0\4\0\0\0\0\0\0\0\0\0\0\0' >&3
[ -n "$$(head -c 16 <&3 | tail -c 1 | tr -d '\0')" ]
"""
NO_TLS: Refusal = ({"BROKER_TLS": "false", "BROKER_CA_FILE": ""}, "BROKER_TLS")

SECURED = {
    "kafka": Secured(
        # One listener for containers that asks for TLS and a password.
        compose=f"""
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
      KAFKA_SSL_KEYSTORE_LOCATION: /etc/kafka/secrets/both.pem
    volumes: ["./{SECRETS}:/etc/kafka/secrets:ro"]
    healthcheck:
      test: {json.dumps(['CMD', 'bash', '-c', KAFKA_ANSWERS])}
""",
        settings=CLIENT
        + """
BROKER_SECURITY_PROTOCOL=SASL_SSL
BROKER_SASL_MECHANISM=SCRAM-SHA-512
""",
        configure=lambda project: None,
        prepare=add_scram_user,
        refusals=[
            ({"BROKER_SASL_MECHANISM": "SCRAM-SHA-256"}, "BROKER_SASL_MECHANISM"),
            ({"BROKER_SECURITY_PROTOCOL": "SSL", "BROKER_SASL_MECHANISM": "",
              "BROKER_USERNAME": "", "BROKER_PASSWORD": ""}, "BROKER_SECURITY_PROTOCOL"),
        ],
    ),
    "rabbitmq": Secured(
        # Its user is made from the same two variables that the services have.
        compose=f"""
services:
  rabbitmq:
    volumes:
      - ./{SECRETS}/rabbitmq.conf:/etc/rabbitmq/rabbitmq.conf:ro
      - ./{SECRETS}:/etc/rabbitmq/secrets:ro
""",
        settings=f"{CLIENT}\nBROKER_TLS=true\nBROKER_URL=rabbitmq:5671\n",
        configure=appended(
            "rabbitmq.conf",
            """\
listeners.tcp = none
listeners.ssl.default = 5671
ssl_options.certfile = /etc/rabbitmq/secrets/certificate.pem
ssl_options.keyfile = /etc/rabbitmq/secrets/key.pem
""",
        ),
        refusals=[NO_TLS],
    ),
    "nats": Secured(
        compose=f"""
services:
  nats:
    volumes:
      - ./{SECRETS}/nats-server.conf:/etc/nats/nats-server.conf:ro
      - ./{SECRETS}:/etc/nats/secrets:ro
""",
        settings=f"{CLIENT}\nBROKER_TLS=true\n",
        configure=appended(
            "nats-server.conf",
            f"""\
tls {{
  cert_file: /etc/nats/secrets/certificate.pem
  key_file: /etc/nats/secrets/key.pem
}}
authorization {{
  users = [{{user: {USER}, password: "{PASSWORD}"}}]
}}
""",
        ),
        refusals=[
            NO_TLS,
            ({"BROKER_USERNAME": "", "BROKER_PASSWORD": ""}, "BROKER_USERNAME"),
        ],
    ),
}  # fmt: skip
