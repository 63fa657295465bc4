"""The overlay `production`: what operators get, and that it agrees with the rest of the project."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from bakery import Bakery
from crds import Resource, faults, schemas
from faststream_otel.kafka.broker import DEAD_LETTER_RETENTION_MS, PARTITIONS
from faststream_otel.kafka.messages import MAX_DEAD_LETTER_BYTES, MAX_MESSAGE_BYTES
from matrix import OPTIONS
from tools import missing, tool


@pytest.fixture(scope="module", params=OPTIONS["broker"])
def baked(bakery: Bakery, request: pytest.FixtureRequest) -> Path:
    answers = {"broker": request.param, "deployment": "kubernetes"}
    return bakery.baked_once(answers, bakery.home / f"kubernetes-{request.param}")


@pytest.fixture(scope="module")
def production(baked: Path) -> list[Resource]:
    return built(baked, "production")


@pytest.fixture(scope="module")
def kafka(bakery: Bakery) -> Path:
    answers = {"broker": "kafka", "deployment": "kubernetes"}
    return bakery.baked_once(answers, bakery.home / "kubernetes-kafka")


def built(project: Path, overlay: str) -> list[Resource]:
    kubectl = tool("kubectl", f"the overlay {overlay} can be built")
    folder = project / "deploy/kubernetes/overlays" / overlay
    done = subprocess.run([kubectl, "kustomize", str(folder)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def documents(path: Path) -> list[Any]:
    return list(yaml.safe_load_all(path.read_text("utf-8")))


def of_an_operator(resource: Resource) -> bool:
    group = str(resource["apiVersion"]).rpartition("/")[0]
    return "." in group and not group.endswith(".k8s.io")


def test_operators_know_every_field(production: list[Resource]) -> None:
    found = [one for one in production if of_an_operator(one)]
    assert found
    assert [fault for one in found for fault in faults(one)] == []


def test_a_field_that_an_operator_does_not_know_is_found(production: list[Resource]) -> None:
    scaled = next(one for one in production if one["kind"] == "ScaledObject")
    if (scaled["apiVersion"], "ScaledObject") not in schemas():
        missing.setdefault("K8S_CRDS", []).append("that an unknown field is found")
        pytest.skip("no definitions are here")
    trigger = scaled["spec"]["triggers"][0] | {"treshold": "5"}
    wrong = scaled | {"spec": scaled["spec"] | {"triggers": [trigger]}}
    (fault,) = faults(wrong)
    assert "treshold" in fault


def test_every_consumer_scales_and_no_further_than_it_has_partitions(
    production: list[Resource],
) -> None:
    scaled = {one["metadata"]["name"]: one for one in production if one["kind"] == "ScaledObject"}
    assert scaled.keys() == {"payments", "shipping", "notifications"}
    for name, one in scaled.items():
        assert one["spec"]["scaleTargetRef"]["name"] == name
        assert f'service_name="{name}"' in one["spec"]["triggers"][0]["metadata"]["query"]
        assert one["spec"]["minReplicaCount"] == 1
        assert one["spec"]["maxReplicaCount"] == PARTITIONS
    deployments = {
        one["metadata"]["name"]: one for one in production if one["kind"] == "Deployment"
    }
    for name in scaled:
        assert "replicas" not in deployments[name]["spec"], "each apply would undo the scaling"


def test_pods_do_not_start_without_the_credentials_of_the_broker(
    production: list[Resource],
) -> None:
    """`optional` is only what has its own default: certificates of OTLP, the Collector's tokens."""
    for one in production:
        if one["metadata"].get("labels", {}).get("app.kubernetes.io/component") not in {
            "service",
            "job",
        } or one["kind"] not in {"Deployment", "Job"}:
            continue
        container = one["spec"]["template"]["spec"]["containers"][0]
        secrets = [
            each["valueFrom"].get("secretKeyRef")
            for each in container["env"]
            if "valueFrom" in each
        ]
        secrets += [each.get("secretRef") for each in container["envFrom"]]
        assert [each for each in secrets if each and not each.get("optional")], one["metadata"]


def test_of_rabbitmqs_nodes_one_at_a_time_is_evicted(bakery: Bakery) -> None:
    """Strimzi and the chart of NATS make a budget of their own; RabbitMQ's operator does not."""
    answers = {"broker": "rabbitmq", "deployment": "kubernetes"}
    baked = bakery.baked_once(answers, bakery.home / "kubernetes-rabbitmq")
    (budget,) = (
        one["spec"] for one in built(baked, "production")
        if (one["kind"], one["metadata"]["name"]) == ("PodDisruptionBudget", "rabbitmq")
    )  # fmt: skip
    (cluster,) = (one for one in built(baked, "production") if one["kind"] == "RabbitmqCluster")
    # The operator labels pods with the cluster's name.
    labels = {"app.kubernetes.io/name": cluster["metadata"]["name"]}
    assert budget == {"maxUnavailable": 1, "selector": {"matchLabels": labels}}


