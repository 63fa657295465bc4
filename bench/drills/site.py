"""The stack for drills, and one run of a drill on it."""

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from e2e.stack import Stack, docker
from e2e.stores import STORES
from ports import free_ports

from .ledger import Ground, Ledger

REPLICAS = 2
WATCHDOG_SECONDS = 20
SETTINGS = f"""\
DEPLOYMENT_ENVIRONMENT=drills
# Shorter than the default, to keep the drill short.
WATCHDOG_TIMEOUT_SECONDS={WATCHDOG_SECONDS}
"""
TRIAL = Path(__file__).with_name("trial.py.txt")


@dataclass
class Site(Ground):
    """The running stack, and the options of all drills."""

    stack: Stack
    messages: int = 20_000
    """Messages of the drill `soak`."""
    seed: int | None = None
    """Seed of generated inputs; random by default."""


@dataclass
class Run(Ledger):
    """One run of a drill, and the faults that it brings about."""

    site: Site

    @property
    def stack(self) -> Stack:
        return self.site.stack

    @property
    def forgets_traces(self) -> bool:
        """Whether the trace store keeps its spans in memory only."""
        return bool(self.stack.stand_in or STORES[self.stack.traces].in_memory)

    def stop(self, *services: str, kill: bool = False) -> None:
        """Stop the containers of services in an orderly way, or kill them, without a restart."""
        began = time.time()
        ids = [one["Id"] for service in services for one in self.stack.replicas(service)]
        # By Docker, which then does not restart them, and kills those that SIGTERM does not end.
        docker("kill" if kill else "stop", *ids, timeout=90)
        docker("wait", *ids)
        for service in services:
            self.interrupted(service, began, killed=kill)

    def start(self, *services: str) -> None:
        """Start stopped containers, and wait until they are healthy."""
        for service in services:
            docker("start", *(one["Id"] for one in self.stack.replicas(service)))
        if services:
            self.site.wait_until_healthy(*services)

    @contextmanager
    def without(self, *services: str) -> Iterator[None]:
        """Stop these services; at the end start them, and wait until they are healthy.

        A trace store that keeps its spans in memory is disconnected from its network instead.
        """
        began = time.time()
        cut_off = {self.stack.traces} & {*services} if self.forgets_traces else set()
        stopped = [one for one in services if one not in cut_off]
        for service in cut_off:
            self.stack.disconnect(service, "observability")
        self.stop(*stopped)
        try:
            yield
        finally:
            for service in cut_off:
                self.stack.connect(service, "observability")
            self.start(*stopped)
            for service in services:
                self.interrupted(service, began)

    @contextmanager
    def changed(
        self, service: str, settings: Mapping[str, str] | None = None,
        override: Mapping[str, Any] | None = None,
    ) -> Iterator[None]:  # fmt: skip
        """Recreate a service's container with other settings; at the end restore it.

        Args:
            settings: Variables of .env.
            override: Keys to override in the service's Compose entry.
        """
        env, file = self.stack.folder / ".env", self.stack.folder / "compose.override.yaml"
        before = env.read_text("utf-8")
        self.stack.configure("".join(f"{one}={value}\n" for one, value in (settings or {}).items()))
        if override:
            file.write_text(json.dumps({"services": {service: override}}), "utf-8")
        try:
            self._recreate(service)
            yield
        finally:
            env.write_text(before, "utf-8")
            file.unlink(missing_ok=True)
            self._recreate(service)

    def _recreate(self, service: str) -> None:
        self.stack.compose("up", "--detach", "--no-build", "--no-deps", service, timeout=120)
        self.site.wait_until_healthy(service)


def make(where: Path, rate: float, messages: int, seed: int | None, *, quick: bool) -> Site:
    """Bake the default project, with an additional service for faults that the example lacks."""
    stack = Stack.bake(where, "drills", SETTINGS)
    first = stack.ports["ORDERS_PORT"] = _free_run(REPLICAS)
    stack.configure(f"ORDERS_PORT={first}-{first + REPLICAS - 1}\n")
    add_trial(stack.folder)
    return Site(stack, rate, quick, REPLICAS, messages, seed)


def add_trial(project: Path) -> None:
    """Add the service `trial` to a baked project."""
    (package,) = (project / "src").iterdir()
    (package / "services/trial.py").write_text(TRIAL.read_text("utf-8"), "utf-8")
    _insert(package / "channels.py", "DECLINES, SHIPMENTS)", ', "trial.given", "trial.done")')
    notifications = '  notifications:\n    <<: *service\n    command: ["notifications"]\n'
    trial = notifications.replace("notifications", "trial")
    _insert(project / "compose.yaml", notifications, f"\n{trial}", keep=0)


def _insert(path: Path, after: str, what: str, keep: int = 1) -> None:
    """Insert text after a unique text, and replace its last `keep` characters."""
    text = path.read_text("utf-8")
    assert text.count(after) == 1, f"{path.name} has no longer one {after!r}"
    path.write_text(text.replace(after, after[: len(after) - keep] + what), "utf-8")


def _free_run(count: int) -> int:
    """Return the first of `count` consecutive free ports."""
    while True:
        found = sorted(free_ports(2000))
        for position, first in enumerate(found[: -count + 1]):
            run = found[position : position + count]
            if all(after - before == 1 for before, after in pairwise(run)):
                return first
