"""The drills that take least, on this stack; `make drills` has all of them."""

import time

import pytest
from matrix import OPTIONS

from bench.drills.promises import PROMISES, broken, drills_for
from bench.drills.runner import run
from bench.drills.site import Site

from .brokers import chosen_broker
from .stack import Stack

pytestmark = pytest.mark.disturbs_the_stack

RATE = 8.0  # the queues of spans are short here, so that an outage of seconds fills them

WITH_EVERY_BROKER = {"poison", "redelivery", "broker_restart"}
"""What a broker's own adapter decides; the drills of services take longer."""

DRILLS = [
    pytest.param(name, marks=pytest.mark.every_broker if name in WITH_EVERY_BROKER else ())
    for name in ["poison", "fuzz", "memory", "redelivery", "sigterm", "kill", "broker_restart"]
    if name in drills_for(chosen_broker(), OPTIONS["broker"][0])
]


@pytest.fixture(scope="module")
def site(stack: Stack) -> Site:
    site = Site(stack, RATE, quick=True)
    site.channels.prepare()
    return site


@pytest.mark.parametrize("name", DRILLS)
def test_promise_is_kept(name: str, site: Site) -> None:
    site.wait_until_healthy()
    began = time.time()
    found = broken(PROMISES[name], run(site, name))
    if found:
        print(site.stack.last_logs(since=began))
    assert found == []
