"""What containers used, by the engine's own counters: nothing here is a sample of a moment."""

import http.client
import json
import os
import re
import socket
import time
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SOCKET = "unix:///var/run/docker.sock"
TIMEOUT_SECONDS = 30
SERVICE = "com.docker.compose.service"
PROJECT = "com.docker.compose.project"


class NoEngine(Exception):
    """The engine's socket is not here. Says what to do."""


@dataclass(frozen=True)
class Reading:
    """What the containers of a project have used so far.

    Attributes:
        at: Seconds of a clock that only runs forward.
        cpu: CPU seconds since each container started, by service, of all its replicas.
        memory: Bytes in use without files that can be read again, of all replicas.
        machine: CPU seconds of everything on the machine; None where the kernel does not tell.
    """

    at: float
    cpu: Mapping[str, float]
    memory: Mapping[str, int]
    machine: float | None


@dataclass(frozen=True)
class Used:
    """What was used between two readings of the same containers."""

    seconds: float
    cpu: Mapping[str, float]
    elsewhere: float | None
    """Cores that everything else on the machine used: the load's sender, and other work."""


def read(project: str) -> Reading:
    """Read all running containers of a Compose project."""
    cpu: dict[str, float] = {}
    memory: dict[str, int] = {}
    for one in containers(project):
        told = ask(f"/containers/{one['Id']}/stats?stream=false&one-shot=true")
        service = one["Labels"][SERVICE]
        used = told["cpu_stats"]["cpu_usage"]["total_usage"] / 1e9
        cpu[service] = cpu.get(service, 0) + used
        memory[service] = memory.get(service, 0) + in_use(told["memory_stats"])
    return Reading(time.monotonic(), cpu, memory, machine_seconds())


def between(before: Reading, after: Reading) -> Used:
    seconds = after.at - before.at
    cpu = {name: used - before.cpu.get(name, 0) for name, used in after.cpu.items()}
    elsewhere = None
    if before.machine is not None and after.machine is not None:
        elsewhere = (after.machine - before.machine - sum(cpu.values())) / seconds
    return Used(seconds, cpu, elsewhere)


def containers(project: str) -> list[dict[str, Any]]:
    """The running containers of a project, as the engine lists them."""
    wanted = urllib.parse.quote(json.dumps({"label": [f"{PROJECT}={project}"]}))
    return list(ask(f"/containers/json?filters={wanted}"))


def in_use(memory: Mapping[str, Any]) -> int:
    """As `docker stats` counts: without pages of files that are not active.

    Args:
        memory: `memory_stats` of the engine; its names depend on the version of cgroups.
    """
    details = memory.get("stats", {})
    idle = details.get("total_inactive_file", details.get("inactive_file", 0))
    return int(memory["usage"] - idle)


def machine_seconds() -> float | None:
    """CPU seconds of all cores since the start, but for those that were idle."""
    path = Path("/proc/stat")
    if not path.exists():
        return None
    user, nice, system, _, _, *interrupts = map(int, path.read_text().split("\n")[0].split()[1:8])
    return (user + nice + system + sum(interrupts)) / os.sysconf("SC_CLK_TCK")


def ask(path: str) -> Any:
    """Return what the engine answers to a GET.

    Raises:
        NoEngine: It has no socket here.
    """
    connection = _Connection(os.environ.get("DOCKER_HOST") or SOCKET)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        text = answer.read().decode()
    finally:
        connection.close()
    if answer.status != 200:
        raise OSError(f"the engine answers {answer.status} to {path}: {text[:300]}")
    return json.loads(text)


class _Connection(http.client.HTTPConnection):
    def __init__(self, address: str) -> None:
        super().__init__("localhost", timeout=TIMEOUT_SECONDS)
        self._address = address

    def connect(self) -> None:
        scheme, _, path = self._address.partition("://")
        if scheme != "unix":
            raise NoEngine(
                f"DOCKER_HOST is {self._address}; to read CPU time, it must be a socket of this"
                f" machine, such as {SOCKET}"
            )
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(TIMEOUT_SECONDS)
        try:
            self.sock.connect(path)
        except OSError as error:
            raise NoEngine(
                f"no engine answers at {path}: start Docker, or set DOCKER_HOST={SOCKET}"
            ) from error


def samples(text: str) -> dict[str, float]:
    """The samples of a page of Prometheus metrics, summed up by their names."""
    found: dict[str, float] = {}
    for name, value in re.findall(r"^(\w+)(?:\{.*\})? (\S+)", text, re.MULTILINE):
        found[name] = found.get(name, 0) + float(value)
    return found
