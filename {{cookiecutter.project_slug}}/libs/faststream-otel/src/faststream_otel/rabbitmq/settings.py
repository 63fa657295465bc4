"""Settings of a service that uses RabbitMQ, from the environment."""

from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import SecretStr

from ..settings import Settings

if TYPE_CHECKING:
    from .broker import Rabbit


class RabbitSettings(Settings):
    """Settings of a service that uses RabbitMQ. `broker` checks that they fit together."""

    broker_url: str = "localhost:5672"
    """One server, `host:port`. Of a cluster: one node, or its load balancer. Default port: 5672, or
    5671 with TLS."""
    broker_virtual_host: str = "/"
    broker_username: str = ""
    """Default: `guest`, which RabbitMQ accepts from its own host only."""
    broker_password: SecretStr = SecretStr("")
    broker_tls: bool = False
    broker_ca_file: Path | None = None
    """PEM file of the certificate authority that signed the broker's certificate. Default: the
    system's authorities."""
    broker_certificate_file: Path | None = None
    """PEM file of the service's own certificate, if the broker requires one."""
    broker_key_file: Path | None = None
    """PEM file of its key, without a password. Default: the certificate's file."""
    broker_metrics_url: str = ""
    """URL of RabbitMQ's plugin `rabbitmq_prometheus`, for lag: it tells how many messages are in
    flight. Of a cluster: the URLs of all nodes, separated by commas. Default: unknown."""

    def broker(self) -> "Rabbit":
        from .broker import Rabbit

        return Rabbit(self)
