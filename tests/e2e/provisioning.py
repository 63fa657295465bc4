"""What Grafana makes of the files that its data sources come from."""

import re
from pathlib import Path
from string import Template
from typing import Any

import yaml

SETTING = re.compile(r"^(\w+)=('?)(.*)\2$", re.MULTILINE)


def data_sources(project: Path) -> dict[str, dict[str, Any]]:
    """Return each data source of a baked project by its uid."""
    grafana = project / "observability/grafana"
    settings = SETTING.findall((grafana / "traces.env").read_text("utf-8"))
    variables = {name: value for name, _, value in settings}
    files = sorted((grafana / "provisioning/datasources").glob("*.yaml"))
    read = (_filled(yaml.safe_load(path.read_text("utf-8")), variables) for path in files)
    return {one["uid"]: one for file in read for one in file["datasources"]}


def _filled(value: Any, variables: dict[str, str]) -> Any:
    """Fill in variables, once; `$$` is one `$`."""
    match value:
        case dict():
            return {key: _filled(one, variables) for key, one in value.items()}
        case list():
            return [_filled(one, variables) for one in value]
        case str():
            return Template(value).substitute(variables)
    return value
