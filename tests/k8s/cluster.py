"""The baked project in the cluster of the current context, in a namespace of its own."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from e2e import tempo_stand_in
from e2e.baked import Baked, bake, run
from e2e.brokers import chosen_broker
from e2e.poll import poll_until
from e2e.stack import COMMAND_SECONDS, OPTIONAL, docker, is_at_hand
from e2e.stores import chosen
from matrix import OPTIONS, QUESTIONS
from ports import free_ports

from .forward import Forward

NAME = "k8s-e2e"
"""Of the project, its images and its namespace: always the same, so that builds are cached."""

FORWARDED = {"GRAFANA_PORT": ("grafana", 3000), "PROMETHEUS_PORT": ("prometheus", 9090),
             "LOKI_PORT": ("loki", 3100)}  # fmt: skip

LISTENER = 9094
"""Kafka's for the tests: each node must be reached under an address that it knows of."""

KAFKA_NODES = 3

OVERLAY = "deploy/kubernetes/overlays/local"
IMAGES = {
    NAME,
    *(f"{NAME}-{one}" for one in ("otel-collector", *OPTIONS["trace_backend"], *OPTIONS["broker"])),
}
"""Those that `make k8s-up` may build."""

NODE_PORT = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "orders-outside"},
    "spec": {
        "type": "NodePort",
        "selector": {"app.kubernetes.io/name": "orders"},
        "ports": [{"port": 8000, "targetPort": "http"}],
    },
}

READY_SECONDS = 180.0
GONE_SECONDS = 120.0

Object = dict[str, Any]
"""As the API server tells it."""


