"""A service that is none of the project's joins the network, as docs/joining.md has it."""

import json
import secrets

from collector import attributes, span

from .apis import Prometheus
from .poll import poll_until
from .stack import ONLOOKER, Stack, docker
from .stores import TraceStore


def test_a_container_of_another_project_gets_its_traces_and_its_panels(
    stack: Stack, store: TraceStore, prometheus: Prometheus
) -> None:
    service, sent = f"billing-{secrets.token_hex(4)}", span(name="GET /bills", kind=2)
    resource = {"attributes": attributes({"service.name": service})}
    body = {"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": [sent]}]}]}
    docker(
        "run", "--rm", "--network", f"{stack.project}_observability", ONLOOKER,
        "wget", "-Y", "off", "-q", "-O", "-", "--header", "Content-Type: application/json",
        "--post-data", json.dumps(body), "http://otel-collector:4318/v1/traces",
    )  # fmt: skip
    (stored,) = poll_until(lambda: store.trace(sent["traceId"]), "its trace")
    assert stored.service == service
    counted = f'traces_span_metrics_calls_total{{service_name="{service}"}}'
    poll_until(lambda: prometheus.values(counted) == [1.0], "its span to be counted")
