"""The boards are what the code builds, and name only what there is."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import promql
import pytest
import yaml
from matrix import OPTIONS, TEMPLATE

from dashboards.build import BROKERS, FOLDERS, STORES, broker_overlay, files, overlay
from dashboards.faults import NEEDS_FAULT, NEEDS_MORE
from dashboards.metrics import METRICS
from dashboards.panels import PREFIX
from dashboards.tracestore import UID

BAKED = TEMPLATE / "{{cookiecutter.project_slug}}"
PROVISIONING = "observability/grafana/provisioning"
SERVICES = [
    path.stem for path in (BAKED / "src/{{cookiecutter.package_name}}/services").glob("[!_]*.py")
]

Json = dict[str, Any]

COMMON = BAKED / "observability/grafana/dashboards"


def boards(*folders: Path) -> dict[str, Json]:
    """The boards in these folders by their uid."""
    paths = sorted(path for folder in folders for path in folder.glob("*.json"))
    return {path.stem: json.loads(path.read_text("utf-8")) for path in paths}


OF_STORE = {store: boards(COMMON, TEMPLATE / overlay(store)) for store in STORES}
"""The boards that a project has, by where its traces are kept."""
EVERY_BOARD = [
    *boards(COMMON).items(),
    *(one for store in STORES for one in boards(TEMPLATE / overlay(store)).items()),
    *(one for broker in BROKERS for one in boards(TEMPLATE / broker_overlay(broker)).items()),
]
PANELS = [(uid, panel) for uid, board in EVERY_BOARD for panel in board["panels"]]


def title_of(value: object) -> str:
    return str(value["title"] or value["type"]) if isinstance(value, dict) else str(value)


def values_of(key: str, tree: object) -> Iterator[Any]:
    """Return whatever stands below a key, at any depth."""
    if isinstance(tree, dict):
        if key in tree:
            yield tree[key]
        for branch in tree.values():
            yield from values_of(key, branch)
    elif isinstance(tree, list):
        for branch in tree:
            yield from values_of(key, branch)


def queries(datasource: str) -> list[tuple[str, str, str]]:
    """Return board, panel and text of every query of a kind of data source."""
    return [
        (uid, panel["title"], target.get("expr", target.get("query", "")))
        for uid, panel in PANELS
        for target in panel.get("targets", [])
        if target["datasource"]["type"] == datasource
    ]


def test_the_committed_files_are_what_the_code_builds() -> None:
    committed = {
        path.relative_to(TEMPLATE): path.read_text("utf-8")
        for folder in FOLDERS
        for path in (TEMPLATE / folder).glob("*.json")
    }
    assert committed == files(), "run: make dashboards"


def test_every_trace_backend_has_its_boards() -> None:
    assert set(STORES) == set(OPTIONS["trace_backend"])


def test_uids_are_the_ones_that_links_and_alerts_rely_on() -> None:
    assert files().keys() == {
        path.relative_to(TEMPLATE) for folder in FOLDERS for path in (TEMPLATE / folder).glob("*")
    }
    for found in OF_STORE.values():
        names = ("traces", "topology", "messaging", "service", "telemetry", "slo")
        assert found.keys() == {PREFIX + name for name in names}
        assert {uid: board["uid"] for uid, board in found.items()} == {uid: uid for uid in found}


def test_only_what_shows_traces_differs_by_where_they_are_kept() -> None:
    """Panels that stand on metrics and logs are the same, wherever they are in all of them."""
    for uid in (f"{PREFIX}traces", f"{PREFIX}service"):
        panels = [
            {
                panel["title"]: panel
                for panel in OF_STORE[store][uid]["panels"]
                if panel.get("datasource", {}).get("uid") != UID
            }
            for store in STORES
        ]
        shared = set.intersection(*(set(found) for found in panels))
        assert len(shared) >= 6
        for title in shared - {"Newest traces", "Traces that link to it"}:
            assert all(found[title] == panels[0][title] for found in panels), f"{uid}: {title}"


@pytest.mark.parametrize(
    "board", [board for _, board in EVERY_BOARD], ids=[uid for uid, _ in EVERY_BOARD]
)
def test_a_board_says_what_it_is_for_and_can_be_narrowed_down(board: Json) -> None:
    first = board["panels"][0]
    assert first["type"] == "text"
    assert first["options"]["content"] == board["description"]
    variables = [one for one in board["templating"]["list"] if one["type"] != "datasource"][:3]
    assert [one["name"] for one in variables] == ["environment", "service", "destination"]
    for one in variables:
        assert one["multi"]
        assert one["includeAll"]
        assert one["allValue"] == ".*"
        assert one["current"]["value"] == ["$__all"]
    assert board["editable"] is True
    assert "id" not in board


@pytest.mark.parametrize(("uid", "panel"), PANELS, ids=title_of)
def test_a_panel_explains_itself_also_when_it_is_empty(uid: str, panel: Json) -> None:
    if panel["type"] == "text":
        return
    assert panel["title"]
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["noValue"]
    assert "id" not in panel, f"{uid}: an id would change with the order of the panels"


@pytest.mark.parametrize(("uid", "panel"), PANELS, ids=title_of)
def test_a_number_has_a_unit(uid: str, panel: Json) -> None:
    if panel["type"] in {"timeseries", "stat", "heatmap"}:
        assert panel["fieldConfig"]["defaults"]["unit"], uid


@pytest.mark.parametrize(("uid", "panel"), PANELS, ids=title_of)
def test_a_panel_says_that_metrics_of_spans_may_be_missing(uid: str, panel: Json) -> None:
    """A Grafana that somebody has may stand behind a Collector without these connectors."""
    asked = " ".join(target.get("expr", "") for target in panel.get("targets", []))
    for connector in ("span_metrics", "service_graph"):
        if f"traces_{connector}_" in asked:
            assert connector in panel["fieldConfig"]["defaults"]["noValue"], uid


@pytest.mark.parametrize(("uid", "panel"), PANELS, ids=title_of)
def test_a_graph_of_zeros_reads_as_one(uid: str, panel: Json) -> None:
    if panel["type"] != "timeseries":
        return
    defaults = panel["fieldConfig"]["defaults"]
    if defaults["unit"] == "percentunit":  # Grafana's axis would end at 10,000 %
        assert defaults.get("max", 1) <= 1, uid
        assert "max" in defaults or defaults["custom"]["axisSoftMax"] <= 1, uid
    # A stacked line of zeros lies on top of the others and looks like their sum.
    stacked = defaults["custom"].get("stacking", {}).get("mode") == "normal"
    assert not stacked or defaults["custom"]["drawStyle"] == "bars", uid


def test_home_shows_first_what_is_always_there() -> None:
    for found in OF_STORE.values():
        panels = found[f"{PREFIX}traces"]["panels"][1:]
        top = [(one["gridPos"]["y"], one["title"]) for one in panels]
        assert top == sorted(top, key=lambda one: one[0])
        first = [title for _, title in top[:5]]
        assert first == [
            "Rate", "Errors", "Duration, 95th percentile", "How long it took", "Slowest operations"
        ]  # fmt: skip
        wide = [one["title"] for one in panels if one["gridPos"]["w"] == 24]
        assert wide == ["Newest traces", "Trace"]


def test_no_trace_is_open_at_first() -> None:
    for store, found in OF_STORE.items():
        variables = {one["name"]: one for one in found[f"{PREFIX}traces"]["templating"]["list"]}
        trace = variables["traceId"]
        nothing = STORES[store].no_trace
        assert trace["current"]["text"] == "none"
        assert trace["current"]["value"] == nothing
        assert trace["query"] == f"none : {nothing}"
        assert "," not in nothing  # parts options
        assert trace["allowCustomValue"]


def test_graphs_fit_and_explain_themselves_in_words() -> None:
    graphs = [panel for _, panel in PANELS if panel["type"] == "nodeGraph"]
    assert graphs
    for panel in graphs:
        assert panel["options"]["layoutAlgorithm"] == "layered", "the other cuts long chains off"
        (words,) = [one["options"]["renameByName"] for one in panel["transformations"]]
        assert words.keys() == {"mainstat", "secondarystat", "color"}
        assert set(words.values()).isdisjoint(words)


def test_the_service_level_obeys_every_filter() -> None:
    shared = {"flow:objective:ratio", "ALERTS"}
    for panel in OF_STORE["tempo"][f"{PREFIX}slo"]["panels"]:
        for target in panel.get("targets", []):
            if promql.names(target["expr"])[0] - shared:
                for variable in ("$environment", "$service", "$destination"):
                    assert variable in target["expr"], panel["title"]


def test_titles_tell_panels_apart() -> None:
    for found in OF_STORE.values():
        titles = Counter(
            (uid, panel["title"]) for uid, board in found.items() for panel in board["panels"]
        )
        assert [name for name, times in titles.items() if times > 1] == []


def test_faults_belong_to_queries_that_there_are() -> None:
    asked = {
        (uid, panel["title"], target["refId"])
        for uid, panel in PANELS
        for target in panel.get("targets", [])
    }
    assert (NEEDS_FAULT | NEEDS_MORE).keys() - asked == set()


@pytest.mark.parametrize(
    "board", [board for _, board in EVERY_BOARD], ids=[uid for uid, _ in EVERY_BOARD]
)
def test_a_board_asks_whatever_data_sources_a_grafana_has(board: Json) -> None:
    """By variables alone, so that it can be imported anywhere; it has no variable in vain."""
    variables = board["templating"]["list"]
    kinds = {
        f"${{{one['name']}}}": one["query"] for one in variables if one["type"] == "datasource"
    }
    assert {one["uid"]: one["type"] for one in values_of("datasource", board)} == kinds
    choices = [one["type"] for one in variables]
    assert choices == sorted(choices, key=lambda kind: kind != "datasource")  # others need them


def test_the_provisioned_data_sources_are_the_boards_choice() -> None:
    for store, found in OF_STORE.items():
        settings = (TEMPLATE / overlay(store)).parent / "traces.env"
        variables = dict(re.findall(r"^(\w+)=(.+)$", settings.read_text("utf-8"), re.MULTILINE))
        sources = {
            one["uid"]: (one["name"], variables.get(one["type"].removeprefix("$"), one["type"]))
            for file in provisioned()
            for one in file["datasources"]
        }
        chosen = {
            one["current"]["value"]: (one["current"]["text"], one["query"])
            for board in found.values()
            for one in board["templating"]["list"]
            if one["type"] == "datasource"
        }
        assert chosen == sources
        assert sources[f"{PREFIX}traces"][1] == store


def test_provisioning_touches_no_data_source_of_others() -> None:
    """Grafana finds by name what it updates, and refuses to start if the uid is another then."""
    for file in provisioned():
        assert file.keys() == {"apiVersion", "datasources"}
        for one in file["datasources"]:
            assert one["uid"].startswith(PREFIX)
            assert one["name"].lower().replace(" ", "-") == one["uid"]
            assert "$" not in one["name"]  # the same whatever keeps the traces
    (provider,) = boards_provider()
    assert provider["name"] == provider["folderUid"] == PREFIX.removesuffix("-")


def provisioned() -> list[Json]:
    paths = sorted((BAKED / PROVISIONING / "datasources").glob("*.yaml"))
    return [yaml.safe_load(path.read_text("utf-8")) for path in paths]


def boards_provider() -> list[Json]:
    path = BAKED / PROVISIONING / "dashboards/boards.yaml"
    return list(yaml.safe_load(path.read_text("utf-8"))["providers"])


def test_every_link_of_a_data_source_leads_to_another_or_to_a_board() -> None:
    uids = {one["uid"] for file in provisioned() for one in file["datasources"]}
    named = [uid for file in provisioned() for uid in values_of("datasourceUid", file)]
    assert named
    assert set(named) - uids == set()
    links = [
        url
        for file in provisioned()
        for url in values_of("url", [one["jsonData"] for one in file["datasources"]])
        if url.startswith("/")
    ]
    assert links
    for link in links:
        board, _, variables = link.partition("?")
        assert board == f"/d/{PREFIX}traces"
        given = dict(parse_qsl(variables))
        assert given.pop("var-traceId") == "$${__value.raw}"
        # What the board shows by itself may be younger than the trace.
        assert given.keys() in ({"from", "to"}, {"time", "time.window"})


def test_every_link_leads_to_a_board() -> None:
    urls = [url for _, board in EVERY_BOARD for url in values_of("url", board) if url]
    assert urls
    names = "|".join(uid for uid, _ in EVERY_BOARD)
    pages = {store.page["url"] for store in STORES.values() if store.page}
    known = re.compile(rf"/d/(({names})\?|{PREFIX}\$\{{__data\.fields\.board\}}\?)")
    assert [url for url in urls if not known.match(url) and url not in pages] == []
    made = {
        PREFIX + board
        for _, _, query in queries("prometheus")
        for board in re.findall(r'"board", "(\w+)"', query)
    }
    assert made <= {uid for uid, _ in EVERY_BOARD}
    every = [board for _, board in EVERY_BOARD]
    tags = {tag for board in every for link in board["links"] for tag in link.get("tags", ())}
    assert all(tags == set(board["tags"]) for board in every)


@pytest.mark.parametrize("store", STORES)
def test_a_page_of_its_own_is_where_compose_puts_it(store: str) -> None:
    """By default; whoever moves the port in .env has to move the link, or take `make urls`."""
    ports = re.findall(r'"127.0.0.1:\$\{\w+_PORT:-(\d+)\}', compose_of(store).read_text("utf-8"))
    page = STORES[store].page
    assert len(ports) == 1
    assert page is None or f"http://127.0.0.1:{ports[0]}" in page["url"]


def compose_of(store: str) -> Path:
    return BAKED / "overlays/trace_backend" / store / "observability/compose.backend.yaml"


def test_no_service_is_known_by_name() -> None:
    assert SERVICES
    named = re.compile(rf"\b({'|'.join(SERVICES)})\b")
    written = [
        (uid, panel["title"], target)
        for uid, panel in PANELS
        for target in panel.get("targets", [])
        if named.search(json.dumps(target))
    ]
    assert written == []


@pytest.mark.parametrize(("uid", "title", "query"), queries("prometheus"))
def test_a_query_names_known_metrics_and_labels(uid: str, title: str, query: str) -> None:
    metrics, labels = promql.names(query)
    assert metrics, query
    assert metrics - set(METRICS) == set()
    known = {label for metric in metrics for label in METRICS[metric]}
    assert labels - known == set()


def test_recorded_series_have_their_rules() -> None:
    recorded = {
        rule["record"]
        for path in BAKED.glob("**/observability/prometheus/rules/*.yaml")
        for group in yaml.safe_load(path.read_text("utf-8"))["groups"]
        for rule in group["rules"]
        if "record" in rule
    }
    assert {metric for metric in METRICS if ":" in metric} - recorded == set()


def test_no_metric_is_listed_in_vain() -> None:
    used = {name for _, _, query in queries("prometheus") for name in promql.names(query)[0]}
    assert set(METRICS) - used == set()


SAMPLED = (
    "traces_span_metrics_duration_seconds_bucket",
    "http_server_request_duration_seconds_bucket",
)


def test_samples_lead_to_traces() -> None:
    """Histograms that come with exemplars ask for them; nothing else has any."""
    for uid, panel in PANELS:
        if panel["type"] not in {"timeseries", "heatmap"}:
            continue
        for target in panel["targets"]:
            sampled = any(name in target.get("expr", "") for name in SAMPLED)
            assert target.get("exemplar", False) == sampled, f"{uid}: {panel['title']}"


def test_grafana_finds_the_boards_where_compose_mounts_them() -> None:
    compose = yaml.safe_load((BAKED / "observability/compose.yaml").read_text("utf-8"))
    grafana = compose["services"]["grafana"]
    mounts = dict(volume.split(":")[:2] for volume in grafana["volumes"])
    inside = mounts["./grafana/dashboards"]
    (provider,) = boards_provider()
    assert provider["options"]["path"] == inside
    assert mounts["./grafana/provisioning/dashboards"] == "/etc/grafana/provisioning/dashboards"
    home = Path(grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert str(home.parent) == inside
    assert all(home.stem in found for found in OF_STORE.values())