@dataclass
class Cluster(Baked):
    _open: ExitStack = field(default_factory=ExitStack)
    _node: str = ""

    @classmethod
    def bake(cls, where: Path) -> "Cluster":
        """Bake the default project for Kubernetes, but for what TRACES and BROKER name."""
        traces, broker = chosen(), chosen_broker()
        folder = bake(
            where, project_name=NAME, deployment=OPTIONS["deployment"][1], trace_backend=traces,
            broker=broker,
        )  # fmt: skip
        return cls(folder, NAME, {}, traces=traces, broker=broker)

    # --- All of it

    def prepare_images(self) -> list[str]:
        """Where nodes don't pull: let a stand-in be Tempo if need be, and do without Grafana."""
        self._open.callback(self._remove_images)
        unproved = []
        for name, image in self._images().items() if os.environ.get("K8S_LOAD") else ():
            if image.startswith(NAME) or is_at_hand(image):
                continue
            assert name in OPTIONAL, f"the image {image} is neither here nor can it be pulled"
            unproved.append(f"{image} is missing: {OPTIONAL[name]}")
            if name == "grafana":
                self._change_overlay(lambda overlay: overlay["resources"].remove("grafana.yaml"))
            else:
                base = f"{NAME}:local"
                docker("build", "--quiet", "--tag", base, str(self.folder), timeout=COMMAND_SECONDS)
                tempo_stand_in.build(image, base)
                self.stand_in = image
        return unproved

    def up(self) -> None:
        """Run `make k8s-up`, and open ports.

        Raises:
            AssertionError: It failed, or the namespace is there already.
        """
        assert not self.kubectl("get", "namespace", NAME, "--ignore-not-found"), (
            f"the namespace {NAME} is there already. Unless a run is at work in it:"
            f" kubectl delete namespace {NAME}"
        )
        first = self._add_listeners() if self.broker == "kafka" else 0
        self._open.callback(self._make, "k8s-down")
        self._make("k8s-up")
        self.services = list(self.workloads())
        self._open_ports(first)

    def down(self) -> None:
        self._open.close()

    def last_logs(self) -> str:
        said = (
            "logs --all-containers --prefix --tail=30 --max-log-requests=50 --ignore-errors"
            f" --selector=app.kubernetes.io/part-of={NAME}"
        )
        events = "get events --field-selector=type=Warning --sort-by=.lastTimestamp"
        return "".join(
            self.kubectl(*command.split(), timeout=120)
            for command in ("get pods --output=wide", events, said)
        )

    # --- Its objects

    def kubectl(self, *arguments: str, timeout: float = 60, text: str | None = None) -> str:
        """Return what a command prints, in the project's namespace.

        Args:
            text: What it reads on standard input.

        Raises:
            AssertionError: It failed; the end of what it said is in the message.
        """
        return run([*self._kubectl(), *arguments], timeout=timeout, text=text)

    def get(self, *arguments: str) -> list[Object]:
        """Return the objects that `kubectl get` finds."""
        found: list[Object] = json.loads(self.kubectl("get", *arguments, "--output=json"))["items"]
        return found

    def apply(self, *objects: Object, dry_run: bool = False) -> None:
        """Apply objects; with `dry_run` only ask whether the API server would take them."""
        many = {"apiVersion": "v1", "kind": "List", "items": objects}
        how = ["--dry-run=server"] if dry_run else []
        self.kubectl("apply", *how, "--filename=-", text=json.dumps(many))

    def pod_like(
        self, service: str, name: str, labels: dict[str, str], command: list[str]
    ) -> Object:
        """Return a pod that is confined as a service's, but for its labels, and runs a command."""
        spec = self.workloads()[service]["spec"]["template"]["spec"]
        (container,) = spec["containers"]
        kept = ("name", "image", "imagePullPolicy", "securityContext")
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "labels": labels},
            "spec": {
                "securityContext": spec["securityContext"],
                "automountServiceAccountToken": False,
                "containers": [{key: container[key] for key in kept} | {"command": command}],
            },
        }

    def workloads(self) -> dict[str, Object]:
        """Return each Deployment and StatefulSet by its name."""
        return {one["metadata"]["name"]: one for one in self.get("deployments,statefulsets")}

    def workload(self, name: str) -> str:
        """Return a Deployment or StatefulSet as kubectl takes it."""
        return f"{self.workloads()[name]['kind'].lower()}/{name}"

    def pods(self, service: str) -> list[Object]:
        """Return a service's pods, but for those that end."""
        found = self.get("pods", f"--selector=app.kubernetes.io/name={service}")
        return [one for one in found if "deletionTimestamp" not in one["metadata"]]

    def is_well(self, service: str) -> bool:
        one = self.workloads()[service]
        wanted, status = one["spec"]["replicas"], one["status"]
        is_seen = status.get("observedGeneration", 0) >= one["metadata"]["generation"]
        counts = (status.get(key, 0) for key in ("replicas", "updatedReplicas", "readyReplicas"))
        return is_seen and all(count == wanted for count in counts)

    def wait_until_well(self, *services: str) -> None:
        poll_until(
            lambda: all(map(self.is_well, services)),
            f"{', '.join(services)} to be ready",
            READY_SECONDS,
        )

    def ready_pods(self, service: str) -> set[str]:
        """Return the uids of a service's pods that are ready, each with its restarts."""
        statuses = {
            pod["metadata"]["uid"]: pod["status"].get("containerStatuses", ())
            for pod in self.pods(service)
        }
        return {
            f"{uid} restarted {one['restartCount']} times"
            for uid, containers in statuses.items()
            for one in containers
            if one["ready"]
        }

    def volume_of(self, pod: str) -> str:
        """Return the volume that the first claim of a pod is bound to."""
        (one,) = self.get("pods", f"--field-selector=metadata.name={pod}")
        claims = (volume.get("persistentVolumeClaim") for volume in one["spec"]["volumes"])
        name = next(claim["claimName"] for claim in claims if claim)
        (claim,) = self.get("persistentvolumeclaims", f"--field-selector=metadata.name={name}")
        return str(claim["spec"]["volumeName"])

    def wait_until_ended(self, *services: str) -> None:
        """Wait until none of these services' pods is about to end."""
        poll_until(
            lambda: all(len(self._any(name)) == len(self.pods(name)) for name in services),
            f"pods of {', '.join(services)} to end",
            GONE_SECONDS,
        )

    def execute(self, service: str, *command: str) -> str:
        return self.kubectl("exec", self.workload(service), "--", *command)

    def image(self, service: str) -> str:
        """Return the name of the image that a service runs."""
        template = self.workloads()[service]["spec"]["template"]
        return str(template["spec"]["containers"][0]["image"])

    # --- Faults

    def scale(self, service: str, replicas: int) -> None:
        """Run so many replicas, and wait for them."""
        self.kubectl("scale", self.workload(service), f"--replicas={replicas}")
        self.wait_until_well(service)

    def kill(self, pod: str) -> None:
        """Kill a pod without its grace period; do not wait for the next one."""
        self.kubectl("delete", "pod", pod, "--grace-period=0", "--force")

    @contextmanager
    def without(self, *services: str) -> Iterator[None]:
        """Run no replica of these services; at the end as many as before."""
        before = {name: self.workloads()[name]["spec"]["replicas"] for name in services}
        for name in services:
            self.scale(name, 0)
            poll_until(lambda name=name: not self._any(name), f"{name} to end", GONE_SECONDS)  # type: ignore[misc]
        try:
            yield
        finally:
            for name in services:
                self.scale(name, before[name])

    @contextmanager
    def without_policy(self, name: str) -> Iterator[None]:
        """Do without what a NetworkPolicy allows: its pods run on, and nobody new reaches them."""
        (policy,) = self.get("networkpolicies", f"--field-selector=metadata.name={name}")
        policy["metadata"] = {"name": name, "labels": policy["metadata"].get("labels", {})}
        self.kubectl("delete", "networkpolicy", name)
        try:
            yield
        finally:
            self.apply(policy)

    def _any(self, service: str) -> list[Object]:
        return self.get("pods", f"--selector=app.kubernetes.io/name={service}")

    # ---

    def address(self, port: str) -> tuple[str, int]:
        # As a load balancer sends orders, so that a rolling update can be seen from outside.
        return (self._node if port == "ORDERS_PORT" else "127.0.0.1"), self.ports[port]

    def _kubectl(self) -> list[str]:
        context = os.environ.get("K8S_CONTEXT")
        return ["kubectl", *([f"--context={context}"] if context else []), f"--namespace={NAME}"]

    def _make(self, target: str) -> None:
        run(["make", target], cwd=self.folder, timeout=COMMAND_SECONDS)

    def _images(self) -> dict[str, str]:
        """Return the image of each container in the overlay, by the container's name."""
        text = self.kubectl("kustomize", str(self.folder / OVERLAY))
        return {
            container["name"]: container["image"]
            for one in yaml.safe_load_all(text)
            if one["kind"] in {"Deployment", "StatefulSet"}
            for container in one["spec"]["template"]["spec"]["containers"]
        }

    def _add_listeners(self) -> int:
        """Have each node of Kafka advertise a port of this machine; return the first of them."""
        free = {*free_ports(5000)}
        first = next(one for one in free if one % 10 == 0 and free >= {one + 1, one + 2})
        broker = self.folder / OVERLAY / "broker/kafka.yaml"
        (kafka,) = (
            one
            for one in yaml.safe_load_all(broker.read_text("utf-8"))
            if one["kind"] == "StatefulSet"
        )
        env = kafka["spec"]["template"]["spec"]["containers"][0]["env"]
        names = [one["name"] for one in env]
        added = {
            "KAFKA_LISTENERS": f"TESTS://:{LISTENER}",
            "KAFKA_ADVERTISED_LISTENERS": f"TESTS://127.0.0.1:{first // 10}$(KAFKA_NODE_ID)",
            "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "TESTS:PLAINTEXT",
        }
        patch = [  # by their places, since a merge would put them before what they refer to
            {
                "op": "replace",
                "path": f"/spec/template/spec/containers/0/env/{names.index(name)}/value",
                "value": f"{env[names.index(name)]['value']},{more}",
            }
            for name, more in added.items()
        ]
        kafkas = {"kind": "StatefulSet", "name": "kafka"}
        self._change_overlay(
            lambda overlay: overlay.setdefault("patches", []).append(
                {"target": kafkas, "patch": yaml.safe_dump(patch)}
            )
        )
        return first

    def _change_overlay(self, change: Callable[[Object], object]) -> None:
        path = self.folder / OVERLAY / "kustomization.yaml"
        overlay = yaml.safe_load(path.read_text("utf-8"))
        change(overlay)
        path.write_text(yaml.safe_dump(overlay), "utf-8")

    def _open_ports(self, kafka: int) -> None:
        """Let this machine reach what it asks: by ports forwarded, and orders as from outside."""
        targets = FORWARDED | {
            self.traces_port: (self.traces, QUESTIONS["_trace_backends"][self.traces]["port"])
        }
        if not kafka:
            targets[self.broker_port] = self.broker, QUESTIONS["_brokers"][self.broker]["port"]
        names = [name for name, (service, _) in targets.items() if service in self.services]
        for name, port in zip(names, free_ports(len(names)), strict=True):
            service, remote = targets[name]
            self._forward(name, f"service/{service}", port, remote)
        for node in range(KAFKA_NODES) if kafka else ():
            self._forward(f"KAFKA_{node}", f"pod/kafka-{node}", kafka + node, LISTENER)
        if kafka:
            self.ports[self.broker_port] = kafka
        self.apply(NODE_PORT)
        (service,) = self.get("service", "--field-selector=metadata.name=orders-outside")
        self.ports["ORDERS_PORT"] = service["spec"]["ports"][0]["nodePort"]
        addresses = self.get("nodes")[0]["status"]["addresses"]
        self._node = next(one["address"] for one in addresses if one["type"] == "InternalIP")

    def _forward(self, name: str, target: str, local: int, remote: int) -> None:
        self.ports[name] = local
        self._open.enter_context(Forward(self._kubectl(), target, local, remote))

    def _remove_images(self) -> None:
        images = docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}").split()
        if ours := [one for one in images if one.partition(":")[0] in IMAGES]:
            docker("image", "rm", *ours)
        if self.stand_in:
            tempo_stand_in.remove(self.stand_in)
