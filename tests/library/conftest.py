"""What all tests of the library share: services that export into memory, and an example of them."""

import atexit
import os
import shutil
import sys
import tempfile
from pathlib import Path

from faststream_otel.telemetry import environment
from hypothesis import settings

TEMPLATE = Path(__file__).parents[2] / "{{cookiecutter.project_slug}}"
PACKAGE = "{{cookiecutter.package_name}}"

# For a further run of the same tests with other versions: `--hypothesis-profile few`.
settings.register_profile("few", max_examples=10)

# Before any service is imported: no test sends telemetry anywhere by accident.
for signal in ("TRACES", "METRICS", "LOGS"):
    os.environ[f"OTEL_{signal}_EXPORTER"] = "none"
environment.default_exporter = "otlp"  # which `faststream_otel.testing` changes, and tests check
os.environ["RETRY_BACKOFF_SECONDS"] = "0.01"
for name in [name for name in os.environ if name.startswith("BROKER_")]:
    del os.environ[name]

# The services that are baked, as the package `order_flow`: nothing in them needs to be rendered.
_folder = tempfile.mkdtemp(prefix="example-")
atexit.register(shutil.rmtree, _folder, ignore_errors=True)
for source in (TEMPLATE / "src" / PACKAGE, TEMPLATE / "overlays/broker/kafka/src" / PACKAGE):
    shutil.copytree(source, f"{_folder}/order_flow", dirs_exist_ok=True)
sys.path.insert(0, _folder)
# What the tests start finds them, and its own module.
_path = [_folder, str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH")]
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, _path))
