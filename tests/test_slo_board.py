"""The board SLO counts as the rules do: both, evaluated by promtool."""

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from matrix import TEMPLATE
from tools import tool

from dashboards.build import files

RULES = TEMPLATE / "{{cookiecutter.project_slug}}/observability/prometheus/rules"
FLOW = "messaging_flow_duration_seconds"
PROJECT = {"service_namespace": "shop", "deployment_environment_name": "production"}

Series = dict[str, str]


def flows(channel: str, outcome: str, per_minute: int, in_time: int) -> list[Series]:
    labels = {
        **PROJECT,
        "service_name": "desk",
        "messaging_destination_template": channel,
        "outcome": outcome,
    }
    return [
        series(f"{FLOW}_count", per_minute, labels),
        series(f"{FLOW}_bucket", in_time, {**labels, "le": "5.0"}),
        series(f"{FLOW}_bucket", per_minute, {**labels, "le": "+Inf"}),
    ]


def answers(method: str, status: str, per_minute: int, **labels: str) -> Series:
    return series(
        "http_server_request_duration_seconds_count",
        per_minute,
        {
            **PROJECT,
            "service_name": "desk",
            "http_request_method": method,
            "http_response_status_code": status,
            **labels,
        },
    )


def series(name: str, per_minute: int, labels: dict[str, str]) -> Series:
    selector = ", ".join(f'{key}="{value}"' for key, value in labels.items())
    return {"series": f"{name}{{{selector}}}", "values": f"0+{per_minute}x90"}


HAPPENED = [
    *flows("orders", "succeeded", 60, in_time=54),
    *flows("orders", "failed", 20, in_time=20),
    *flows("returns", "succeeded", 20, in_time=20),
    answers("POST", "503", 25),
    # No flow was to begin with these.
    answers("POST", "422", 40),
    answers("GET", "500", 40),
    answers("POST", "500", 40, service_namespace="without flows"),
]


@pytest.mark.parametrize(
    ("title", "destination", "expected"),
    [
        ("Good flows, last hour", ".*", "flow:bad:ratio_rate1h"),
        ("Flows ended", ".*", "flow:ended:rate5m"),
        ("Flows ended", ".*", 125 / 60),
        ("Rate of flows, against the usual", ".*", "flow:ended:rate15m"),
        ("Rate of flows, against the usual", "returns", 20 / 60),
        ("Good flows, last hour", "orders", 0.675),
        ("Good flows, last hour", "returns", 1.0),
        ("Flows ended", "returns", 20 / 60),
        ("Burn rate, last hour", "orders", 32.5),
        ("Error budget left, 3 days", "returns", 1.0),
    ],
)
def test_numbers(title: str, destination: str, expected: str | float, tmp_path: Path) -> None:
    query = board_query(title).replace("$destination", destination)
    found = ask(query, tmp_path)
    if isinstance(expected, str):
        recorded = ask(expected, tmp_path)
        expected = 1 - recorded if title.startswith("Good") else recorded
    assert found == pytest.approx(expected)


def board_query(title: str) -> str:
    (text,) = (text for path, text in files().items() if path.stem == "faststream-slo")
    (panel,) = (panel for panel in json.loads(text)["panels"] if panel["title"] == title)
    return re.sub(r"\$(service|environment)", ".*", panel["targets"][0]["expr"])


def ask(query: str, folder: Path) -> float:
    """Return the answer, one number, after an hour and a half of what happened."""
    promtool = tool("promtool", "the board SLO counts as the rules do")
    case = {"expr": query, "eval_time": "90m", "exp_samples": []}
    test = {"interval": "1m", "input_series": HAPPENED, "promql_expr_test": [case]}
    rules = [str(RULES / name) for name in ("flow.yaml", "flow-rate.yaml", "telemetry.yaml")]
    document = {"rule_files": rules, "evaluation_interval": "1m", "tests": [test]}
    (folder / "test.yaml").write_text(yaml.safe_dump(document), "utf-8")
    done = subprocess.run(
        [promtool, "test", "rules", "test.yaml"], cwd=folder, capture_output=True, encoding="utf-8"
    )
    found = re.findall(r"\} ([-+\d.E]+)", done.stdout.partition("got:")[2] or done.stderr)
    assert len(found) == 1, done.stdout + done.stderr
    return float(found[0])
