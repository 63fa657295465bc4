"""A NATS server with a configuration and a folder of the test's choice."""

import shutil
import socket
import subprocess
import sysconfig
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..ports import free_port


@contextmanager
def nats_server(folder: Path, configuration: str = "", port: int = 0) -> Iterator[str]:
    """Serve what is in the folder, and yield the address. It ends as by `kill -9`."""
    program = shutil.which("nats-server", path=sysconfig.get_path("scripts"))
    assert program
    port = port or free_port()
    path, log = folder / "server.conf", folder / "server.log"
    path.write_text(
        f'listen: "127.0.0.1:{port}"\njetstream {{ store_dir: "{folder}" }}\n{configuration}'
    )
    with log.open("w") as output:
        server = subprocess.Popen([program, "--config", path], stdout=output, stderr=output)
    try:
        ends = time.monotonic() + 10
        while True:
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < ends, log.read_text()
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            time.sleep(0.05)
        yield f"127.0.0.1:{port}"
    finally:
        server.kill()
        server.wait()
