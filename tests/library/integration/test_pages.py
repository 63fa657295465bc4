"""The documents and metrics that every service serves."""

import json
import urllib.request

import pytest

from .conftest import Process, Start

MODULE = f"{__package__}.probe"


@pytest.fixture
def service(start: Start) -> Process:
    process = start("-m", MODULE, OTEL_SDK_DISABLED="true")
    process.wait_ready()
    return process


def read(service: Process, path: str) -> str:
    url = f"http://127.0.0.1:{service.port}{path}"
    with urllib.request.urlopen(url, timeout=10) as answer:
        text: str = answer.read().decode()
    return text


def test_documents(service: Process) -> None:
    for document in ("/asyncapi.json", "/openapi.json"):
        assert json.loads(read(service, document))["info"]["title"] == "probe service"


def test_metrics_say_whose_they_are(service: Process) -> None:
    text = read(service, "/metrics")
    (line,) = (line for line in text.splitlines() if line.startswith("target_info{"))
    assert 'service_name="probe"' in line
    assert "service_instance_id=" in line
