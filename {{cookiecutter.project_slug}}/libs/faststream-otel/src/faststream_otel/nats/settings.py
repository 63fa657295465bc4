"""Settings of a service that uses NATS, from the environment."""

from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field, SecretStr

from ..settings import Settings

if TYPE_CHECKING:
    from .broker import Nats


class NatsSettings(Settings):
    """Settings of a service that uses NATS. `broker` checks that they fit together."""

    broker_url: str = "localhost:4222"
    """Servers of one cluster: `host:port`, separated by commas."""
    broker_username: str = ""
    broker_password: SecretStr = SecretStr("")
    broker_token: SecretStr = SecretStr("")
    """A token instead of a user name and a password."""
    broker_credentials_file: Path | None = None
    """A user's credentials (JWT and NKey seed) instead of a user name and a password: a `.creds`
    file, as `nsc` writes it."""
    broker_tls: bool = False
    """Whether to encrypt the connection, and to refuse a server that does not."""
    broker_ca_file: Path | None = None
    """PEM file of the certificate authority that signed the broker's certificate. Default: the
    system's authorities."""
    broker_certificate_file: Path | None = None
    """PEM file of the service's own certificate, if the broker requires one."""
    broker_key_file: Path | None = None
    """PEM file of its key, without a password. Default: the certificate's file."""
    broker_replicas: int = Field(default=1, ge=1, le=5)
    """Replicas of each stream that `faststream-otel channels` creates, on as many servers of a
    cluster."""

    def broker(self) -> "Nats":
        from .broker import Nats

        return Nats(self)
