"""The manifests of a bake with `deployment=kubernetes`: every combination, without a cluster.

With a cluster: e2e. What `make k8s-up` does first and last is tried with programs that only write
down how they are called.
"""

import os
import re
import subprocess
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import yaml
from bakery import Bakery
from faststream_otel.settings import Settings
from matrix import OPTIONS, QUESTIONS
from test_overlays import blocks
from tools import missing, tool

Manifest = dict[str, Any]
OVERLAYS = ("local", "production")
BACKENDS = OPTIONS["trace_backend"]


# --- Build


def kustomize(folder: Path) -> str:
    for name, arguments in (("kustomize", ["build"]), ("kubectl", ["kustomize"])):
        if name == "kubectl" or (name == "kustomize" and _has(name)):
            program = tool(name, "Kustomize builds the manifests")
            done = subprocess.run(
                [program, *arguments, str(folder)], capture_output=True, encoding="utf-8"
            )
            assert done.returncode == 0, done.stderr
            return done.stdout
    raise AssertionError


def _has(name: str) -> bool:
    return any(Path(folder, name).exists() for folder in os.environ["PATH"].split(os.pathsep))


built: dict[Path, str] = {}


def build(pair: Path, overlay: str) -> str:
    """Return the overlay's manifests, each built once."""
    folder = pair / "deploy/kubernetes/overlays" / overlay
    if folder not in built:
        built[folder] = kustomize(folder)
    return built[folder]


@pytest.fixture
def local(pair: Path) -> list[Manifest]:
    return list(yaml.safe_load_all(build(pair, "local")))


def of_kind(manifests: list[Manifest], *kinds: str) -> list[Manifest]:
    return [one for one in manifests if one["kind"] in kinds]


def named(manifests: list[Manifest], kind: str, name: str) -> Manifest:
    (found,) = (one for one in of_kind(manifests, kind) if one["metadata"]["name"] == name)
    return found


def pods(manifests: list[Manifest]) -> Iterator[tuple[str, Manifest]]:
    """The name and the pod template of whatever makes pods."""
    for one in of_kind(manifests, "Deployment", "StatefulSet", "Job"):
        yield one["metadata"]["name"], one["spec"]["template"]


def labels(manifests: list[Manifest]) -> dict[str, dict[str, str]]:
    return {name: pod["metadata"]["labels"] for name, pod in pods(manifests)}


def options_of(pair: Path) -> tuple[str, str]:
    """The broker and the trace backend of a bake."""
    compose = (pair / "compose.broker.yaml").read_text("utf-8")
    backend = (pair / "observability/compose.backend.yaml").read_text("utf-8")
    (broker,) = (one for one in OPTIONS["broker"] if f"\n  {one}:\n" in compose)
    (traces,) = (one for one in BACKENDS if f"\n  {one}:\n" in backend)
    return broker, traces


# --- What Kubernetes accepts


