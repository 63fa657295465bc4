"""Grafana comes up with the volume of an older project, and with that of another trace backend."""

import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from matrix import OPTIONS

from .apis import Grafana
from .provisioning import data_sources
from .stack import Stack, is_at_hand
from .stores import chosen

BACKENDS = OPTIONS["trace_backend"]

pytestmark = pytest.mark.skipif(
    chosen() != BACKENDS[0], reason="it is the same whichever backend TRACES names"
)

SAID = ("name", "uid", "type", "url", "isDefault", "jsonData")
PROVISIONING = "observability/grafana/provisioning/datasources"
OTHERS = """\
apiVersion: 1
datasources:
  - name: Prometheus
    uid: prometheus
    type: prometheus
    url: http://elsewhere:9090
    isDefault: true
  - name: Tempo
    uid: traces
    type: tempo
    url: http://elsewhere:3200
  - name: Jaeger
    uid: jaeger
    type: jaeger
    url: http://elsewhere:16686
"""
"""Those of an older project, and of its users."""


@dataclass(frozen=True)
class OneVolume:
    """Projects that share the name and .env of the first, and so what Grafana keeps."""

    first: Stack
    home: Path

    def start(self, traces: str, provisioned: str = "") -> Path:
        """Start the Grafana of another project, and return its folder.

        Args:
            provisioned: Its only file of data sources, instead of those that are baked.
        """
        self.first.compose("rm", "--stop", "--force", "grafana")
        stack = Stack.bake(Path(tempfile.mkdtemp(dir=self.home)), traces=traces)
        stack.project, stack.ports = self.first.project, self.first.ports
        shutil.copy(self.first.folder / ".env", stack.folder / ".env")
        if provisioned:
            for path in (stack.folder / PROVISIONING).iterdir():
                path.unlink()
            (stack.folder / PROVISIONING / "others.yaml").write_text(provisioned)
        stack.services = ["grafana"]
        stack.up()
        return stack.folder

    def found(self) -> dict[str, dict[str, Any]]:
        """Return the data sources that there are, by uid, with what files say of them."""
        grafana = Grafana(self.first.url("GRAFANA_PORT"), self.first.password())
        return {
            one["uid"]: {key: one[key] for key in SAID if one.get(key)}
            for one in grafana.datasources()
        }


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[OneVolume]:
    first = Stack.bake(tmp_path, kind="e2e-volume")
    if not is_at_hand(first.image("grafana")):
        pytest.skip("there is no image of Grafana")
    try:
        yield OneVolume(first, tmp_path)
    finally:
        first.compose("down", "--volumes", "--remove-orphans", timeout=120)


def test_the_traces_are_found_after_an_update_and_in_another_backend(volume: OneVolume) -> None:
    """Ours are as the files say, and all others as they were, but that ours is the default."""
    volume.start("tempo", OTHERS)
    others = volume.found()
    assert others.keys() == {"prometheus", "traces", "jaeger"}
    del others["prometheus"]["isDefault"]
    for traces in BACKENDS:
        ours = data_sources(volume.start(traces))
        assert ours["faststream-traces"]["type"] == traces
        assert volume.found() == others | ours
    volume.first.restart("grafana")
    assert volume.found() == others | ours
