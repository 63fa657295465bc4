"""The baked project under Docker Compose: a project name, ports and images of its own."""

import json
import re
import secrets
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matrix import TEMPLATE
from ports import free_ports

from . import tempo_stand_in
from .baked import PORTS, Baked, bake, clean_environment, port_of, run
from .brokers import chosen_broker
from .stores import chosen

SETTINGS = """\
DEPLOYMENT_ENVIRONMENT=e2e
# So short that an outage of seconds fills them. That of spans holds what a drill makes at once.
OTEL_BSP_MAX_QUEUE_SIZE=1500
OTEL_BLRP_MAX_QUEUE_SIZE=600
TRACE_QUEUE_SIZE=100000
# And so short that what is given up is counted soon.
OTEL_EXPORTER_OTLP_TIMEOUT=10000
"""

# Zipkin keeps 100,000 spans in memory: what fills this queue must not push out the orders.
FOR_ZIPKIN = "TRACE_QUEUE_SIZE=40000\n"

UP_SECONDS = 300
COMMAND_SECONDS = 900

OPTIONAL = {
    "grafana": "that Grafana starts, and that its data sources and their links work",
    "tempo": "that Tempo reads its configuration, stores traces and finds them (an OTLP receiver"
    " took its place)",
}
"""Services that the others run without, and what remains unproved without them."""


COLLECTOR_IMAGE = TEMPLATE / "{{cookiecutter.project_slug}}/observability/otel-collector/Dockerfile"
ONLOOKER = re.findall(r"^FROM (busybox:\S+)", COLLECTOR_IMAGE.read_text("utf-8"), re.MULTILINE)[0]
"""At hand, since the Collector's image is built with it."""
LOOK = """
for folder in /proc/[0-9]*; do
    [ $folder = /proc/$$ ] && continue
    while read -r key value; do echo "$folder $key $value"; done < $folder/status
done
for place in / /etc /usr /var /opt; do
    [ -d /proc/1/root$place ] || continue
    (: > /proc/1/root$place/written-by-a-test) 2>/dev/null && echo "written $place ."
done
:
"""


@dataclass(frozen=True)
class Inside:
    """What runs in a container, and where a new file could be put."""

    processes: dict[str, dict[str, str]]
    """What the kernel says of each in /proc/<pid>/status."""
    written: str


