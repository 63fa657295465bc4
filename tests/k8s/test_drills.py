"""No drill loses anything, and what is repeated is what was in flight."""

import pytest

from bench.drills import report
from bench.drills.ledger import Ground, Ledger
from bench.drills.promises import broken

from .cluster import Cluster
from .drills import DRILLS

RATE = 20.0


@pytest.fixture(scope="module")
def ground(stack: Cluster) -> Ground:
    # On a busy machine scaling on CPU would start pods in the middle of a drill.
    stack.kubectl("delete", "horizontalpodautoscalers", "--all")
    stack.wait_until_well(*stack.services)
    ground = Ground(stack, RATE)
    ground.channels.prepare()
    return ground


@pytest.mark.parametrize("name", DRILLS)
def test_promise_is_kept(
    name: str, ground: Ground, stack: Cluster, drills_table: dict[str, str]
) -> None:
    ground.wait_until_healthy()
    promise = DRILLS[name].promise
    figures = DRILLS[name].act(Ledger(ground), stack)
    drills_table[name] = report.row(stack.broker, promise, figures)
    assert broken(promise, figures) == []
