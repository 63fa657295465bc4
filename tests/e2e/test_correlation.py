"""From each signal to the others, by the very links that Grafana is provisioned with."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .apis import Loki, Prometheus, Span
from .boards import boards
from .conftest import Order
from .poll import poll_until
from .provisioning import data_sources
from .stack import Stack
from .stores import TraceStore
from .tables import DURATIONS

pytestmark = pytest.mark.every_broker

RANGE_SECONDS = 900


@pytest.fixture(scope="module")
def datasources(stack: Stack) -> dict[str, dict[str, Any]]:
    """The jsonData of each data source, by its uid."""
    return {uid: one["jsonData"] for uid, one in data_sources(stack.folder).items()}


def leads_to_the_open_trace(url: str, uids: set[str]) -> bool:
    found = re.fullmatch(r"/d/([\w-]+)\?var-traceId=\$\{__value\.raw\}&[^#]+", url)
    return found is not None and found[1] in uids


@pytest.fixture(params=["order-flow", ""], ids=["namespace", "no namespace"])
def namespace(request: pytest.FixtureRequest) -> str:
    """Whatever speaks OTLP is welcome, also without one."""
    return str(request.param)


def filled(query: str, link: dict[str, Any], span: Span, namespace: str, store: TraceStore) -> str:
    """Fill in a link's query as Grafana does: __tags is a matcher for each that the span has."""
    values = {"service.namespace": namespace} if namespace else {}
    if store.service_is_a_tag:
        values["service.name"] = span.service
    tags = ", ".join(
        f'{tag["value"]}="{values[tag["key"]]}"' for tag in link["tags"] if tag["key"] in values
    )
    name = re.escape(store.as_it_tells(span.name))
    for variable, value in {
        "${__tags}": tags,
        "$__tags": tags,
        "${__trace.traceId}": span.trace_id,
        "${__span.name:regex}": name,
    }.items():
        query = query.replace(variable, value)
    assert "$" not in query
    return query


def test_exemplar_leads_to_its_trace(
    datasources: dict[str, Any], orders: dict[str, Order], prometheus: Prometheus,
    store: TraceStore, stack: Stack,
) -> None:  # fmt: skip
    links = datasources["faststream-prometheus"]["exemplarTraceIdDestinations"]
    assert {link["name"] for link in links} == {"trace_id"}
    assert {link["datasourceUid"] for link in links if "datasourceUid" in link} <= set(datasources)
    uids = set(boards(stack.folder))
    assert all(leads_to_the_open_trace(link["url"], uids) for link in links if "url" in link)

    ids = poll_until(lambda: prometheus.exemplar_traces(DURATIONS), "exemplars")
    poll_until(lambda: any(map(store.trace, sorted(ids)[:20])), "the trace of an exemplar")


def test_trace_leads_to_its_logs(
    datasources: dict[str, Any], traces: dict[str, list[Span]], loki: Loki, store: TraceStore,
    namespace: str,
) -> None:  # fmt: skip
    link = datasources["faststream-traces"]["tracesToLogsV2"]
    assert link["datasourceUid"] in datasources
    span = next(one for one in traces["good"] if one.service == "payments")
    query = filled(link["query"], link, span, namespace, store)
    poll_until(lambda: loki.search(query, RANGE_SECONDS), f"log records of a span: {query}")


def test_log_record_leads_to_its_trace(
    datasources: dict[str, Any], traces: dict[str, list[Span]], loki: Loki, store: TraceStore,
    stack: Stack,
) -> None:  # fmt: skip
    links = datasources["faststream-loki"]["derivedFields"]
    assert {link["matcherType"] for link in links} == {"label"}
    assert {link["datasourceUid"] for link in links if "datasourceUid" in link} <= set(datasources)
    uids = set(boards(stack.folder))
    assert all(
        leads_to_the_open_trace(link["url"], uids) for link in links if "datasourceUid" not in link
    )
    (field,) = {link["matcherRegex"] for link in links}
    records = poll_until(
        lambda: loki.search(f'{{service_name="shipping"}} | {field}!=""', RANGE_SECONDS),
        "log records with a trace",
    )
    assert any(store.trace(record["stream"][field]) for record in records)


def test_span_leads_to_the_metrics_of_its_kind(
    datasources: dict[str, Any],
    traces: dict[str, list[Span]],
    prometheus: Prometheus,
    store: TraceStore,
    namespace: str,
) -> None:
    link = datasources["faststream-traces"]["tracesToMetrics"]
    assert link["datasourceUid"] in datasources
    span = next(one for one in traces["failing"] if one.status == "ERROR")
    for one in link["queries"]:
        query = filled(one["query"], link, span, namespace, store)
        poll_until(lambda query=query: prometheus.values(query), f"{one['name']}: {query}")  # type: ignore[misc]
        assert prometheus.series(query) == [
            {"service_name": span.service, "span_name": span.name}
        ], query


def rules_with_links(prometheus: Prometheus) -> Iterator[tuple[str, dict[str, str]]]:
    for rule in prometheus.rules():
        assert rule["health"] != "err", rule.get("lastError")
        if rule["type"] == "alerting":
            yield rule["name"], rule["annotations"]


def test_alerts_lead_to_boards_and_runbook(stack: Stack, prometheus: Prometheus) -> None:
    uids = set(boards(stack.folder))
    found = list(rules_with_links(prometheus))
    assert found
    for name, annotations in found:
        assert annotations["dashboard"].partition("?")[0].removeprefix("/d/") in uids, name
        page, _, section = annotations["runbook"].partition("#")
        text = Path(stack.folder, page).read_text("utf-8").lower()
        assert f"\n## {section}\n" in text, name


def test_rules_can_be_evaluated(orders: dict[str, Order], prometheus: Prometheus) -> None:
    poll_until(
        lambda: all(rule["health"] == "ok" for rule in prometheus.rules()), "rules evaluated"
    )
