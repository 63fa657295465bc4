"""Network policies in force: a pod reaches what it needs, and nothing else."""

import json

import pytest
from e2e.brokers import chosen_broker
from e2e.poll import poll_until
from e2e.stores import chosen
from matrix import QUESTIONS

from .cluster import Cluster

BROKER = f"{chosen_broker()}:{QUESTIONS['_brokers'][chosen_broker()]['port']}"
STORE = f"{chosen()}:{QUESTIONS['_trace_backends'][chosen()]['port']}"
PAYMENTS = "payments:8000"
"""Its pod, since no Service leads to it."""
API_SERVER = "kubernetes.default.svc:443"

REACHES = [
    ("service", BROKER, True),
    ("service", "otel-collector:4317", True),
    ("service", "orders:8000", True),
    ("service", STORE, False),
    ("service", "prometheus:9090", False),
    ("service", "loki:3100", False),
    ("service", PAYMENTS, False),
    ("service", API_SERVER, False),
    ("stranger", BROKER, False),
    ("stranger", "otel-collector:4317", False),
    ("stranger", STORE, False),
    ("stranger", "orders:8000", True),  # as everybody may place orders
    ("stranger", API_SERVER, False),
]
"""Which kind of pod reaches which address."""

SECONDS = 3
# In Python, which the services' image has.
TRY = f"""
import concurrent.futures, json, socket, sys
def reached(target):
    host, port = target.rsplit(":", 1)
    address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][4]  # a wrong name raises
    try:
        socket.create_connection(address, {SECONDS}).close()
    except OSError:
        return False
    return True
with concurrent.futures.ThreadPoolExecutor(20) as pool:
    print(json.dumps(list(pool.map(reached, sys.argv[1:]))))
"""


@pytest.fixture(scope="module")
def reached(stack: Cluster) -> dict[tuple[str, str], bool]:
    """Which kind of pod reaches which address, once the policies are in force."""
    targets = list(dict.fromkeys(target for _, target, _ in REACHES))
    payments = stack.pods("payments")[0]["status"]["podIP"]
    addresses = [f"{payments}:8000" if one == PAYMENTS else one for one in targets]

    def look(pod: str) -> dict[str, bool]:
        found = json.loads(stack.kubectl("exec", pod, "--", "python", "-c", TRY, *addresses))
        return dict(zip(targets, found, strict=True))

    def confined(pod: str) -> dict[str, bool] | None:
        found = look(pod)
        return None if found[API_SERVER] else found

    stranger = stack.pod_like("payments", "stranger", {}, ["sleep", "600"])
    stack.apply(stranger)
    try:
        stack.kubectl("wait", "pod/stranger", "--for=condition=Ready", "--timeout=60s", timeout=70)
        pods = {
            "service": stack.pods("notifications")[0]["metadata"]["name"],
            "stranger": "stranger",
        }
        return {
            (kind, target): is_reached
            for kind, pod in pods.items()
            for target, is_reached in poll_until(
                lambda pod=pod: confined(pod),  # type: ignore[misc]
                f"{pod} to be confined",
            ).items()
        }
    finally:
        stack.kill("stranger")


@pytest.mark.parametrize(("kind", "target", "may"), REACHES)
def test_a_pod_reaches_what_it_may(
    reached: dict[tuple[str, str], bool], kind: str, target: str, may: bool
) -> None:
    assert reached[kind, target] == may
