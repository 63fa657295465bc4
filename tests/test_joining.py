"""docs/joining.md is true: its snippets join the network, and service.name is enough."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from collector import running, span
from tools import docker_compose

WHOLE, ALONE = "compose.yaml", "observability/compose.yaml"


def text(project: Path) -> str:
    return (project / "docs/joining.md").read_text("utf-8")


def snippets(project: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The service of another project, and what is added to it to be scraped."""
    joins, scraped = re.findall(r"^```yaml\n(.*?)^```$", text(project), re.MULTILINE | re.DOTALL)
    return yaml.safe_load(joins), yaml.safe_load(scraped)


def config(folder: Path, *arguments: str) -> dict[str, Any]:
    """What Compose makes of files."""
    done = subprocess.run(
        [*docker_compose("docs/joining.md names the real network"), *arguments, "config",
         "--format", "json"],
        cwd=folder, capture_output=True, encoding="utf-8",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize(
    "arguments", [["-f", WHOLE], ["-f", WHOLE, "-p", "other"], ["-f", ALONE]], ids=" ".join
)
def test_the_page_knows_the_networks_name(arguments: list[str], default_project: Path) -> None:
    made = config(default_project, *arguments)
    name = made["networks"]["observability"]["name"]
    assert name == f"{made['name']}_observability"  # two stacks side by side have one each
    assert f"`{name}`" in text(default_project)


def test_a_service_of_another_project_joins_the_network(
    default_project: Path, tmp_path: Path
) -> None:
    stack = config(default_project, "-f", WHOLE)
    joins, scraped = snippets(default_project)
    (service,) = joins["services"].values()
    service["image"] = "busybox"
    for networks in (service["networks"], scraped["networks"]):
        service["networks"] = networks
        (tmp_path / "compose.yaml").write_text(yaml.safe_dump(joins))
        other = config(tmp_path)
        assert other["networks"]["observability"]["external"]
        assert (
            other["networks"]["observability"]["name"] == stack["networks"]["observability"]["name"]
        )
    host, _, port = service["environment"]["OTEL_EXPORTER_OTLP_ENDPOINT"][7:].partition(":")
    assert port in {str(one["target"]) for one in stack["services"][host]["ports"]}
    aliases = scraped["networks"]["observability"]["aliases"]
    prometheus = yaml.safe_load(
        (default_project / "observability/prometheus/prometheus.yaml").read_text("utf-8")
    )
    (job,) = (one for one in prometheus["scrape_configs"] if one["job_name"] == "services")
    assert aliases == job["dns_sd_configs"][0]["names"]


def test_a_name_is_all_that_a_service_must_have(default_project: Path, tmp_path: Path) -> None:
    with running(default_project, tmp_path) as collector:
        collector.send_spans([span(name="GET /bills", kind=2)], **{"service.name": "billing"})
        collector.wait_for(
            "metrics",
            lambda found: (
                "traces.span.metrics.calls" in found
                and '{"key":"service.name","value":{"stringValue":"billing"}}' in found
            ),
        )
