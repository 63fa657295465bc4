"""Runs trace stores and Loki as processes, and queries them about a trace."""

import os
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import yaml
from e2e.apis import Loki, Prometheus, Span, Tempo
from e2e.stores import InJaeger
from ports import free_ports
from tools import tool

ON_LOOPBACK = "127.0.0.1"


class Traces(Protocol):
    """Queries of a trace store."""

    def trace(self, trace_id: str) -> list[Span]:
        """Return the spans so far; raises OSError while there are none."""

    def traces_linked_to(self, trace_id: str) -> list[str]:
        """Return the ids of the traces that have a link to this one."""


@dataclass(frozen=True)
class Backend:
    traces: Traces
    grpc: int
    """Its OTLP ports on 127.0.0.1."""
    http: int


@contextmanager
def jaeger(project: Path, folder: Path) -> Iterator[Backend]:
    """Jaeger that keeps traces in memory."""
    program = tool("jaeger", "traces go straight to Jaeger")
    grpc, http, query, query_grpc, health = free_ports(5)
    config = {
        "service": {
            "extensions": ["healthcheckv2", "jaeger_storage", "jaeger_query"],
            "pipelines": {
                "traces": {"receivers": ["otlp"], "exporters": ["jaeger_storage_exporter"]}
            },
            "telemetry": {"metrics": {"level": "none"}},
        },
        "extensions": {
            "healthcheckv2": {
                "use_v2": True,
                "http": {"endpoint": f"{ON_LOOPBACK}:{health}"},
            },
            "jaeger_storage": {"backends": {"memory": {"memory": {"max_traces": 100_000}}}},
            "jaeger_query": {
                "storage": {"traces": "memory"},
                "http": {"endpoint": f"{ON_LOOPBACK}:{query}"},
                "grpc": {"endpoint": f"{ON_LOOPBACK}:{query_grpc}"},
            },
        },
        "receivers": {
            "otlp": {
                "protocols": {
                    "grpc": {"endpoint": f"{ON_LOOPBACK}:{grpc}"},
                    "http": {"endpoint": f"{ON_LOOPBACK}:{http}"},
                }
            }
        },
        "exporters": {"jaeger_storage_exporter": {"trace_storage": "memory"}},
    }
    file = folder / "jaeger.yaml"
    file.write_text(yaml.safe_dump(config))
    ready = f"http://{ON_LOOPBACK}:{query}/api/services"
    with running([program, f"--config={file}"], folder / "jaeger.log", ready):
        yield Backend(InJaeger(f"http://{ON_LOOPBACK}:{query}"), grpc, http)


def on_loopback(http: int, grpc: int) -> dict[str, Any]:
    """Listening settings for the configuration of Tempo and Loki."""
    return {
        "http_listen_address": ON_LOOPBACK,
        "http_listen_port": http,
        "grpc_listen_address": ON_LOOPBACK,
        "grpc_listen_port": grpc,
    }


@contextmanager
def tempo(project: Path, folder: Path) -> Iterator[Backend]:
    """Tempo as baked, with other ports and folders."""
    program = tool("tempo", "traces go straight to Tempo")
    grpc, http, port, internal = free_ports(4)
    config = yaml.safe_load((project / "observability/tempo/tempo.yaml").read_text("utf-8"))
    config["server"] |= on_loopback(port, internal)
    protocols = config["distributor"]["receivers"]["otlp"]["protocols"]
    protocols["grpc"]["endpoint"] = f"{ON_LOOPBACK}:{grpc}"
    protocols["http"]["endpoint"] = f"{ON_LOOPBACK}:{http}"
    text = yaml.safe_dump(config).replace("/var/tempo", str(folder / "tempo"))
    file = folder / "tempo.yaml"
    file.write_text(text)
    url = f"http://{ON_LOOPBACK}:{port}"
    with running([program, f"-config.file={file}"], folder / "tempo.log", f"{url}/ready"):
        yield Backend(Tempo(url), grpc, http)


@contextmanager
def loki(project: Path, folder: Path) -> Iterator[Loki]:
    """Loki as baked, with other ports and folders."""
    program = tool("loki", "log records go straight to Loki")
    port, internal = free_ports(2)
    config = yaml.safe_load((project / "observability/loki/loki.yaml").read_text("utf-8"))
    config["server"] |= on_loopback(port, internal)
    config["frontend"] = {"address": ON_LOOPBACK}  # where the querier sends results
    text = yaml.safe_dump(config).replace("/loki", str(folder / "loki"))
    file = folder / "loki.yaml"
    file.write_text(text)
    url = f"http://{ON_LOOPBACK}:{port}"
    with running([program, f"-config.file={file}"], folder / "loki.log", f"{url}/ready"):
        yield Loki(url)


@contextmanager
def prometheus(project: Path, folder: Path) -> Iterator[Prometheus]:
    """Prometheus as baked, with another port and folder, and nothing to scrape or to evaluate."""
    program = tool("prometheus", "what others send is kept")
    (port,) = free_ports(1)
    config = yaml.safe_load(
        (project / "observability/prometheus/prometheus.yaml").read_text("utf-8")
    )
    file = folder / "prometheus.yaml"
    file.write_text(yaml.safe_dump({"storage": config["storage"]}))
    services = yaml.safe_load((project / "observability/compose.yaml").read_text("utf-8"))[
        "services"
    ]
    own = ("--config.file", "--storage.tsdb.path", "--web.external-url")
    baked = [one for one in services["prometheus"]["command"] if not one.startswith(own)]
    url = f"http://{ON_LOOPBACK}:{port}"
    command = [
        program, *baked, f"--config.file={file}", f"--storage.tsdb.path={folder / 'prometheus'}",
        f"--web.listen-address={ON_LOOPBACK}:{port}",
    ]  # fmt: skip
    with running(command, folder / "prometheus.log", f"{url}/-/ready"):
        yield Prometheus(url)


BACKENDS: dict[str, Callable[[Path, Path], AbstractContextManager[Backend]]] = {
    "tempo": tempo,
    "jaeger": jaeger,
}
"""Each takes the baked project and a folder of its own."""


@contextmanager
def running(command: list[str], log: Path, ready: str) -> Iterator[None]:
    """Run a program inside the `with` block, and wait until this address answers."""
    with log.open("w") as output:
        process = subprocess.Popen(
            command, cwd=log.parent, env=os.environ, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(ready, timeout=2).close()
                break
            except OSError:
                said = log.read_text()
                assert process.poll() is None, said
                assert time.monotonic() < deadline, said
                time.sleep(0.2)
        yield
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:  # Tempo, once it was queried
            process.kill()
            process.wait()
