"""Alerts: each has tests, links to the runbook and a board, and can be sent."""

import json
import re
from pathlib import Path
from typing import Any

import promql
import pytest
import yaml
from bakery import Bakery
from matrix import matrix
from tools import docker_compose, tool

# The options whose answers change the rules.
OPTIONS_OF_RULES = ("broker", "trace_backend")
SERVICES = {"orders", "payments", "shipping", "notifications"}


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text("utf-8"))


def rules(project: Path) -> list[dict[str, Any]]:
    paths = sorted((project / "observability/prometheus/rules").glob("*.yaml"))
    found = [rule for path in paths for group in load(path)["groups"] for rule in group["rules"]]
    assert found
    return found


def alerts(project: Path) -> dict[str, dict[str, Any]]:
    return {rule["alert"]: rule for rule in rules(project) if "alert" in rule}


def sections(markdown: Path) -> list[str]:
    return re.findall(r"^## (.*)$", markdown.read_text("utf-8"), re.MULTILINE)


def boards(project: Path) -> dict[str, set[str]]:
    """Titles of each board's panels, by the board's uid."""
    found = {}
    for path in (project / "observability/grafana/dashboards").rglob("*.json"):
        board = json.loads(path.read_text("utf-8"))
        panels = [*board["panels"], *(p for row in board["panels"] for p in row.get("panels", []))]
        found[board["uid"]] = {panel.get("title", "") for panel in panels}
    assert found
    return found


def test_prometheus_accepts_the_rules(project: Path, bakery: Bakery) -> None:
    promtool = tool("promtool", "Prometheus reads its rules")
    paths = sorted((project / "observability/prometheus/rules").glob("*.yaml"))
    bakery.run(project, promtool, "check", "rules", "--lint-fatal", *map(str, paths))


@pytest.mark.parametrize(
    "row",
    {tuple(row[option] for option in OPTIONS_OF_RULES): row for row in reversed(matrix())}.values(),
    ids=lambda row: "-".join(row[option] for option in OPTIONS_OF_RULES),
)
def test_the_rules_pass_their_tests(row: dict[str, str], bakery: Bakery, tmp_path: Path) -> None:
    promtool = tool("promtool", "the tests of the rules")
    project = bakery.bake(row, tmp_path)
    paths = sorted((project / "observability/prometheus/tests").glob("*.yaml"))
    bakery.run(project, promtool, "test", "rules", *map(str, paths))


def test_every_alert_is_tested_to_fire_and_to_stay_silent(project: Path) -> None:
    paths = (project / "observability/prometheus/tests").glob("*.yaml")
    cases = [
        (case["alertname"], bool(case["exp_alerts"]))
        for path in paths
        for test in load(path)["tests"]
        for case in test.get("alert_rule_test", [])
    ]
    always = {"Watchdog"}
    assert set(cases) == {
        (name, fires)
        for name in alerts(project)
        for fires in (True, False)
        if fires or name not in always
    }


def test_every_alert_says_what_happened_and_how_urgent_it_is(project: Path) -> None:
    for name, alert in alerts(project).items():
        severities = {"heartbeat"} if name == "Watchdog" else {"page", "ticket"}
        assert alert["labels"]["severity"] in severities, name
        assert alert["annotations"].keys() == {
            "summary", "description", "runbook", "__dashboardUid__", "dashboard",
        }, name  # fmt: skip


def test_every_alert_leads_to_its_section_of_the_runbook(project: Path) -> None:
    leads_to = {
        name: alert["annotations"]["runbook"].split("#") for name, alert in alerts(project).items()
    }
    pages = {"docs/runbook.md", "docs/broker.md"}  # the second: what only this broker has
    for name, (page, section) in leads_to.items():
        assert page in pages, name
        assert section == name.lower()
        assert name in sections(project / page)
    assert set(sections(project / "docs/runbook.md")) <= leads_to.keys()


def test_every_alert_leads_to_a_board(project: Path) -> None:
    for name, alert in alerts(project).items():
        uid = alert["annotations"]["__dashboardUid__"]
        assert re.match(rf"/d/{uid}(\?|$)", alert["annotations"]["dashboard"]), name
        assert uid in boards(project), name


NOT_DRAWN = {
    "prometheus:uptime:seconds",  # a condition on Prometheus itself
    "messaging_consumer_position",  # whether it moves: "Consumed" and "Lag" show it
}


