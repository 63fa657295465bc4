"""What every service serves to people and to Prometheus."""

import urllib.request

import pytest

from .conftest import Process, Start

MODULE = f"{__package__}.probe"


@pytest.fixture
def service(start: Start) -> Process:
    process = start("-m", MODULE, OTEL_SDK_DISABLED="true")
    process.wait_ready()
    return process


def read(service: Process, path: str) -> tuple[str, str]:
    """Where a request ended, and what was there."""
    url = f"http://127.0.0.1:{service.port}"
    with urllib.request.urlopen(url + path, timeout=10) as answer:
        return answer.url.removeprefix(url), answer.read().decode()


def test_pages(service: Process) -> None:
    where, page = read(service, "/")
    assert where == "/asyncapi"
    assert "asyncapi.js" in page
    assert '"probe service"' in read(service, "/asyncapi.json")[1]


def test_metrics_say_whose_they_are(service: Process) -> None:
    _, text = read(service, "/metrics")
    (line,) = (line for line in text.splitlines() if line.startswith("target_info{"))
    assert 'service_name="probe"' in line
    assert "service_instance_id=" in line
