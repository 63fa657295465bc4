"""Which process the telemetry is of."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

import pytest

SCRIPT = """
from {{ cookiecutter.package_name }}.telemetry.resource import make_resource
print(make_resource("tested").attributes["service.instance.id"], flush=True)
input()
"""


@contextmanager
def running(folder: Path) -> Iterator[str]:
    """A process of the service; yields its instance id. The folder is its temporary one."""
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT],
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
def test_an_instance_keeps_its_id_over_a_restart_and_shares_it_with_none(tmp_path: Path) -> None:
    with running(tmp_path) as first, running(tmp_path) as second:
        assert UUID(first).version == UUID(second).version == 5
        assert first != second
    with running(tmp_path) as again:
        assert again == first


def test_without_a_place_for_locks_an_id_is_random(tmp_path: Path) -> None:
    (tmp_path / "no folder").touch()
    with running(tmp_path / "no folder") as one, running(tmp_path / "no folder") as other:
        assert one != other