def test_the_board_that_an_alert_opens_asks_for_what_the_alert_asks(project: Path) -> None:
    recorded: dict[str, list[str]] = {}
    for rule in rules(project):
        if "record" in rule:
            recorded.setdefault(rule["record"], []).append(rule["expr"])

    def sources(expr: str) -> set[str]:
        """The metrics that a query, and the recorded series in it, are made of."""
        metrics = promql.names(expr)[0] - NOT_DRAWN
        made = {
            source
            for name in metrics
            for one in recorded.get(name, [])
            if name not in promql.names(one)[0]  # made of its own past
            for source in sources(one)
        }
        return made | metrics - recorded.keys() - NOT_DRAWN

    shown = {
        path.stem: {
            source
            for panel in load(path)["panels"]
            for target in panel.get("targets", [])
            if target["datasource"]["type"] == "prometheus"
            for source in sources(target["expr"])
        }
        for path in (project / "observability/grafana/dashboards").glob("*.json")
    }
    for name, alert in alerts(project).items():
        board = alert["annotations"]["__dashboardUid__"]
        assert sources(alert["expr"]) - shown[board] == set(), name


def test_the_runbook_names_boards_and_panels_that_there_are(project: Path) -> None:
    pages = [(project / "docs" / name).read_text("utf-8") for name in ("runbook.md", "broker.md")]
    text = " ".join("\n".join(pages).split())
    looks = re.findall(r"\*\*First look\.\*\* (.*?) \*\*Fix", text)
    titles = {title for titles in boards(project).values() for title in titles}
    named = {name for look in looks for name in re.findall(r'"([A-Z][^"]*?),?"', look)}
    assert named - titles == set()
    files = (project / "observability/grafana/dashboards").glob("*.json")
    assert (
        set(re.findall(r"([A-Z]\w+(?: [a-z]\w+)?) board\b", text))
        - {json.loads(file.read_text("utf-8"))["title"] for file in files}
        == set()
    )


def test_rules_know_no_service_by_name(project: Path) -> None:
    for rule in rules(project):
        assert not SERVICES.intersection(re.findall(r"\w+", json.dumps(rule))), rule


def test_the_disk_that_alerts_watch_is_that_of_the_collectors_queue(project: Path) -> None:
    folder = project / "observability"
    (volume,) = (
        volume.split(":")[1]
        for volume in load(folder / "compose.yaml")["services"]["otel-collector"]["volumes"]
        if volume.startswith("otel-collector-queue:")
    )
    receivers = load(folder / "otel-collector/config/collector.yaml")["receivers"]
    watched = receivers["host_metrics"]["scrapers"]["filesystem"]["include_mount_points"]
    assert watched["mount_points"] == [f"${{env:QUEUE_DIRECTORY:-{volume}}}"]
    (disk,) = (rule for rule in rules(project) if rule.get("record") == "disk:free:ratio")
    assert set(re.findall(r'mountpoint="(.*?)"', disk["expr"])) == {volume}


def test_alertmanager_accepts_its_configuration(project: Path, bakery: Bakery) -> None:
    amtool = tool("amtool", "Alertmanager reads its configuration")
    config = "observability/alertmanager/alertmanager.yaml"
    bakery.run(project, amtool, "check-config", config)
    for severity in ("page", "ticket", "heartbeat"):
        bakery.run(
            project, amtool, "config", "routes", "test", f"--config.file={config}",
            f"--verify.receivers={severity}", f"severity={severity}",
        )  # fmt: skip


def test_alertmanager_accepts_the_receivers_of_the_documentation(
    project: Path, bakery: Bakery, tmp_path: Path
) -> None:
    amtool = tool("amtool", "Alertmanager reads the receivers of the documentation")
    config = load(project / "observability/alertmanager/alertmanager.yaml")
    text = (project / "docs/alerts.md").read_text("utf-8")
    blocks = re.findall(r"^```yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert blocks
    for block in blocks:
        (receiver,) = yaml.safe_load(block)
        others = [other for other in config["receivers"] if other["name"] != receiver["name"]]
        path = tmp_path / "alertmanager.yaml"
        path.write_text(yaml.safe_dump({**config, "receivers": [receiver, *others]}))
        bakery.run(project, amtool, "check-config", str(path))


@pytest.mark.parametrize("file", ["compose.yaml", "observability/compose.yaml"])
def test_alertmanager_is_off_until_env_asks_for_it(
    file: str, bakery: Bakery, tmp_path: Path
) -> None:
    project = bakery.bake({}, tmp_path)
    command = (*docker_compose("Alertmanager is off and can be put on"), "-f", file, "config")
    shell = f"{' '.join(command)} --services | grep -qx alertmanager"
    bakery.run(project, "sh", "-c", f"! {shell}")
    env = project / file.replace("compose.yaml", ".env")
    env.write_text(env.read_text().replace("#COMPOSE_PROFILES", "COMPOSE_PROFILES"))
    bakery.run(project, "sh", "-c", shell)
