"""The command line of `make bench`, and the middlewares that it measures."""

import os
import subprocess
import sys

import pytest
from matrix import OPTIONS, TEMPLATE

from bench.pipelines import PIPELINES, Pipeline
from bench.variant import faststream_middleware, library_middleware


def bench(*arguments: str, **variables: str) -> str:
    """The error of a run that measures nothing."""
    done = subprocess.run(
        [sys.executable, "-m", "bench", *arguments],
        cwd=TEMPLATE,
        env={name: value for name, value in os.environ.items() if name != "BROKER_URL"} | variables,
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    return done.stderr


def test_a_missing_address_is_asked_for_with_an_example() -> None:
    assert "Set its address, for example BROKER_URL=127.0.0.1:9092" in bench()


def test_rabbitmq_is_asked_for_where_it_is_not_installed() -> None:
    error = bench("--broker", "rabbitmq", PATH="")
    assert "install rabbitmq-server, or start one and set BROKER_URL" in " ".join(error.split())


def test_an_address_in_place_of_a_broker_is_refused_with_the_choices() -> None:
    error = bench("--broker", "127.0.0.1:9092")
    assert all(repr(broker) in error for broker in PIPELINES)


def test_an_option_goes_before_the_variable() -> None:
    error = bench("--broker-url", "[", "--rounds", "1", BROKER_URL="127.0.0.1:1")
    assert "bare failed with kafka at [:" in error


def test_each_broker_of_a_bake_can_be_measured() -> None:
    assert set(OPTIONS["broker"]) <= set(PIPELINES)


@pytest.mark.parametrize("pipeline", PIPELINES.values(), ids=PIPELINES)
@pytest.mark.parametrize("kind", ["Telemetry", "Prometheus"])
def test_each_broker_has_middlewares_of_faststream_and_of_the_library(
    pipeline: type[Pipeline], kind: str
) -> None:
    assert library_middleware(pipeline, kind) is not faststream_middleware(pipeline, kind)
