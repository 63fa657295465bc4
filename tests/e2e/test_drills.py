"""The drills that take least, on this stack; `make drills` has all of them."""

import time

import pytest

from bench.drills.promises import PROMISES, broken
from bench.drills.runner import run
from bench.drills.site import Site

from .stack import Stack

pytestmark = pytest.mark.disturbs_the_stack

RATE = 8.0  # the queues of spans are short here, so that an outage of seconds fills them

DRILLS = ["poison", "fuzz", "memory", "redelivery", "sigterm", "kill", "broker_restart"]


@pytest.fixture(scope="module")
def site(stack: Stack) -> Site:
    return Site(stack, RATE, quick=True)


@pytest.mark.parametrize("name", DRILLS)
def test_promise_is_kept(name: str, site: Site) -> None:
    site.wait_until_healthy()
    began = time.time()
    found = broken(PROMISES[name], run(site, name))
    if found:
        print(site.stack.last_logs(since=began))
    assert found == []
