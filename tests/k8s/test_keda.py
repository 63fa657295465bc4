"""KEDA scales a consumer on its lag, in a cluster that has it."""

import os

import pytest
import yaml
from e2e.poll import poll_until

from bench.drills.ledger import Ground, Ledger
from bench.drills.samples import body, message

from .cluster import OVERLAY, Cluster, Object

SERVICE, CHANNEL = "payments", "orders.placed"
BACKLOG = 12_000
"""Messages: one replica is at work on them for longer than KEDA takes to see them."""
MOST_REPLICAS = 3
SCALED_SECONDS = 120.0

# In `local`, where nothing but Grafana asks Prometheus. Production's has a policy of its own.
ADMITTED: Object = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "NetworkPolicy",
    "metadata": {"name": "keda"},
    "spec": {
        "podSelector": {"matchLabels": {"app.kubernetes.io/name": "prometheus"}},
        "ingress": [{"from": [{"namespaceSelector": {}}]}],
    },
}


@pytest.fixture
def scaled_object(stack: Cluster) -> Object:
    """That of the component, on its own."""
    folder = stack.folder / OVERLAY / "../keda"
    folder.mkdir()
    overlay = {"components": ["../../components/keda"], "namespace": stack.project}
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(overlay), "utf-8")
    objects = yaml.safe_load_all(stack.kubectl("kustomize", str(folder)))
    found: Object = next(one for one in objects if one["metadata"]["name"] == SERVICE)
    return found


@pytest.mark.skipif(os.environ.get("K8S_KEDA") != "1", reason="only with K8S_KEDA=1")
def test_a_consumer_is_scaled_on_its_lag(
    stack: Cluster, ground: Ground, scaled_object: Object
) -> None:
    if "keda.sh/v1alpha1" not in stack.kubectl("api-versions").split():
        pytest.skip("there is no KEDA in the cluster")
    ledger = Ledger(ground)
    ledger.mark()
    with stack.without(SERVICE):
        ledger.inject([message(CHANNEL, body(CHANNEL)) for _ in range(BACKLOG)])
    stack.apply(ADMITTED, scaled_object)
    try:
        poll_until(
            lambda: len(stack.ready_pods(SERVICE)) == MOST_REPLICAS,
            f"{MOST_REPLICAS} replicas of {SERVICE}",
            SCALED_SECONDS,
        )
    finally:
        stack.kubectl("delete", "scaledobject", SERVICE)
        stack.scale(SERVICE, 1)
    assert not any(ground.wait_until_drained().values())
