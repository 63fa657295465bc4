"""The resource identifies the process."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

import pytest
from faststream_otel.dev.receiver import OtlpReceiver

SCRIPT = """
from faststream_otel.telemetry.resource import make_resource
print(make_resource("tested").attributes["service.instance.id"], flush=True)
input()
"""


@contextmanager
def running(folder: Path, script: str = SCRIPT) -> Iterator[str]:
    """Run a process of the service and yield its instance id. `folder` is its TMPDIR."""
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        env={"TMPDIR": str(folder), "PATH": ""},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    try:
        yield process.stdout.readline().strip()
    finally:
        process.communicate("\n")


@pytest.mark.skipif(sys.platform == "win32", reason="a random id there")
def test_an_instance_keeps_its_unique_id_after_a_restart(tmp_path: Path) -> None:
    with running(tmp_path) as first, running(tmp_path) as second:
        assert UUID(first).version == UUID(second).version == 5
        assert first != second
    with running(tmp_path) as again:
        assert again == first


def test_without_a_folder_for_locks_the_id_is_random(tmp_path: Path) -> None:
    (tmp_path / "no folder").touch()
    with running(tmp_path / "no folder") as one, running(tmp_path / "no folder") as other:
        assert one != other


FORKING = """
import logging, os
from prometheus_client import generate_latest
from faststream_otel.telemetry import Telemetry
from faststream_otel.telemetry.prometheus import ServiceRegistry

telemetry = Telemetry("tested")
registry = ServiceRegistry(telemetry.resource)
logging.getLogger("test").warning("before")
telemetry.tracer_provider.force_flush()
telemetry.logger_provider.force_flush()
child = os.fork()
name = "parent" if child else "child"
with telemetry.tracer_provider.get_tracer("test").start_as_current_span(name):
    logging.getLogger("test").warning(name)
scraped = generate_latest(registry).decode().partition('service_instance_id="')[2].partition('"')[0]
own = telemetry.resource.attributes["service.instance.id"]
os.write(1, f"{name} {scraped} {own}\\n".encode())  # in one piece: both processes write
telemetry.close()
if child:
    os.waitpid(child, 0)
os._exit(0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork there")
@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
@pytest.mark.parametrize("attributes", ["", "service.instance.id=mine"])
def test_a_fork_has_its_own_instance_id(protocol: str, attributes: str) -> None:
    with OtlpReceiver() as sink:
        endpoint = sink.grpc_endpoint if protocol == "grpc" else sink.http_endpoint
        settings = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
            "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
            "OTEL_RESOURCE_ATTRIBUTES": attributes,
            **{f"OTEL_{signal}_EXPORTER": "otlp" for signal in ("TRACES", "METRICS", "LOGS")},
        }
        printed = subprocess.run(
            [sys.executable, "-c", FORKING],
            env=os.environ | settings, check=True, capture_output=True, text=True, timeout=60,
        ).stdout  # fmt: skip
        names = {}
        for line in printed.splitlines():
            name, scraped, own = line.split()
            assert scraped == own
            names[own] = name
        assert sorted(names.values()) == ["child", "parent"]
        assert {instance(span.resource): span.name for span in sink.spans} == names
        logged = {instance(one.resource): one.body for one in sink.logs if one.body != "before"}
        assert logged == names
        assert {instance(point.resource) for point in sink.metrics} == set(names)
        if attributes:
            assert names["mine"] == "parent"


def instance(resource: Mapping[str, object]) -> str:
    return str(resource["service.instance.id"])


LEAVING = """
import os
from faststream_otel.telemetry.resource import make_resource
print(make_resource("tested").attributes["service.instance.id"], flush=True)
if os.fork():
    os._exit(0)  # the parent; its child keeps running
input()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork there")
def test_a_fork_that_outlives_its_parent_does_not_keep_the_id(tmp_path: Path) -> None:
    with running(tmp_path, LEAVING) as first:
        wait_for_end(tmp_path)
        with running(tmp_path) as again:
            assert again == first


FORKING_TWICE = """
import os, sys
from faststream_otel.telemetry.resource import make_resource
make_resource("tested")
if child := os.fork():
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
file = open(os.devnull)  # reuses the number of the file that the child has closed
if child := os.fork():
    os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
os.fstat(file.fileno())
os._exit(0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork there")
def test_a_fork_of_a_fork_keeps_its_files() -> None:
    ended = subprocess.run([sys.executable, "-c", FORKING_TWICE], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


INSTALLED = """
import sys
sys.path.insert(0, sys.argv[1])
import placed
from faststream_otel.telemetry.resource import make_resource
found = make_resource("tested", "placed.services").attributes
print(found.get("service.namespace"), found.get("service.version"))
"""


@pytest.mark.parametrize(
    ("distribution", "files", "expected"),
    [
        ("placed", "placed.pth", "placed 1.2"),  # editable: its files are elsewhere
        ("shop-of-others", "placed/__init__.py", "shop-of-others 1.2"),
        ("shop-of-others", "placed.py", "shop-of-others 1.2"),
        ("shop-of-others", "shop/__init__.py", "None None"),
        ("shop-of-others", None, "None None"),
    ],
)
def test_the_version_is_that_of_the_package_s_distribution(
    distribution: str, files: str | None, expected: str, tmp_path: Path
) -> None:
    module = tmp_path / ("placed.py" if files == "placed.py" else "placed/__init__.py")
    module.parent.mkdir(exist_ok=True)
    module.touch()
    folder = tmp_path / f"{distribution.replace('-', '_')}-1.2.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.4\nName: {distribution}\nVersion: 1.2\n")
    if files:
        (folder / "RECORD").write_text(f"{files},,\n")
    printed = subprocess.check_output([sys.executable, "-c", INSTALLED, tmp_path], text=True)
    assert printed.strip() == expected


def wait_for_end(folder: Path) -> None:
    """Wait until no process holds a lock in the folder."""
    import fcntl  # not on Windows

    deadline = time.monotonic() + 10
    for path in folder.iterdir():
        with path.open("rb+") as file:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except OSError:
                    assert time.monotonic() < deadline, "the number is still taken"
                    time.sleep(0.02)