def test_each_manifest_fits_its_schema(pair: Path, tmp_path: Path) -> None:
    kubeconform = tool("kubeconform", "manifests fit the schemas of Kubernetes")
    schemas = os.environ.get("K8S_SCHEMAS")
    if not schemas:  # it would download them
        missing.setdefault("K8S_SCHEMAS", []).append("manifests fit the schemas of Kubernetes")
        pytest.skip("K8S_SCHEMAS does not say where the schemas of Kubernetes are")
    for overlay in OVERLAYS:
        (tmp_path / f"{overlay}.yaml").write_text(build(pair, overlay))
    done = subprocess.run(
        [kubeconform, "-strict", "-ignore-missing-schemas", "-schema-location", schemas, tmp_path],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stdout


def test_a_cluster_accepts_what_runs_on_a_laptop(pair: Path) -> None:
    """In a dry run, which also knows defaults and rules that no schema has."""
    context = os.environ.get("K8S_CONTEXT")
    if not context:
        missing.setdefault("K8S_CONTEXT", []).append("a cluster accepts the manifests")
        pytest.skip("K8S_CONTEXT names no cluster for a dry run")
    # The namespace itself would only be there after a real run.
    manifests = re.sub(r"^  namespace: .*", "  namespace: default", build(pair, "local"), flags=re.M)
    done = subprocess.run(
        [tool("kubectl", "a cluster accepts the manifests"), f"--context={context}", "apply",
         "--server-side", "--dry-run=server", "--validate=strict", "--filename=-"],
        input=manifests,
        capture_output=True,
        encoding="utf-8",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_every_pod_is_restricted(local: list[Manifest]) -> None:
    """As the namespace's Pod Security level demands, and more."""
    namespace = of_kind(local, "Namespace")[0]["metadata"]
    assert namespace["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    for name, pod in pods(local):
        spec = pod["spec"]
        assert spec["automountServiceAccountToken"] is False, name
        assert spec["enableServiceLinks"] is False, name
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        for container in chain(spec["containers"], spec.get("initContainers", ())):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
                "readOnlyRootFilesystem": True,
            }, name


def test_every_container_has_its_share(local: list[Manifest]) -> None:
    for name, pod in pods(local):
        for container in pod["spec"]["containers"]:
            assert container["resources"]["requests"].keys() == {"cpu", "memory"}, name
            assert container["resources"]["limits"].keys() == {"memory"}, name
            assert not container["image"].endswith(":latest"), name


def test_no_secret_is_written_down(local: list[Manifest]) -> None:
    assert of_kind(local, "Secret") == []


def test_an_answer_is_named_in_its_own_bake_only(pair: Path) -> None:
    others = {*OPTIONS["broker"], *BACKENDS} - {*options_of(pair)}
    files = [path for path in sorted((pair / "deploy").rglob("*")) if path.is_file()]
    text = "".join(path.read_text("utf-8") for path in files)
    assert {name for name in others if re.search(rf"\b{name}\b", text, re.IGNORECASE)} == set()


# --- One copy


CONFIGURATION = (
    *("grafana/dashboards", "grafana/provisioning", "loki", "otel-collector/config"),
    *("prometheus/prometheus.yaml", "prometheus/rules", "prometheus/scrape.d"),
    *("grafana/traces.env", "tempo", "jaeger"),
)
NOT_MOUNTED = {"Dockerfile", "kustomization.yaml"}


def test_all_of_observability_is_there_as_it_lies_in_its_folder(
    pair: Path, local: list[Manifest]
) -> None:
    """A file that a generator forgets is missed here."""
    found = list(chain(*(one["data"].items() for one in of_kind(local, "ConfigMap"))))
    texts = [text for _, text in found]
    folder = pair / "observability"
    files = [
        path
        for part in CONFIGURATION
        for path in ([folder / part] if (folder / part).is_file() else (folder / part).rglob("*"))
        if path.is_file() and path.name not in NOT_MOUNTED
    ]
    assert len(files) > 30
    replaced = {"rabbitmq.yaml"} if options_of(pair)[0] == "rabbitmq" else set()
    absent = [
        str(path.relative_to(folder))
        for path in files
        if texts.count(path.read_text("utf-8")) < 1
        # A cluster has several nodes to scrape.
        and not (path.parent.name == "scrape.d" and path.name in replaced)
    ]
    assert absent == []


def test_nothing_of_observability_is_written_twice(pair: Path) -> None:
    there = blocks(pair / "observability")
    again = blocks(pair / "deploy")
    assert [again[block] for block in there.keys() & again.keys()] == []


def test_images_have_the_versions_of_compose(pair: Path, local: list[Manifest]) -> None:
    files = [pair / "compose.broker.yaml", *(pair / "observability").glob("compose*.yaml")]
    pulled = re.findall(r"^    image: (\S+)$", "".join(map(Path.read_text, files)), re.MULTILINE)
    here = {pod["spec"]["containers"][0]["image"] for _, pod in pods(local)}
    assert {image for image in here if not image.endswith(":local")} <= set(pulled)


def test_the_collector_merges_the_files_that_it_merges_in_compose(
    pair: Path, local: list[Manifest]
) -> None:
    compose = yaml.safe_load((pair / "observability/compose.yaml").read_text("utf-8"))
    there = [
        re.sub(r"\$\{(\w+):-\w+\}", r"$(\1)", argument)
        for argument in compose["services"]["otel-collector"]["command"]
    ]
    pod = named(local, "StatefulSet", "otel-collector")["spec"]["template"]["spec"]
    *here, gateway = pod["containers"][0]["args"]
    assert gateway == "--config=/etc/gateway/gateway.yaml"
    assert [
        "--config=/etc/otelcol/" + one.removeprefix("--config=/etc/otelcol/").replace("/", "-")
        for one in there
    ] == here


# --- The services


def services(pair: Path) -> set[str]:
    folder = next((pair / "src").glob("*/services"))
    return {path.stem.replace("_", "-") for path in folder.glob("[!_]*.py")}


def test_each_service_is_deployed(pair: Path, local: list[Manifest]) -> None:
    of_services = {
        one["metadata"]["name"]
        for one in of_kind(local, "Deployment")
        if one["metadata"]["labels"]["app.kubernetes.io/component"] == "service"
    }
    assert of_services == services(pair) | {"lag"}
    for kind in ("PodDisruptionBudget", "HorizontalPodAutoscaler"):
        assert services(pair) <= {one["metadata"]["name"] for one in of_kind(local, kind)}, kind
    for one in of_kind(local, "HorizontalPodAutoscaler"):
        assert one["spec"]["scaleTargetRef"]["name"] == one["metadata"]["name"]
        # It would be reset with each apply.
        assert "replicas" not in named(local, "Deployment", one["metadata"]["name"])["spec"]


def test_a_service_says_where_it_runs(local: list[Manifest]) -> None:
    (container,) = named(local, "Deployment", "payments")["spec"]["template"]["spec"]["containers"]
    (attributes,) = (
        one["value"] for one in container["env"] if one["name"] == "OTEL_RESOURCE_ATTRIBUTES"
    )
    defined = {one["name"] for one in container["env"]}
    assert set(re.findall(r"\$\((\w+)\)", attributes)) <= defined
    assert {pair.partition("=")[0] for pair in attributes.split(",")} == {
        *("service.namespace", "service.instance.id", "deployment.environment.name"),
        *("k8s.pod.name", "k8s.pod.uid", "k8s.namespace.name", "k8s.node.name"),
        *("k8s.deployment.name", "k8s.container.name"),
    }


def test_the_grace_period_is_longer_than_an_orderly_shutdown(local: list[Manifest]) -> None:
    pod = named(local, "Deployment", "orders")["spec"]["template"]["spec"]
    pause = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    grace = pod["terminationGracePeriodSeconds"]
    assert grace > pause + Settings().shutdown_timeout_seconds


def test_settings_are_those_of_the_project(pair: Path, local: list[Manifest]) -> None:
    known = set(re.findall(r"^#?([A-Z_]+)=", (pair / ".env.example").read_text("utf-8"), re.M))
    for name in ("settings", "otel-collector-settings"):
        (found,) = (
            one["data"]
            for one in of_kind(local, "ConfigMap")
            if one["metadata"]["name"].rpartition("-")[0] == name
        )
        assert found.keys() <= known


# --- Who reaches whom


def selects(selector: Manifest, pod: dict[str, str]) -> bool:
    assert selector.keys() <= {"matchLabels"}
    return selector.get("matchLabels", {}).items() <= pod.items()


def lets_in(manifests: list[Manifest], source: str, target: str, port: int) -> bool:
    """Whether the policies let one pod of the namespace reach another."""
    found = labels(manifests)
    (spec,) = (pod["spec"] for name, pod in pods(manifests) if name == target)
    ports = {one.get("name"): one["containerPort"] for one in spec["containers"][0]["ports"]}
    for policy in of_kind(manifests, "NetworkPolicy"):
        if not selects(policy["spec"]["podSelector"], found[target]):
            continue
        for rule in policy["spec"].get("ingress", ()):
            sources = rule.get("from", [{"podSelector": {}}])
            if any(selects(one["podSelector"], found[source]) for one in sources) and (
                "ports" not in rule
                or port in {ports.get(one["port"], one["port"]) for one in rule["ports"]}
            ):
                return True
    return False


INTERNAL = {"kafka": 9093, "rabbitmq": 25672, "nats": 6222}
"""By which the nodes of a broker talk with each other."""


def test_what_must_talk_can_and_nothing_else(pair: Path, local: list[Manifest]) -> None:
    broker, traces = options_of(pair)
    clients = QUESTIONS["_brokers"][broker]["port"]
    reads = QUESTIONS["_trace_backends"][traces]["port"]
    writes = reads if traces == "zipkin" else 4317
    wanted = [
        *((name, broker, clients) for name in (*services(pair), "lag", "channels")),
        *((name, "otel-collector", 4317) for name in (*services(pair), "lag")),
        *(("prometheus", name, 8000) for name in (*services(pair), "lag")),
        (broker, broker, INTERNAL[broker]),
        ("otel-collector", traces, writes),
        ("otel-collector", "loki", 3100),
        ("otel-collector", "prometheus", 9090),
        ("prometheus", "otel-collector", 8888),
        *(("prometheus", name, port) for name, port in (("loki", 3100), ("grafana", 3000))),
        *(("grafana", name, port) for name, port in
          ((traces, reads), ("loki", 3100), ("prometheus", 9090))),
    ]  # fmt: skip
    unwanted = [
        *((name, broker, clients) for name in ("grafana", "prometheus", "otel-collector", traces)),
        *((name, broker, INTERNAL[broker]) for name in services(pair)),
        *(("orders", name, port) for name, port in
          ((traces, reads), ("loki", 3100), ("prometheus", 9090), ("grafana", 3000))),
        ("orders", "payments", 8000),
        ("grafana", "otel-collector", 4317),
        (broker, "payments", 8000),
    ]  # fmt: skip
    assert [flow for flow in wanted if not lets_in(local, *flow)] == []
    assert [flow for flow in unwanted if lets_in(local, *flow)] == []


def test_everything_is_denied_first(local: list[Manifest]) -> None:
    spec = named(local, "NetworkPolicy", "default-deny")["spec"]
    assert spec == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def test_each_service_address_leads_to_pods_that_have_its_port(local: list[Manifest]) -> None:
    found = labels(local)
    specs = dict(pods(local))
    for service in of_kind(local, "Service"):
        selector = service["spec"]["selector"]
        chosen = [name for name, pod in found.items() if selector.items() <= pod.items()]
        assert chosen, service["metadata"]["name"]
        for name in chosen:
            ports = specs[name]["spec"]["containers"][0]["ports"]
            known = {one["name"] for one in ports} | {one["containerPort"] for one in ports}
            for port in service["spec"]["ports"]:
                assert port.get("targetPort", port["port"]) in known, service["metadata"]["name"]


# --- make k8s-up

KUBECTL = """#!/bin/sh
case "$*" in
    "config current-context") [ -n "$FAKE_CONTEXT" ] || exit 1; echo "$FAKE_CONTEXT" ;;
    "config get-contexts"*) echo lab ;;
    kustomize*) printf 'image: order-flow:local\\nimage: apache/kafka:1\\n' ;;
    *"get namespace"*) printf '%s' "$FAKE_NAMESPACE" ;;
    *"get pods"*) printf '%s' "$FAKE_PODS" ;;
    *"get statefulset --selector"*) echo statefulset.apps/kafka ;;
    *"get statefulset,deployment"*) echo deployment.apps/orders ;;
    *"rollout status"*) [ -z "$FAKE_PODS" ] || exit 1 ;;
    *"get events"*) echo 'Failed pull access denied' ;;
    *logs*) echo 'LOG_LEVEL=LOUD is wrong' ;;
    *apply*--filename=*all.yaml*)
        for one; do case $one in --filename=*) cat "${one#*=}" >> "$FAKE_LOG.applied" ;; esac; done ;;
    *"create secret"*) cat >> "$FAKE_LOG.secrets" ;;
esac
echo "kubectl $*" >> "$FAKE_LOG"
"""
DOCKER = """#!/bin/sh
echo "docker $*" >> "$FAKE_LOG"
case "$*" in *inspect*--format*) echo sha256:0123456789abcdef ;; esac
"""
LOADER = """#!/bin/sh
echo "${0##*/} $*" >> "$FAKE_LOG"
"""


class Cluster:
    """Programs that write down how they are called, and a bake to call them from."""

    def __init__(self, project: Path, folder: Path, bakery: Bakery) -> None:
        self.project, self.folder, self.log = project, folder, folder / "log"
        self._environment = bakery.environment()
        for name, text in {
            "kubectl": KUBECTL, "docker": DOCKER, **dict.fromkeys(("kind", "k3d", "minikube"), LOADER)
        }.items():  # fmt: skip
            (folder / name).write_text(text)
            (folder / name).chmod(0o755)
        (folder / "sleep").write_text("#!/bin/sh\n")

    def make(self, target: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a target; each of the FAKE_* variables says what kubectl answers."""
        kept = {k: v for k, v in self._environment.items() if not k.startswith("K8S_")}
        fakes = {"FAKE_LOG": str(self.log), "FAKE_CONTEXT": "", "FAKE_NAMESPACE": "", "FAKE_PODS": ""}
        path = f"{self.folder}:{kept['PATH']}"
        return subprocess.run(
            ["make", "--no-print-directory", target],
            cwd=self.project,
            env=kept | fakes | {"PATH": path} | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
        )

    def calls(self) -> str:
        return self.log.read_text() if self.log.exists() else ""


@pytest.fixture(scope="module")
def kubernetes(bakery: Bakery) -> Path:
    return bakery.baked_once({"deployment": "kubernetes"}, bakery.home / "kubernetes")


@pytest.fixture
def cluster(kubernetes: Path, tmp_path: Path, bakery: Bakery) -> Cluster:
    return Cluster(kubernetes, tmp_path, bakery)


@pytest.mark.parametrize("target", ["k8s-up", "k8s-down", "k8s-forward"])
def test_an_unknown_cluster_is_refused_by_name(target: str, cluster: Cluster) -> None:
    done = cluster.make(target, FAKE_CONTEXT="prod-eu")
    assert done.returncode
    assert "prod-eu" in done.stdout
    assert "K8S_CONTEXT=prod-eu" in done.stdout
    assert cluster.calls() == "kubectl config current-context\n"


def test_without_a_context_it_says_so(cluster: Cluster) -> None:
    done = cluster.make("k8s-up")
    assert done.returncode
    assert "no current context" in done.stdout
    assert "lab" in done.stdout


def test_without_kubectl_it_says_where_to_get_it(
    cluster: Cluster, kubernetes: Path, tmp_path: Path
) -> None:
    done = subprocess.run(
        ["/bin/sh", "deploy/kubernetes/up.sh"], cwd=kubernetes, capture_output=True, text=True,
        env={"PATH": str(tmp_path / "empty"), "PROJECT": "order-flow", "NAMESPACE": "order-flow"},
    )  # fmt: skip
    assert done.returncode
    assert done.stderr.startswith("kubectl is missing") or "dirname" in done.stderr


@pytest.mark.parametrize("target", ["k8s-up", "k8s-down"])
def test_a_namespace_of_somebody_else_is_left_alone(target: str, cluster: Cluster) -> None:
    done = cluster.make(target, FAKE_CONTEXT="kind-lab", FAKE_NAMESPACE="order-flow=another")
    assert done.returncode
    assert "was not made by this project" in done.stdout
    assert "delete" not in cluster.calls()
    assert "apply" not in cluster.calls()


def test_the_broker_comes_first_and_the_services_last(cluster: Cluster) -> None:
    done = cluster.make("k8s-up", FAKE_CONTEXT="kind-lab")
    assert done.returncode == 0, done.stdout
    steps = [
        "notin (service, job)",
        "rollout status statefulset.apps/kafka",
        "delete job",
        "--selector=app.kubernetes.io/component=job\n",
        "--for=condition=Complete",
        "--selector=app.kubernetes.io/component=service\n",
        "rollout status deployment.apps/orders",
    ]
    calls = cluster.calls()
    places = [calls.index(step) for step in steps]
    assert places == sorted(places)
    assert "http://127.0.0.1:8000" in done.stdout


@pytest.mark.parametrize(
    ("context", "call"),
    [
        ("kind-lab", "kind load docker-image --name lab order-flow:0123456789ab"),
        ("k3d-lab", "k3d image import --cluster lab order-flow:0123456789ab"),
        ("minikube", "minikube image load order-flow:0123456789ab"),
    ],
)
def test_images_are_named_by_their_content_and_loaded(
    context: str, call: str, cluster: Cluster
) -> None:
    cluster.make("k8s-up", FAKE_CONTEXT=context)
    assert call in cluster.calls()
    assert "image: order-flow:0123456789ab\n" in (cluster.log.with_suffix(".applied")).read_text()


def test_another_cluster_needs_to_say_how_images_get_there(cluster: Cluster) -> None:
    done = cluster.make("k8s-up", K8S_CONTEXT="lab")
    assert done.returncode
    assert "K8S_LOAD" in done.stdout
    done = cluster.make("k8s-up", K8S_CONTEXT="lab", K8S_LOAD="kind push")
    assert done.returncode == 0, done.stdout
    # Also those of others that Docker has.
    assert re.search(r"^kind push order-flow:0123456789ab .*apache/kafka:1$", cluster.calls(), re.M)


def test_a_password_reaches_its_secret_and_no_command_line(
    cluster: Cluster, kubernetes: Path
) -> None:
    (password,) = re.findall("^GRAFANA_ADMIN_PASSWORD=(.*)", (kubernetes / ".env").read_text(), re.M)
    cluster.make("k8s-up", FAKE_CONTEXT="kind-lab")
    assert f"GF_SECURITY_ADMIN_PASSWORD={password}\n" in (
        cluster.log.with_suffix(".secrets").read_text()
    )
    assert password not in cluster.calls()


def test_a_pod_that_does_not_get_ready_is_shown_with_its_reason(cluster: Cluster) -> None:
    done = cluster.make(
        "k8s-up", FAKE_CONTEXT="kind-lab",
        FAKE_PODS="kafka-0 Pending false 0 ImagePullBackOff\n",
    )  # fmt: skip
    assert done.returncode
    assert "kafka does not get ready" in done.stdout
    assert "pod kafka-0: ImagePullBackOff" in done.stdout
    assert "pull access denied" in done.stdout
    assert "LOG_LEVEL=LOUD is wrong" in done.stdout
    assert "component=service" not in cluster.calls()


# --- make service


def test_a_new_service_is_deployed_too(bakery: Bakery, tmp_path: Path) -> None:
    project = bakery.bake({"deployment": "kubernetes"}, tmp_path)
    before = list(yaml.safe_load_all(build(project, "local")))
    bakery.run(project, "make", "service", "NAME=invoicing")
    after = list(yaml.safe_load_all(kustomize(project / "deploy/kubernetes/overlays/local")))
    one, other = (named(after, "Deployment", name) for name in ("payments", "invoicing"))
    assert yaml.safe_load(yaml.safe_dump(one).replace("payments", "invoicing")) == other
    kinds = {
        item["kind"]
        for item in after
        if item["metadata"]["name"] == "invoicing" and item not in before
    }
    assert kinds == {"Deployment", "PodDisruptionBudget", "HorizontalPodAutoscaler"}
