"""A RabbitMQ for development: one that runs already, or one that is installed.

No package registry has RabbitMQ, so it cannot come with this library.
"""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from .settings import RabbitSettings

USES_BROKER_URL = True
"""A broker of BROKER_URL is used in place of an embedded one."""
START_SECONDS = 60.0
DEBIAN = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
"""Debian's program in the PATH is for its system service only."""


@contextmanager
def embedded_rabbitmq(channels: Collection[str] = ()) -> Iterator[str]:
    """Yield the address of a RabbitMQ, "host:port".

    It is that of BROKER_URL, if set. Otherwise it starts the installed `rabbitmq-server` on free
    ports of 127.0.0.1, with its data in a temporary folder.

    Args:
        channels: Channels to create at once, and with them that of the dead letters. Services
            create their queues when they start.

    Raises:
        BadSetting, Unreachable: BROKER_URL is set, and cannot be read or does not answer.
        FileNotFoundError: There is neither.
        RuntimeError: The server did not start; with its output.
    """
    if os.environ.get("BROKER_URL"):
        with _created(RabbitSettings(), channels) as address:
            yield address
        return
    with _folder() as folder:
        ports = _ports(3)
        command, environment = server_command(folder, ports)
        with _running(command, environment, folder, ports[0]):
            settings = RabbitSettings.model_construct(broker_url=f"127.0.0.1:{ports[0]}")
            with _created(settings, channels) as address:
                yield address


@contextmanager
def _created(settings: RabbitSettings, channels: Collection[str]) -> Iterator[str]:
    broker = settings.broker()
    if channels:
        asyncio.run(broker.create_channels(channels))
    yield broker.url


@contextmanager
def _folder() -> Iterator[Path]:
    # A server that was just killed may still write.
    with tempfile.TemporaryDirectory(prefix="rabbitmq-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def installed() -> Path:
    """The program `rabbitmq-server`. Raises FileNotFoundError."""
    found = shutil.which("rabbitmq-server")
    if found is None:
        raise FileNotFoundError(
            "rabbitmq-server is missing, and no Python package has it: install RabbitMQ, or start"
            " a server elsewhere and set BROKER_URL, for example BROKER_URL=localhost:5672"
        )
    return DEBIAN if DEBIAN.exists() else Path(found)


def server_command(
    folder: Path, ports: Sequence[int], configuration: str = ""
) -> tuple[list[str], Mapping[str, str]]:
    """The command of a server that keeps everything in a folder, and its environment variables.

    The command stays in the foreground. All its processes are in its group.

    Args:
        ports: Three: for its clients, and two of its own.
        configuration: Lines of rabbitmq.conf in place of the plain listener.

    Raises:
        FileNotFoundError: It is not installed.
    """
    client, distribution, epmd = ports
    (folder / "rabbitmq.conf").write_text(
        (configuration or f"listeners.tcp.1 = 127.0.0.1:{client}") + "\n", encoding="utf-8"
    )
    (folder / "plugins").write_text("[].\n", encoding="utf-8")
    environment = {
        "HOME": str(folder),  # for Erlang's cookie
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "ERL_EPMD_PORT": str(epmd),
        "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
        "RABBITMQ_DIST_PORT": str(distribution),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
        "RABBITMQ_LOG_BASE": str(folder / "log"),
        "RABBITMQ_MNESIA_BASE": str(folder / "data"),
        "RABBITMQ_NODENAME": f"rabbit{client}@localhost",
        "RABBITMQ_PID_FILE": str(folder / "pid"),
    }
    # By itself the server starts epmd, Erlang's register of names, as a daemon that outlives it.
    register = (
        "if command -v epmd > /dev/null; then epmd &"
        " until epmd -names > /dev/null 2>&1; do sleep 0.05; done; fi; "
    )
    command = ["/bin/sh", "-c", f'{register}exec "$0"', str(installed())]
    return command, environment


def _ports(number: int) -> list[int]:
    """Free ports of 127.0.0.1."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@contextmanager
def _running(
    command: Sequence[str], environment: Mapping[str, str], folder: Path, port: int
) -> Iterator[None]:
    log = folder / "output"
    with log.open("w", encoding="utf-8") as output:
        # A group of its own: Ctrl-C must not end it before the services.
        server = subprocess.Popen(
            command, env=os.environ | environment, stdout=output, stderr=output,
            start_new_session=True,
        )  # fmt: skip
    try:
        ends = time.monotonic() + START_SECONDS
        while not _accepts(port):
            if server.poll() is not None or time.monotonic() > ends:
                raise RuntimeError(f"rabbitmq-server did not start:\n{log.read_text('utf-8')}")
            time.sleep(0.1)
        yield
    finally:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)  # its data is temporary
        server.wait()


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