@dataclass
class Stack(Baked):
    @classmethod
    def bake(
        cls, where: Path, kind: str = "e2e", settings: str = "", traces: str = "", broker: str = ""
    ) -> "Stack":
        """Bake the default project below `where`, with free ports in its .env.

        Args:
            kind: What the Compose project's name begins with.
            settings: Lines of .env over and above the ports; by default those of the tests here.
            traces: Its trace backend; the one that the variable TRACES names by default.
            broker: Its message broker; the one that the variable BROKER names by default.
        """
        traces, broker = traces or chosen(), broker or chosen_broker()
        settings = settings or SETTINGS + (FOR_ZIPKIN if traces == "zipkin" else "")
        folder = bake(where, trace_backend=traces, broker=broker)
        names = [*PORTS, port_of(broker), port_of(traces)]
        ports = dict(zip(names, free_ports(len(names)), strict=True))
        # The last mention of a variable counts; the password stays the one that baking made.
        project = f"{kind}-{secrets.token_hex(4)}"
        stack = cls(folder, project, ports, traces=traces, broker=broker)
        stack.configure("".join(f"{name}={port}\n" for name, port in ports.items()) + settings)
        return stack

    def image(self, service: str) -> str:
        """Return the name of the image that a service runs."""
        return str(self._config()["services"][service]["image"])

    def configure(self, settings: str) -> None:
        """Add lines to .env; containers that they concern must be made anew."""
        with (self.folder / ".env").open("a") as env:
            env.write(f"\n{settings}")

    def prepare_images(self) -> list[str]:
        unproved = []
        self.compose("build", timeout=COMMAND_SECONDS)
        for name, service in self._config()["services"].items():
            image = service.get("image", "")  # none where Compose names what it builds
            if not image or is_at_hand(image):
                self.services.append(name)
            else:
                assert name in OPTIONAL, f"the image {image} is neither here nor can it be pulled"
                unproved.append(f"{image} is missing: {OPTIONAL[name]}")
                if name == "tempo":
                    self.stand_in = image
                    self.services.append(name)
        if self.stand_in:
            tempo_stand_in.build(self.stand_in, f"{self.project}:local")
        return unproved

    @contextmanager
    def with_images(self) -> Iterator[None]:
        """Prepare the images; at the end remove everything.

        What the containers said last is printed first if something failed.
        """
        try:
            self.prepare_images()
            yield
        except AssertionError:
            print(self.last_logs())
            raise
        finally:
            self.down()

    def up(self) -> None:
        self._up(*self.services)

    def start(self, service: str) -> None:
        """Start a stopped service again."""
        self.compose("start", service)

    def execute(self, service: str, *command: str) -> str:
        """Run a command in a service's container; return its output."""
        return self.compose("exec", "--no-TTY", service, *command)

    def run_once(self, service: str, **environment: str) -> tuple[int, str]:
        """Run a service in a container of its own until it ends; return exit code and output."""
        variables = (f"--env={name}={value}" for name, value in environment.items())
        done = subprocess.run(
            ["docker", "compose", "--progress", "quiet", "-p", self.project,
             "run", "--rm", "--no-deps", "--no-TTY", *variables, service],
            cwd=self.folder, timeout=120, env=clean_environment(), capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr

    @contextmanager
    def running_beside(self, service: str, **environment: str) -> Iterator[Callable[[], str]]:
        """Run a service in a container of its own, while this is open; give its output so far."""
        variables = (f"--env={name}={value}" for name, value in environment.items())
        one = self.compose("run", "--detach", "--no-deps", *variables, service).strip()
        try:
            yield lambda: docker("logs", one, errors=True)
        finally:
            docker("rm", "--force", one)

    @contextmanager
    def without(self, *services: str) -> Iterator[None]:
        """Stop these services; start them again at the end, and wait until they are healthy."""
        self.compose("stop", *services, timeout=120)
        try:
            yield
        finally:
            self._up(*services)

    def tool(self, *arguments: str) -> str:
        """Run a command of the image beside the services; return what it prints."""
        return self.compose("run", "--rm", "--no-deps", "-T", "tools", *arguments, timeout=120)

    def restart(self, *services: str) -> None:
        """Restart containers and wait until they are healthy."""
        self.compose("restart", *services, timeout=300)
        self._up(*services)

    def scale(self, service: str, replicas: int) -> None:
        """Run so many replicas of a service, all healthy."""
        self._up("--scale", f"{service}={replicas}", service)

    def disconnect(self, service: str, network: str) -> None:
        """Cut a service off one of the project's networks; its memory stays as it is."""
        for one in self.replicas(service):
            docker("network", "disconnect", f"{self.project}_{network}", one["Id"])

    def connect(self, service: str, network: str) -> None:
        """Connect it again, under the name that the others know it by."""
        for one in self.replicas(service):
            docker("network", "connect", "--alias", service, f"{self.project}_{network}", one["Id"])

    def memory(self) -> dict[str, int]:
        """Return the bytes of memory in use, by service."""
        names = {one["Id"][:12]: service for service, one in self.containers().items()}
        lines = run(["docker", "stats", "--no-stream", "--format", "{{.ID}} {{.MemUsage}}"])
        used = (line.split()[:2] for line in lines.splitlines())
        return {names[identity]: _bytes(size) for identity, size in used if identity in names}

    def stop(self) -> None:
        """Stop all containers, each within its grace period."""
        self.compose("stop", timeout=300)

    def down(self) -> None:
        """Remove all that this stack has made: containers, volumes, networks, images."""
        self.compose("down", "--volumes", "--remove-orphans", "--rmi", "local", timeout=300)
        # `local` spares images that have a name of their own, such as the services'.
        subprocess.run(
            ["docker", "image", "rm", f"{self.project}:local"], capture_output=True, check=False
        )
        if self.stand_in:
            tempo_stand_in.remove(self.stand_in)

    def containers(self) -> dict[str, dict[str, Any]]:
        """Return what Docker says of each container, by service."""
        ids = self.compose("ps", "--all", "--quiet").split()
        inspected = json.loads(run(["docker", "inspect", *ids]))
        return {one["Config"]["Labels"]["com.docker.compose.service"]: one for one in inspected}

    def replicas(self, service: str) -> list[dict[str, Any]]:
        """Return what Docker says of each of a service's containers."""
        ids = self.compose("ps", "--all", "--quiet", service).split()
        return list(json.loads(docker("inspect", *ids))) if ids else []

    def is_well(self, service: str) -> bool:
        return all(_is_well(one) for one in self.replicas(service))

    def running(self) -> list[str]:
        return [name for name, one in self.containers().items() if one["State"]["Running"]]

    def process_users(self, service: str) -> set[str]:
        """Return the users that the service's processes run as."""
        container = self.containers()[service]["Id"]
        lines = run(["docker", "top", container, "-eo", "uid,pid"]).splitlines()
        return {line.split()[0] for line in lines[1:]}

    def look_inside(self, service: str) -> "Inside":
        """Look at what runs in a service's container as root, which sees through its mounts."""
        printed = run(
            ["docker", "run", "--rm", "--network", "none", "--cap-add", "SYS_PTRACE",
             "--pid", f"container:{self.containers()[service]['Id']}", ONLOOKER, "sh", "-c", LOOK],
        )  # fmt: skip
        statuses: dict[str, dict[str, str]] = {}
        written = ""
        for line in printed.splitlines():
            process, key, value = line.split(maxsplit=2)
            if process == "written":
                written += f"{key} "
            else:
                statuses.setdefault(process, {})[key.rstrip(":")] = value
        return Inside(statuses, written)

    def try_config(self, **environment: str) -> str:
        """Return what Compose has to say against the project in this environment, if anything."""
        result = subprocess.run(
            ["docker", "compose", "config", "--quiet"],
            cwd=self.folder, env=clean_environment() | environment, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        return result.stderr if result.returncode else ""

    def last_logs(self, since: float | None = None) -> str:
        """What state the containers are in, and what they said: last, or since then (Unix s)."""
        how = ["--tail", "40"] if since is None else ["--since", str(int(since))]
        return self.compose("ps", "--all") + self.compose(
            "logs", "--no-color", "--timestamps", *how, timeout=120
        )

    def _up(self, *arguments: str) -> None:
        self.compose(
            "up", "--detach", "--wait", "--wait-timeout", str(UP_SECONDS), "--no-build",
            "--no-recreate", *arguments, timeout=UP_SECONDS + 60,
        )  # fmt: skip

    def _config(self) -> Any:
        return json.loads(self.compose("config", "--format", "json"))

    def compose(self, *arguments: str, timeout: float = 60) -> str:
        """Run a command of Compose on this project and return its output."""
        return run(
            ["docker", "compose", "--progress", "quiet", "-p", self.project, *arguments],
            cwd=self.folder, timeout=timeout,
        )  # fmt: skip


def docker(*arguments: str, timeout: float = 60, errors: bool = False) -> str:
    """Return what a command of Docker prints, with what it says on standard error if asked for.

    Raises:
        AssertionError: It failed; the end of what it said is in the message.
    """
    return run(["docker", *arguments], timeout=timeout, errors=errors)


def is_at_hand(image: str) -> bool:
    """Tell whether the real image is here, pulling it if need be."""
    tempo_stand_in.remove(image)  # left over from a run that was killed
    quiet = {"capture_output": True, "check": False}
    return any(
        subprocess.run(["docker", *command, image], **quiet).returncode == 0  # type: ignore[call-overload]
        for command in (["image", "inspect"], ["pull"])
    )


def _is_well(container: dict[str, Any]) -> bool:
    state = container["State"]
    health = state.get("Health", {}).get("Status", "healthy")
    return bool(state["Running"] and not state["Restarting"] and health == "healthy")


def _bytes(size: str) -> int:
    """Read what Docker writes as, say, 12.5MiB."""
    for unit, factor in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10), ("B", 1)):
        if size.endswith(unit):
            return round(float(size.removesuffix(unit)) * factor)
    raise ValueError(size)
