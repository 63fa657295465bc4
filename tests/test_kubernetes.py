"""The manifests of a bake with `deployment=kubernetes`: every combination, without a cluster.

With one: tests/k8s.
"""

import os
import re
import subprocess
import sys
from itertools import chain
from pathlib import Path

import pytest
import yaml
from bakery import Bakery
from faststream_otel.settings import Settings
from kubernetes import Manifest, build, kustomize, labels, named, of_kind, parsed, pods
from matrix import OPTIONS, QUESTIONS
from test_overlays import blocks
from tools import missing, tool

BACKENDS = OPTIONS["trace_backend"]


@pytest.fixture
def local(pair: Path) -> list[Manifest]:
    return parsed(build(pair, "local"))


def options_of(pair: Path) -> tuple[str, str]:
    """The broker and the trace backend of a bake."""
    compose = (pair / "compose.broker.yaml").read_text("utf-8")
    backend = (pair / "observability/compose.backend.yaml").read_text("utf-8")
    (broker,) = (one for one in OPTIONS["broker"] if f"\n  {one}:\n" in compose)
    (traces,) = (one for one in BACKENDS if f"\n  {one}:\n" in backend)
    return broker, traces


# --- What Kubernetes accepts


def test_manifests_pass_the_project_s_own_linter(pair: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "yamllint", "--strict", "deploy"],
        cwd=pair,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stdout


def test_each_manifest_fits_its_schema(pair: Path) -> None:
    kubeconform = tool("kubeconform", "manifests fit the schemas of Kubernetes")
    schemas = os.environ.get("K8S_SCHEMAS")
    if not schemas:  # it would download them
        missing.setdefault("K8S_SCHEMAS", []).append("manifests fit the schemas of Kubernetes")
        pytest.skip("K8S_SCHEMAS does not say where the schemas of Kubernetes are")
    command = [kubeconform, "-strict", "-schema-location", schemas]
    # Those of operators: test_kubernetes_operators.py.
    for overlay, options in (("local", []), ("production", ["-ignore-missing-schemas"])):
        done = subprocess.run(
            [*command, *options],
            input=build(pair, overlay),
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
    manifests = re.sub(
        "^  namespace: .*", "  namespace: default", build(pair, "local"), flags=re.MULTILINE
    )
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
    # Values of a chart are for what the chart runs, maybe with a broker of its own.
    files = [path for path in (pair / "deploy").rglob("*") if path.is_file()]
    text = "".join(path.read_text("utf-8") for path in files if path.parent.name != "charts")
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
    example = (pair / ".env.example").read_text("utf-8")
    known = set(re.findall("^#?([A-Z_]+)=", example, re.MULTILINE))
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
    wanted: dict[str, str] = selector.get("matchLabels", {})
    return wanted.items() <= pod.items()


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


# --- make service


def test_a_new_service_is_deployed_too(bakery: Bakery, tmp_path: Path) -> None:
    project = bakery.bake({"deployment": "kubernetes"}, tmp_path)
    before = parsed(build(project, "local"))
    bakery.run(project, "make", "service", "NAME=invoicing")
    after = parsed(kustomize(project / "deploy/kubernetes/overlays/local"))
    one, other = (named(after, "Deployment", name) for name in ("payments", "invoicing"))
    assert yaml.safe_load(yaml.safe_dump(one).replace("payments", "invoicing")) == other
    kinds = {
        item["kind"]
        for item in after
        if item["metadata"]["name"] == "invoicing" and item not in before
    }
    assert kinds == {"Deployment", "PodDisruptionBudget", "HorizontalPodAutoscaler"}
