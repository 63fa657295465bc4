"""Every container is confined, and every port on loopback, as the compose files have it.

What cannot be seen there, that it holds for what runs, is in e2e/test_containers.py.
"""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tools
import yaml

ROOTS = ["compose.yaml", "observability/compose.yaml"]

EXEMPT = {
    ("channels", "restart"): "it creates the channels and ends",
    ("channels", "healthcheck"): "it has ended before it could be asked",
    ("tools", "restart"): "it is run by hand, and ends",
    ("tools", "healthcheck"): "likewise",
}
"""By service and property: why it may lack it."""

PINNED = re.compile(r"[a-z][\w./-]*:v?\d+\.\d+\.\d+[\w.-]*")
OWN_IMAGE = ":local"  # built here, by the service `channels`

Service = dict[str, Any]


def docker_is_here() -> bool:
    try:
        tools.docker_compose("containers are confined, as Compose reads it")
    except pytest.skip.Exception:
        return False
    return True


def read_by_compose(root: Path) -> dict[str, Service]:
    command = ["docker", "compose", "-f", str(root), "--profile", "*", "config", "--format", "json"]
    done = subprocess.run(command, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    services: dict[str, Service] = json.loads(done.stdout)["services"]
    return services


def read_by_itself(root: Path) -> dict[str, Service]:
    """Merge what is included as Compose does, as far as it matters here."""
    content = yaml.safe_load(root.read_text("utf-8"))
    services: dict[str, Service] = {}
    for included in content.get("include", []):
        services |= read_by_itself(root.parent / included)
    for name, service in content["services"].items():
        services[name] = extended(root, service)
    return services


def extended(root: Path, service: Service) -> Service:
    """Lay a service over the one that it extends, the parts of its health check too."""
    if "extends" not in service:
        return service
    theirs = yaml.safe_load((root.parent / service["extends"]["file"]).read_text("utf-8"))
    base = theirs["services"][service["extends"]["service"]]
    check = base.get("healthcheck", {}) | service.get("healthcheck", {})
    environment = base["environment"] | service.get("environment", {})
    merged: Service = base | service | {"healthcheck": check, "environment": environment}
    return merged


@pytest.fixture(params=["as Compose reads it", "as it stands"])
def read(request: pytest.FixtureRequest) -> Any:
    if request.param == "as it stands":
        return read_by_itself
    if not docker_is_here():
        pytest.skip("docker is not here")
    return read_by_compose


@pytest.fixture(params=ROOTS)
def services(request: pytest.FixtureRequest, project: Path, read: Any) -> dict[str, Service]:
    found: dict[str, Service] = read(project / request.param)
    return found


PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


def proxies(service: Service) -> Iterator[tuple[str, object]]:
    """The proxies that it would take from ~/.docker/config.json, or has: all that are not empty."""
    environment = service.get("environment", {})
    for name in (*PROXIES, *map(str.lower, PROXIES)):
        if environment.get(name) != "":
            yield name, environment.get(name)


def ports(service: Service) -> Iterator[str]:
    """The address that each port is published on; empty for all."""
    for port in service.get("ports", []):
        if isinstance(port, dict):
            yield port.get("host_ip", "")
        else:
            yield port.rpartition(":")[0].partition(":")[0] if port.count(":") > 1 else ""


def faults(service: Service) -> Iterator[tuple[str, object]]:
    """What it lacks, by the property's name."""
    for address in ports(service):
        if address != "127.0.0.1":
            yield "ports", address
    for key, expected in {"read_only": True, "cap_drop": ["ALL"]}.items():
        if service.get(key) != expected:
            yield key, service.get(key)
    if "no-new-privileges:true" not in service.get("security_opt", []):
        yield "security_opt", service.get("security_opt")
    for key in ("mem_limit", "pids_limit", "stop_grace_period"):
        if not service.get(key):
            yield key, None
    if service.get("restart") != "unless-stopped":
        yield "restart", service.get("restart")
    if "test" not in service.get("healthcheck", {}):
        yield "healthcheck", service.get("healthcheck")
    for key in ("privileged", "cap_add", "devices", "network_mode", "pid", "ipc", "userns_mode"):
        if service.get(key):
            yield key, service[key]
    if str(service.get("user", "1")).partition(":")[0] in {"0", "root"}:
        yield "user", service["user"]
    for mount in service.get("volumes", []):
        source, target, read_only, labelled = described(mount)
        if source.startswith((".", "/")) and not read_only:
            yield "volumes", f"{source} can be written to"
        if source.startswith((".", "/")) and not labelled:
            yield "volumes", f"{source} has no z: SELinux hides it from the container"
        if "docker.sock" in source + target:
            yield "volumes", source
    image = service.get("image", "")  # what a build starts from: test_repository.py
    if not service.get("build") and not PINNED.fullmatch(image) and not image.endswith(OWN_IMAGE):
        yield "image", image


def described(mount: str | dict[str, Any]) -> tuple[str, str, bool, bool]:
    """Its source, its target, whether it is read-only, whether SELinux lets containers share it."""
    if isinstance(mount, dict):
        labelled = mount.get("bind", {}).get("selinux") == "z"
        return mount.get("source", ""), mount["target"], bool(mount.get("read_only")), labelled
    source, target, *options = mount.split(":")
    flags = options[0].split(",") if options else []
    return source, target, "ro" in flags, "z" in flags


def test_no_container_talks_to_another_through_a_proxy(
    services: dict[str, Service],
) -> None:
    found = {
        f"{name}: {key}": value
        for name, service in services.items()
        for key, value in proxies(service)
        if value != "${ALERTMANAGER_PROXY:-}"
    }
    assert found == {}


def test_alertmanager_has_a_proxy_of_its_own(project: Path) -> None:
    """Only it has somewhere to go. busybox's wget, its health check, reads the lower-case names."""
    service = read_by_itself(project / ROOTS[0])["alertmanager"]
    assert dict(proxies(service)) == {
        "HTTP_PROXY": "${ALERTMANAGER_PROXY:-}",
        "HTTPS_PROXY": "${ALERTMANAGER_PROXY:-}",
    }
    configuration = project / "observability/alertmanager/alertmanager.yaml"
    settings = yaml.safe_load(configuration.read_text("utf-8"))["global"]["http_config"]
    assert settings == {"proxy_from_environment": True}


def test_every_service_is_confined(services: dict[str, Service]) -> None:
    assert {"otel-collector", "prometheus", "loki", "grafana", "alertmanager"} <= services.keys()
    found = {
        f"{name}: {key}": what
        for name, service in services.items()
        for key, what in faults(service)
        if (name, key) not in EXEMPT
    }
    assert found == {}


def test_no_exemption_is_left_over(project: Path) -> None:
    found = {
        (name, key)
        for name, service in read_by_itself(project / "compose.yaml").items()
        for key, _ in faults(service)
    }
    assert set(EXEMPT) <= found


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"ports": ["8000:8000"]}, "ports"),
        ({"ports": ["0.0.0.0:8000:8000"]}, "ports"),
        ({"ports": [{"target": 8000, "published": "8000"}]}, "ports"),
        ({"read_only": False}, "read_only"),
        ({"cap_drop": ["NET_RAW"]}, "cap_drop"),
        ({"cap_add": ["SYS_ADMIN"]}, "cap_add"),
        ({"security_opt": []}, "security_opt"),
        ({"mem_limit": None}, "mem_limit"),
        ({"pids_limit": None}, "pids_limit"),
        ({"restart": "no"}, "restart"),
        ({"healthcheck": {"disable": True}}, "healthcheck"),
        ({"privileged": True}, "privileged"),
        ({"user": "0:0"}, "user"),
        ({"volumes": ["./prometheus:/etc/prometheus:z"]}, "volumes"),
        ({"volumes": ["./prometheus:/etc/prometheus:ro"]}, "volumes"),
        ({"volumes": ["/var/run/docker.sock:/var/run/docker.sock:ro,z"]}, "volumes"),
        ({"image": "prom/prometheus:latest"}, "image"),
        ({"image": "prom/prometheus:v3.5"}, "image"),
        ({"image": "prom/prometheus"}, "image"),
    ],
    ids=str,
)
def test_a_fault_would_be_found(default_project: Path, change: Service, fault: str) -> None:
    good = read_by_itself(default_project / "observability/compose.yaml")["prometheus"]
    assert list(faults(good)) == []
    assert [key for key, _ in faults(good | change)] == [fault]
