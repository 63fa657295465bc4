"""What a service prints of what goes on for long."""

import logging

import pytest

from {{ cookiecutter.package_name }}.logs import configure_logging


@pytest.mark.parametrize(
    "name",
    ["aiokafka", "aiokafka.cluster", "aiokafka.consumer.fetcher",
     "aiokafka.consumer.group_coordinator"],
)  # fmt: skip
def test_a_client_without_its_broker_says_the_same_but_once(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    configure_logging("INFO")
    logging.getLogger().addHandler(caplog.handler)

    for broker in [1, 1, 2, 1, 2]:
        logging.getLogger(name).error("%s failed at %s", name, broker)

    assert caplog.messages == [f"{name} failed at 1", f"{name} failed at 2"]
