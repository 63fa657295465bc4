"""Runs the baked Collector as a process whose exporters write to files."""

import json
import os
import re
import secrets
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from ports import free_ports
from tools import tool


@dataclass(frozen=True)
class Collector:
    """The baked Collector as a process whose exporters write to files."""

    grpc: str
    url: str
    """Port for OTLP over HTTP."""
    folder: Path
    metrics: str = ""
    """Where it serves its own metrics."""

    def send(self, signal: str, body: dict[str, Any]) -> None:
        """Send OTLP as JSON; raises OSError if it is refused."""
        self.post(signal, json.dumps(body).encode(), "application/json")

    def post(self, signal: str, body: bytes, content_type: str) -> None:
        """Send OTLP; raises OSError if it is refused."""
        request = urllib.request.Request(
            f"{self.url}/v1/{signal}", body, {"Content-Type": content_type}
        )
        urllib.request.urlopen(request, timeout=20).close()

    def send_spans(self, spans: Sequence[dict[str, Any]], **resource: str) -> None:
        scope = {"scopeSpans": [{"spans": spans}], "resource": {"attributes": attributes(resource)}}
        self.send("traces", {"resourceSpans": [scope]})

    def received(self, name: str) -> str:
        """What an exporter has written so far, one JSON document per line."""
        path = self.folder / name
        return path.read_text("utf-8") if path.exists() else ""

    def wait_for(self, name: str, check: Callable[[str], bool]) -> str:
        """Wait until `check` accepts what an exporter has written, and return it."""
        deadline = time.monotonic() + 30
        while not check(written := self.received(name)):
            assert time.monotonic() < deadline, f"{name} after 30 s: {written[-2000:]}"
            time.sleep(0.1)
        return written


def baked_arguments(config: Path, **variables: str) -> list[str]:
    """The Collector's arguments in the Compose file that is baked beside this configuration.

    Args:
        variables: Of Compose, in place of its defaults.
    """
    compose = yaml.safe_load((config.parents[1] / "compose.yaml").read_text("utf-8"))

    def filled_in(argument: str) -> str:
        return re.sub(
            r"\$\{(\w+):-([^}]*)\}", lambda found: variables.get(*found.groups()), argument
        )

    command: list[str] = compose["services"]["otel-collector"]["command"]
    return [filled_in(one).replace("/etc/otelcol", str(config)) for one in command]


@contextmanager
def running(
    project: Path,
    folder: Path,
    sampling: str = "all",
    tls: str = "off",
    auth: str = "none",
    forward: str = "off",
    added: dict[str, Any] | None = None,
    ends: dict[str, str] | None = None,
    debug: str = "off",
    redaction: str = "on",
    configured: tuple[Path, Sequence[str]] | None = None,
    **variables: str,
) -> Iterator[Collector]:
    """Run the baked configuration with other ports, and files as backends.

    Args:
        configured: A folder of configuration and its arguments, if not those of Compose.
        added: A file of configuration more.
        ends: The exporters that `traces`, `metrics` and `logs` end in, if not in a file.
    """
    program = tool("otelcol-contrib", "the Collector masks, samples and counts as it should")
    grpc, http, health, metrics = free_ports(4)
    end_in = {name: f"file/{name}" for name in ("traces", "metrics", "logs")} | (ends or {})
    changed = {
        "receivers": {
            "otlp": {
                "protocols": {
                    "grpc": {"endpoint": f"127.0.0.1:{grpc}"},
                    "http": {"endpoint": f"127.0.0.1:{http}"},
                }
            }
        },
        "connectors": {
            "span_metrics": {"metrics_flush_interval": "500ms"},
            "service_graph": {"metrics_flush_interval": "500ms"},
        },
        "exporters": {
            f"file/{name}": {"path": str(folder / name), "flush_interval": "100ms"}
            for name in ("traces", "metrics", "logs")
        },
        "extensions": {"health_check": {"endpoint": f"127.0.0.1:{health}"}},
        "service": {
            "pipelines": {
                "traces/store": {"exporters": [end_in["traces"]]},
                # Without host_metrics: the queue has no volume of its own here.
                "metrics": {"receivers": ["otlp"], "exporters": [end_in["metrics"]]},
                "metrics/from_spans": {"exporters": [end_in["metrics"]]},
                "logs": {"exporters": [end_in["logs"]]},
            },
            "telemetry": {
                "metrics": {
                    "readers": [
                        {
                            "pull": {
                                "exporter": {"prometheus": {"host": "127.0.0.1", "port": metrics}}
                            }
                        }
                    ]
                }
            },
        },
    }
    for name, part in (("added", added or {}), ("ends", changed)):
        (folder / f"{name}.yaml").write_text(json.dumps(part))  # which is YAML too
    config = project / "observability/otel-collector/config"
    if configured:
        config, given = configured
        arguments = [*given]
    else:
        arguments = baked_arguments(
            config, TRACE_SAMPLING=sampling, OTLP_TLS=tls, OTLP_AUTH=auth, FORWARD=forward,
            REDACTION=redaction, COLLECTOR_DEBUG=debug,
        )  # fmt: skip
    arguments += [f"--config={folder / name}.yaml" for name in ("added", "ends")]
    busybox = shutil.which("busybox") or "env"  # which runs the system's own programs
    own = {
        "COLLECTOR": program,
        "BUSYBOX": busybox,
        "CONFIG_FOLDER": str(config),
        "QUEUE_DIRECTORY": str(folder / "queue"),
    }
    (folder / "queue").mkdir(exist_ok=True)
    with (folder / "output").open("w") as output:
        process = subprocess.Popen(
            [busybox, "sh", str(config / "start.sh"), *arguments],
            env=os.environ | own | variables,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        scheme = "http" if tls == "off" else "https"
        collector = Collector(
            f"{scheme}://127.0.0.1:{grpc}",
            f"{scheme}://127.0.0.1:{http}",
            folder,
            f"http://127.0.0.1:{metrics}/metrics",
        )
        deadline = time.monotonic() + 30
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{health}", timeout=1).close()
                break
            except OSError:
                said = (folder / "output").read_text()
                assert process.poll() is None, said
                assert time.monotonic() < deadline, said
                time.sleep(0.1)
        yield collector
    finally:
        process.terminate()
        process.wait(30)


def attributes(values: dict[str, str]) -> list[dict[str, Any]]:
    return [{"key": key, "value": {"stringValue": value}} for key, value in values.items()]


def span(milliseconds: int = 10, **fields: Any) -> dict[str, Any]:
    """A root span that has just ended; times are in nanoseconds."""
    end = time.time_ns()
    return {
        "traceId": secrets.token_hex(16),
        "spanId": secrets.token_hex(8),
        "name": "process orders",
        "kind": 5,
        "startTimeUnixNano": str(end - milliseconds * 1_000_000),
        "endTimeUnixNano": str(end),
        **fields,
    }
