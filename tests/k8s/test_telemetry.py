"""The same as with Compose: an order's trace, its logs, its metrics, and where they are seen."""

from pathlib import Path

import pytest
import yaml
from e2e.apis import Loki, Prometheus, Span
from e2e.poll import poll_until
from e2e.tables import LOGGED, ORDERS
from e2e.test_boards import (
    test_boards_are_provisioned,
    test_datasource_works,
    test_home_is_the_traces_board,
)
from e2e.test_logs_and_metrics import (
    test_exemplar_leads_to_a_trace,
    test_record_carries_the_trace_id,
    test_record_of_a_batch_carries_the_linked_trace_id,
    test_series_is_there_and_counts,
    test_targets_are_scraped,
    test_the_trace_store_is_scraped,
)
from e2e.test_traces import (
    label,
    test_batch_roots_a_trace_and_links_to_its_cause,
    test_only_what_failed_is_an_error,
    test_order_is_accepted_with_its_trace_id,
    test_spans_are_of_their_kind,
    test_trace_has_its_edges_and_no_others,
    test_trace_has_one_root,
)

from .cluster import Cluster, Object

__all__ = (
    "test_batch_roots_a_trace_and_links_to_its_cause",
    "test_boards_are_provisioned",
    "test_datasource_works",
    "test_exemplar_leads_to_a_trace",
    "test_home_is_the_traces_board",
    "test_only_what_failed_is_an_error",
    "test_order_is_accepted_with_its_trace_id",
    "test_record_carries_the_trace_id",
    "test_record_of_a_batch_carries_the_linked_trace_id",
    "test_series_is_there_and_counts",
    "test_spans_are_of_their_kind",
    "test_targets_are_scraped",
    "test_the_trace_store_is_scraped",
    "test_trace_has_its_edges_and_no_others",
    "test_trace_has_one_root",
)


def attributes(pod: Object) -> dict[str, str]:
    """Return the resource attributes that name a service's pod."""
    meta = pod["metadata"]
    return {
        "service.instance.id": meta["uid"],
        "k8s.pod.name": meta["name"],
        "k8s.pod.uid": meta["uid"],
        "k8s.namespace.name": meta["namespace"],
        "k8s.node.name": pod["spec"]["nodeName"],
        "k8s.deployment.name": meta["labels"]["app.kubernetes.io/name"],
        "k8s.container.name": "service",
    }


@pytest.mark.parametrize("kind", ORDERS)
def test_spans_name_their_pod(traces: dict[str, list[Span]], stack: Cluster, kind: str) -> None:
    for span in traces[kind]:
        (pod,) = stack.pods(span.service)
        wanted = attributes(pod)
        told = {name: span.resource.get(name) for name in wanted}
        assert told == wanted, label(span)


@pytest.mark.parametrize("service", sorted({service for _, service in LOGGED}))
def test_records_name_their_pod(
    traces: dict[str, list[Span]], stack: Cluster, loki: Loki, service: str
) -> None:
    (pod,) = stack.pods(service)
    matches = " | ".join(
        f'{name.replace(".", "_")}="{value}"' for name, value in attributes(pod).items()
    )
    query = f'{{service_name="{service}"}} | {matches}'
    poll_until(lambda: loki.search(query, 900), f"log records of {service} by {query}")


def test_series_name_their_pod(
    traces: dict[str, list[Span]], stack: Cluster, prometheus: Prometheus
) -> None:
    uids = {service: stack.pods(service)[0]["metadata"]["uid"] for service in ("orders", "lag")}
    for service, uid in uids.items():
        query = f'target_info{{instance="{uid}"}}'
        poll_until(lambda query=query: prometheus.series(query), f"{query} of {service}")  # type: ignore[misc]


def test_rules_are_loaded(stack: Cluster, prometheus: Prometheus) -> None:
    files = sorted(Path(stack.folder, "observability/prometheus/rules").glob("*.yaml"))
    wanted = sorted(
        rule.get("alert") or rule["record"]
        for path in files
        for group in yaml.safe_load(path.read_text("utf-8"))["groups"]
        for rule in group["rules"]
    )
    assert sorted(rule["name"] for rule in prometheus.rules()) == wanted
    poll_until(
        lambda: all(rule["health"] == "ok" for rule in prometheus.rules()), "rules to be evaluated"
    )
