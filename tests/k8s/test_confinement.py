"""Pods run the way that the restricted Pod Security level asks, which the API server enforces."""

import json

import pytest
import yaml
from e2e.poll import poll_until

from .cluster import KAFKA_NODES, OVERLAY, Cluster, Object

BREACHES: dict[str, Object] = {
    "privileged": {"privileged": True, "allowPrivilegeEscalation": True},
    "escalation": {"allowPrivilegeEscalation": True},
    "capability": {"capabilities": {"drop": ["ALL"], "add": ["SYS_PTRACE"]}},
    "root": {"runAsNonRoot": False, "runAsUser": 0},
    "no seccomp": {"seccompProfile": {"type": "Unconfined"}},
}
"""What a container of a service may have wrong."""

# In Python, which the services' image has.
LOOK = r"""
import json, os, pathlib
try:
    pathlib.Path("/written-by-a-test").touch()
    refusal = ""
except OSError as error:
    refusal = os.strerror(error.errno)
lines = pathlib.Path("/proc/1/status").read_text().splitlines()
status = dict(line.split(":\t", 1) for line in lines)
secrets = pathlib.Path("/var/run/secrets/kubernetes.io")
print(json.dumps({"refusal": refusal, "token": secrets.exists(), **status}))
"""


def all_pods(stack: Cluster) -> list[Object]:
    return stack.get("pods", "--selector=app.kubernetes.io/part-of")


@pytest.mark.parametrize("breach", BREACHES)
def test_a_pod_that_breaks_the_level_is_refused(stack: Cluster, breach: str) -> None:
    """And nothing else about it: without the breach it is accepted."""
    pod = stack.pod_like("payments", "breach", {}, ["sleep", "1"])
    stack.apply(pod, dry_run=True)
    pod["spec"]["containers"][0]["securityContext"] |= BREACHES[breach]
    with pytest.raises(AssertionError, match='violates PodSecurity "restricted'):
        stack.apply(pod, dry_run=True)


def test_nothing_was_restarted_or_refused(stack: Cluster) -> None:
    pods = all_pods(stack)
    assert len(pods) > KAFKA_NODES
    restarts = {
        pod["metadata"]["name"]: status["restartCount"]
        for pod in pods
        for status in pod["status"]["containerStatuses"]
    }
    assert not any(restarts.values()), restarts
    events = stack.get("events", "--field-selector=reason=FailedCreate")
    assert [event["message"] for event in events] == []


def test_no_pod_has_a_token_or_a_file_system_to_write_to(stack: Cluster) -> None:
    for pod in all_pods(stack):
        name, spec = pod["metadata"]["name"], pod["spec"]
        tokens = [one for one in spec["volumes"] if "projected" in one]
        assert tokens == [], name
        for container in spec["containers"]:
            assert container["securityContext"]["readOnlyRootFilesystem"], name
            assert container["resources"]["limits"]["memory"], name


@pytest.mark.parametrize("service", ["orders", "lag"])
def test_the_kernel_holds_a_service_to_it(stack: Cluster, service: str) -> None:
    """Not what was asked for, but what the process has."""
    found = json.loads(stack.execute(service, "python", "-c", LOOK))
    assert found["refusal"] == "Read-only file system"
    assert not found["token"]
    assert "0" not in found["Uid"].split()
    assert int(found["CapEff"], 16) == int(found["CapBnd"], 16) == 0
    assert found["NoNewPrivs"] == "1"
    assert found["Seccomp"] == "2"


def test_services_scale_on_cpu(stack: Cluster) -> None:
    """As far as the cluster measures it."""
    scalers = stack.get("horizontalpodautoscalers")
    names = [one["metadata"]["name"] for one in scalers]
    files = (stack.folder / OVERLAY / "autoscaling.yaml").read_text("utf-8")
    assert names == sorted(one["metadata"]["name"] for one in yaml.safe_load_all(files))
    if "metrics.k8s.io/v1beta1" not in stack.kubectl("api-versions").split():
        pytest.skip("the cluster has no metrics-server")
    poll_until(
        lambda: all(map(is_active, stack.get("horizontalpodautoscalers"))), "scalers to be active"
    )


def is_active(scaler: Object) -> bool:
    conditions = scaler["status"].get("conditions", ())
    return any(one["type"] == "ScalingActive" and one["status"] == "True" for one in conditions)