def test_topics_are_those_that_the_command_channels_creates(kafka: Path) -> None:
    (package,) = (kafka / "src").iterdir()
    names = re.findall(r'^[A-Z]+ = "(.+)"$', (package / "channels.py").read_text(), re.MULTILINE)
    folder = kafka / "deploy/kubernetes/overlays/production/broker"
    topics = {one["metadata"]["name"]: one["spec"] for one in documents(folder / "topics.yaml")}
    limits = {"max.message.bytes": MAX_MESSAGE_BYTES}
    of_dead_letters = {
        "max.message.bytes": MAX_DEAD_LETTER_BYTES,
        "retention.ms": DEAD_LETTER_RETENTION_MS,
    }
    assert topics == {
        **{name: {"partitions": PARTITIONS, "replicas": 3, "config": limits} for name in names},
        "dead-letters": {"partitions": PARTITIONS, "replicas": 3, "config": of_dead_letters},
    }


def test_pods_are_scraped_as_prometheus_does_it_in_compose(kafka: Path) -> None:
    compose = documents(kafka / "observability/prometheus/prometheus.yaml")[0]
    (services,) = (one for one in compose["scrape_configs"] if one["job_name"] == "services")

    def camel(rule: dict[str, Any]) -> dict[str, Any]:
        return {
            re.sub(r"_(\w)", lambda found: found[1].upper(), key): value
            for key, value in rule.items()
        }

    folder = kafka / "deploy/kubernetes/components/prometheus-operator"
    monitors = {one["metadata"]["name"]: one for one in documents(folder / "pod-monitors.yaml")}
    (endpoint,) = monitors["services"]["spec"]["podMetricsEndpoints"]
    assert endpoint["metricRelabelings"] == [
        camel(rule) for rule in services["metric_relabel_configs"]
    ]
    assert endpoint["interval"] == compose["global"]["scrape_interval"]
    jobs = {one["podMetricsEndpoints"][0]["relabelings"][0]["replacement"] for one in
            (each["spec"] for each in monitors.values())}  # fmt: skip
    assert jobs <= {one["job_name"] for one in compose["scrape_configs"]}


def test_the_operator_gets_every_rule(bakery: Bakery, baked: Path) -> None:
    made = subprocess.run(
        ["make", "--silent", "k8s-rules"], cwd=baked, env=bakery.environment(),
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    found = {one["metadata"]["name"]: one for one in yaml.safe_load_all(made.stdout)}
    rules = sorted((baked / "observability/prometheus/rules").glob("*.yaml"))
    assert [*found] == [path.stem for path in rules]
    for path in rules:
        assert found[path.stem]["spec"] == documents(path)[0]
        assert faults(found[path.stem]) == []


def test_grafanas_sidecar_finds_all_boards_and_data_sources(baked: Path) -> None:
    found = {
        label: one["data"]
        for one in built(baked, "monitoring")
        for label in one["metadata"].get("labels", {})
        if label.startswith("grafana_")
    }
    grafana = baked / "observability/grafana"
    for label, folder in (
        ("grafana_dashboard", grafana / "dashboards"),
        ("grafana_datasource", grafana / "provisioning/datasources"),
    ):
        files = {path.name: path.read_text("utf-8") for path in folder.iterdir()}
        assert found[label] == files


def test_boards_replace_their_predecessors(baked: Path) -> None:
    """A name with a hash of its content would leave the old ConfigMap for the sidecar to load."""
    names = {
        one["metadata"]["name"] for one in built(baked, "monitoring") if one["kind"] == "ConfigMap"
    }
    assert names == {"grafana-dashboards", "grafana-datasources"}


def test_the_charts_grafana_knows_where_traces_are(kafka: Path) -> None:
    text = (kafka / "observability/grafana/traces.env").read_text("utf-8")
    names = dict(re.findall(r"^(\w+)=(.+)$", text, re.MULTILINE))
    chart = documents(kafka / "deploy/kubernetes/charts/kube-prometheus-stack.yaml")[0]
    assert chart["grafana"]["env"] == {key: value.strip("'") for key, value in names.items()}
