"""A RabbitMQ for development: one that runs already, or one that is installed.

No package registry has RabbitMQ, so it cannot come with this library.
"""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from ..messages.addresses import Addresses

START_SECONDS = 60.0
DEBIAN = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
"""Debian's program in the PATH is for its system service only."""


class NoRabbit(Exception):
    """RabbitMQ neither runs nor is installed."""


@contextmanager
def embedded_rabbitmq() -> Iterator[str]:
    """Yield the address of a RabbitMQ, "host:port".

    It is that of BROKER_URL, if set. Otherwise it starts the installed `rabbitmq-server` on free
    ports of 127.0.0.1, with its data in a temporary folder.

    Raises:
        NoRabbit: There is neither.
        RuntimeError: The server did not start; with its output.
    """
    if url := os.environ.get("BROKER_URL"):
        yield str(Addresses("rabbitmq", 5672).parse(url)[0])
        return
    with tempfile.TemporaryDirectory(prefix="rabbitmq-") as folder, _ports(3) as ports:
        command, environment = server_command(Path(folder), ports)
        with _running(command, environment, Path(folder), ports[0]):
            yield f"127.0.0.1:{ports[0]}"


def installed() -> Path:
    """The program `rabbitmq-server`. Raises NoRabbit."""
    found = shutil.which("rabbitmq-server")
    if found is None:
        raise NoRabbit(
            "There is no RabbitMQ here: install rabbitmq-server, or start one and set BROKER_URL"
            " (no package registry has it)."
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
        NoRabbit: It is not installed.
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
    register = "epmd & until epmd -names > /dev/null 2>&1; do sleep 0.05; done; "
    command = ["/bin/sh", "-c", f'{register}exec "$0"', str(installed())]
    return command, environment


@contextmanager
def _ports(number: int) -> Iterator[list[int]]:
    """Free ports of 127.0.0.1."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        found = [one.getsockname()[1] for one in sockets]
    yield found


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
