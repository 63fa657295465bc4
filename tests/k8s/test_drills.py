"""No drill loses anything, and what is repeated is what was in flight."""

import pytest

from bench.drills import report
from bench.drills.ledger import Ground, Ledger
from bench.drills.promises import broken

from .cluster import Cluster
from .drills import DRILLS


@pytest.mark.parametrize("name", DRILLS)
def test_promise_is_kept(
    name: str, ground: Ground, stack: Cluster, drills_table: dict[str, str]
) -> None:
    ground.wait_until_healthy()
    promise = DRILLS[name].promise
    figures = DRILLS[name].act(Ledger(ground), stack)
    drills_table[name] = report.row(stack.broker, promise, figures)
    assert broken(promise, figures) == []
