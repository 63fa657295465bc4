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
PROVISIONED = "observability/grafana/provisioning/datasources/traces.yaml"
AS_OF_0_1_0 = """\
apiVersion: 1
datasources:
  - name: Tempo
    uid: tempo
    type: tempo
    url: http://tempo:3200
"""


@dataclass(frozen=True)
class OneVolume:
    """Projects that share the name and .env of the first, and so what Grafana keeps."""

    first: Stack
    home: Path

    def start(self, traces: str, provisioned: str = "") -> Path:
        """Start the Grafana of another project, and return its folder.

        Args:
            provisioned: What its file for the trace backend says, instead of what is baked.
        """
        self.first.compose("rm", "--stop", "--force", "grafana")
        stack = Stack.bake(Path(tempfile.mkdtemp(dir=self.home)), traces=traces)
        stack.project, stack.ports = self.first.project, self.first.ports
        shutil.copy(self.first.folder / ".env", stack.folder / ".env")
        if provisioned:
            (stack.folder / PROVISIONED).write_text(provisioned)
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
    """All else is as the files say, and none is left of what there was before."""
    volume.start("tempo", AS_OF_0_1_0)
    assert "tempo" in volume.found()
    for traces in BACKENDS:
        expected = data_sources(volume.start(traces))
        assert expected["traces"]["type"] == traces
        assert volume.found() == expected
    volume.first.restart("grafana")
    assert volume.found() == expected
