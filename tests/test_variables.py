"""A variable that is set but empty means its default, wherever Compose hands it on."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml


def environment(project: Path, file: str, service: str) -> dict[str, str | None]:
    services: dict[str, Any] = yaml.safe_load((project / file).read_text("utf-8"))["services"]
    found: dict[str, str | None] = services[service]["environment"]
    return found


def test_the_collector_gets_the_defaults_of_its_own_configuration(default_project: Path) -> None:
    """To the Collector an empty variable is a value."""
    config = default_project / "observability/otel-collector/config"
    text = "".join(path.read_text("utf-8") for path in sorted(config.rglob("*.yaml")))
    defaults = dict(re.findall(r"\$\{env:(\w+):-([^}]+)\}", text))
    handed = environment(default_project, "observability/compose.yaml", "otel-collector")
    for name in defaults.keys() & handed:
        assert handed[name] == f"${{{name}:-{defaults[name]}}}"
    # These are of the image, or of start.sh.
    own = {"CONFIG_FOLDER", "QUEUE_DIRECTORY", "CERTIFICATES", "QUEUE_FILES_ASIDE"}
    assert defaults.keys() - handed == own


def test_a_service_starts_with_empty_variables(default_project: Path) -> None:
    handed = environment(default_project, "compose.yaml", "orders")
    empty = {name: "" for name, value in handed.items() if value is None}
    assert {"OTEL_EXPORTER_OTLP_COMPRESSION", "RETRY_ATTEMPTS", "BROKER_SASL_MECHANISM"} <= set(
        empty
    )
    given = {name: value for name, value in os.environ.items() if name not in handed}
    library = default_project / "libs/faststream-otel/src"
    done = subprocess.run(
        [sys.executable, "-c", "import order_flow.services.orders"],
        env=given | empty | {"PYTHONPATH": f"{default_project / 'src'}:{library}"},
        capture_output=True,
        encoding="utf-8",
    )
    assert (done.returncode, done.stderr) == (0, "")
