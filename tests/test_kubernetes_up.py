"""`make k8s-up` and its like, with programs that only write down how they are called.

With real ones: tests/k8s.
"""

import re
import subprocess
from pathlib import Path

import pytest
from bakery import Bakery

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
        for one; do
            case $one in --filename=*) cat "${one#*=}" >> "$FAKE_LOG.applied" ;; esac
        done ;;
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
        programs = {"kubectl": KUBECTL, "docker": DOCKER}
        programs |= dict.fromkeys(("kind", "k3d", "minikube"), LOADER)
        for name, text in programs.items():
            (folder / name).write_text(text)
            (folder / name).chmod(0o755)

    def make(self, target: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a target; each of the FAKE_* variables says what kubectl answers."""
        kept = {k: v for k, v in self._environment.items() if not k.startswith("K8S_")}
        fakes = dict.fromkeys(("FAKE_CONTEXT", "FAKE_NAMESPACE", "FAKE_PODS"), "")
        fakes["FAKE_LOG"] = str(self.log)
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


def test_without_kubectl_it_says_so(cluster: Cluster) -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", "PATH=; . deploy/kubernetes/context.sh"],
        cwd=cluster.project,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
    assert done.returncode
    assert done.stderr.startswith("kubectl is missing")


@pytest.mark.parametrize("target", ["k8s-up", "k8s-down"])
def test_a_namespace_of_somebody_else_is_left_alone(target: str, cluster: Cluster) -> None:
    done = cluster.make(target, FAKE_CONTEXT="kind-lab", FAKE_NAMESPACE="order-flow=another")
    assert done.returncode
    assert "was not created by this project" in done.stdout
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
    call = "^kind push order-flow:0123456789ab .*apache/kafka:1$"
    assert re.search(call, cluster.calls(), re.MULTILINE)


def test_a_password_reaches_its_secret_and_no_command_line(
    cluster: Cluster, kubernetes: Path
) -> None:
    env = (kubernetes / ".env").read_text()
    (password,) = re.findall("^GRAFANA_ADMIN_PASSWORD=(.*)", env, re.MULTILINE)
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
    assert "kafka does not become ready" in done.stdout
    assert "pod kafka-0: ImagePullBackOff" in done.stdout
    assert "pull access denied" in done.stdout
    assert "LOG_LEVEL=LOUD is wrong" in done.stdout
    assert "component=service" not in cluster.calls()
