"""What exporters log while nobody receives."""

import logging
from collections.abc import Iterator

import pytest
import requests
from faststream_otel.telemetry.exporters import _patient_session
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from ..ports import refusing_port


@pytest.fixture
def asked_for(request: pytest.FixtureRequest) -> Iterator[None]:
    exporters = logging.getLogger("opentelemetry.exporter")
    before = exporters.level
    exporters.setLevel(logging.NOTSET if request.param else logging.CRITICAL)
    yield
    exporters.setLevel(before)


def attempts(session: requests.Session, caplog: pytest.LogCaptureFixture) -> int:
    adapter = session.get_adapter("http://")
    assert isinstance(adapter, HTTPAdapter)
    adapter.max_retries = adapter.max_retries.new(connect=1, backoff_factor=0)
    with refusing_port() as port, pytest.raises(requests.ConnectionError):
        session.get(f"http://127.0.0.1:{port}")
    return caplog.text.count("Retrying (")


@pytest.mark.parametrize(("asked_for", "expected"), [(False, 0), (True, 1)], indirect=["asked_for"])
def test_attempts_to_connect_are_logged_if_asked_for(
    asked_for: None, expected: int, caplog: pytest.LogCaptureFixture
) -> None:
    assert attempts(_patient_session(1), caplog) == expected


@pytest.mark.parametrize("asked_for", [False], indirect=True)
def test_those_of_others_are_logged(asked_for: None, caplog: pytest.LogCaptureFixture) -> None:
    _patient_session(1)
    session = requests.Session()
    session.mount("http://", HTTPAdapter(max_retries=Retry(connect=1)))
    assert attempts(session, caplog) == 1
