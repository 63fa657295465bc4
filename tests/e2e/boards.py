"""Every query of every board, with its variables filled in as Grafana does."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SCRAPE_SECONDS = 15  # the data source's timeInterval
VARIABLE = re.compile(r"\$(?:\{([A-Za-z_]\w*)(?::(\w+))?\}|([A-Za-z_]\w*))")


@dataclass(frozen=True)
class Target:
    """A query of a panel, or of a variable of a board."""

    board: str
    panel: str
    ref: str
    source: str
    """Kind of data source: prometheus, loki or the trace store's."""
    query: str
    instant: bool
    fields: str = "{}"
    """All that the query says to its data source, in JSON."""
    step: int = SCRAPE_SECONDS
    """Seconds; the least that the panel wants between two points."""

    def __str__(self) -> str:
        return f"{self.board}: {self.panel} ({self.ref})"

    def filled(self, values: Mapping[str, str], seconds: int) -> str:
        """Return the query for these values of variables and this length of the time range.

        Raises:
            KeyError: It has another variable.
        """
        return self._fill(self.query, values, seconds)

    def filled_fields(self, values: Mapping[str, str], seconds: int) -> dict[str, Any]:
        """Likewise of all that the query says; no value has a quote in it."""
        fields: dict[str, Any] = json.loads(self._fill(self.fields, values, seconds))
        return fields

    def _fill(self, text: str, values: Mapping[str, str], seconds: int) -> str:
        known = {
            "__rate_interval": f"{max(4 * SCRAPE_SECONDS, self.step + SCRAPE_SECONDS)}s",
            "__interval": f"{self.step}s",
            "__range": f"{seconds}s",
            "__range_s": str(seconds),
            **{source: f"faststream-{source}" for source in ("loki", "prometheus", "traces")},
            **values,
        }
        return VARIABLE.sub(lambda found: known[found[1] or found[3]], text)


def boards(project: Path) -> dict[str, dict[str, Any]]:
    """Return each board of a baked project by its uid."""
    folder = project / "observability/grafana/dashboards"
    read = (json.loads(path.read_text("utf-8")) for path in sorted(folder.glob("*.json")))
    return {board["uid"]: board for board in read}


def targets(project: Path) -> Iterator[Target]:
    for uid, board in boards(project).items():
        for panel in board["panels"]:
            for target in panel.get("targets", []):
                yield Target(
                    uid,
                    panel["title"],
                    target["refId"],
                    target["datasource"]["type"],
                    target.get("expr") or target.get("query") or target["service"],
                    bool(target.get("instant")),
                    json.dumps(target),
                    _seconds(panel.get("interval", f"{SCRAPE_SECONDS}s")),
                )


def _seconds(interval: str) -> int:
    return int(interval[:-1]) * {"s": 1, "m": 60}[interval[-1]]


def variables(project: Path) -> Iterator[Target]:
    """Those whose values are asked for, as queries that give the series to take them from."""
    for uid, board in boards(project).items():
        for variable in board["templating"]["list"]:
            if variable["type"] != "query":
                continue
            found = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"])
            assert found, f"{uid}: the variable {variable['name']} is no label_values()"
            yield Target(
                uid,
                f"variable {variable['name']}",
                "-",
                variable["datasource"]["type"],
                f"count by ({found[2]}) ({found[1]})",
                instant=True,
            )
