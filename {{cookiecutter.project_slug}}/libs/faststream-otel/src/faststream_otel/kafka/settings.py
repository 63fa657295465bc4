"""Settings of a service that uses Kafka, from the environment."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import SecretStr

from ..settings import Settings

if TYPE_CHECKING:
    from .broker import Kafka


class KafkaSettings(Settings):
    """Settings of a service that uses Kafka. `broker` checks that they fit together."""

    broker_url: str = "localhost:9092"
    """Bootstrap servers: `host:port`, separated by commas."""
    broker_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = (
        "PLAINTEXT"
    )
    broker_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = None
    broker_username: str = ""
    broker_password: SecretStr = SecretStr("")
    broker_ca_file: Path | None = None
    """PEM file of the certificate authority that signed the broker's certificate. Default: the
    system's authorities."""
    broker_certificate_file: Path | None = None
    """PEM file of the service's own certificate, if the broker requires one."""
    broker_key_file: Path | None = None
    """PEM file of its key, without a password. Default: the certificate's file."""

    def broker(self) -> "Kafka":
        from .broker import Kafka

        return Kafka(self)
