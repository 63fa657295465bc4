"""Grafana comes up with the volume of an older project, and with that of another trace backend."""

import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from matrix import OPTIONS

from .apis import Grafana
from .stack import Stack, is_at_hand
from .stores import chosen

BACKENDS = OPTIONS["trace_backend"]

pytestmark = pytest.mark.skipif(
    chosen() != BACKENDS[0], reason="it is the same whichever backend TRACES names"
)

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

    def data_sources(self, traces: str, provisioned: str = "") -> dict[str, str]:
        """Start the Grafana of another project; return the kinds of its data sources by uid.

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
        return self.found()

    def found(self) -> dict[str, str]:
        grafana = Grafana(self.first.url("GRAFANA_PORT"), self.first.password())
        return {one["uid"]: one["type"] for one in grafana.datasources()}


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[OneVolume]:
    first = Stack.bake(tmp_path, kind="e2e-volume")
    if not is_at_hand(first.image("grafana")):
        pytest.skip("there is no image of Grafana")
    try:
        yield OneVolume(first, tmp_path)
    finally:
        first.compose("down", "--volumes", "--remove-orphans", timeout=120)


def expected(traces: str) -> dict[str, str]:
    """None is left of what there was before."""
    return {"prometheus": "prometheus", "loki": "loki", "traces": traces}


def test_the_traces_are_found_after_an_update_and_in_another_backend(volume: OneVolume) -> None:
    assert "tempo" in volume.data_sources("tempo", AS_OF_0_1_0)
    for traces in BACKENDS:
        assert volume.data_sources(traces) == expected(traces)
    volume.first.restart("grafana")
    assert volume.found() == expected(BACKENDS[-1])
