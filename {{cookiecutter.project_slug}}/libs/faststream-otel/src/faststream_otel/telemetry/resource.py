"""The OpenTelemetry resource of this process: it says who sends the telemetry."""

import os
import socket
import sys
import tempfile
import uuid
from functools import cached_property
from importlib import metadata
from pathlib import Path

from opentelemetry.sdk.environment_variables import OTEL_RESOURCE_ATTRIBUTES, OTEL_SERVICE_NAME
from opentelemetry.sdk.resources import Resource
from opentelemetry.semconv.attributes import service_attributes as service

_INSTANCE_IDS = uuid.UUID("4d63009a-8d0f-11ee-aad7-4c796ed8e320")
_MOST_INSTANCES = 1000


def make_resource(service_name: str, package: str = "") -> Resource:
    """Describe this process (semantic conventions 1.44, "Service").

    Args:
        service_name: `service.name`, unless OTEL_SERVICE_NAME or OTEL_RESOURCE_ATTRIBUTES sets it.
        package: The name of a module of the service.

    `service.namespace` and `service.version` come from the distribution that installed the package,
    if there is one. `service.instance.id` is a UUID that stays the same after a restart.
    OTEL_RESOURCE_ATTRIBUTES takes precedence over all of these, and may add others such as
    `deployment.environment.name`.
    """
    defaults = {
        service.SERVICE_NAME: service_name,
        service.SERVICE_INSTANCE_ID: _instance_id(service_name),
        **_distribution(package),
    }
    # `Resource.create` invents both if the environment does not set them.
    created, named = dict(Resource.create().attributes), _named_attributes()
    for key in (service.SERVICE_NAME, service.SERVICE_INSTANCE_ID):
        if key not in named:
            created.pop(key, None)
    return _Resource({**defaults, **created})


class _Resource(Resource):
    """A resource that caches its hash: exporters hash its JSON for every span."""

    def merge(self, other: Resource) -> Resource:
        merged = super().merge(other)
        return _Resource(merged.attributes, merged.schema_url)

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return super().__hash__()


def _instance_id(service_name: str) -> str:
    """A UUID that is unique among running processes, and the same after a restart on this host.

    A random UUID would start new time series at every restart. This one is of version 5, in the
    namespace that the conventions define ("Service", `service.instance.id`). Its name consists of
    the host's name (in a container, the container's), the service's name, and the first number that
    no running process of this service on this host uses. In a fork, the SDK replaces it with a
    random one.
    """
    number = _claim_number(service_name)
    if number is None:
        return str(uuid.uuid4())
    return str(uuid.uuid5(_INSTANCE_IDS, f"{socket.gethostname()}/{service_name}/{number}"))


def _claim_number(service_name: str) -> int | None:
    """Lock the first free number until this process ends; None if that is not possible."""
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    name = uuid.uuid5(_INSTANCE_IDS, f"{os.getuid()}/{service_name}").hex
    for number in range(_MOST_INSTANCES):
        path = Path(tempfile.gettempdir(), f"service-instance-{name}-{number}")
        try:
            flags = os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
            lock = os.fdopen(os.open(path, flags, 0o600), "rb", buffering=0)
        except OSError:
            return None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            continue
        # The open file holds the lock until the process ends. A fork inherits both: without this it
        # would keep the number locked at the service's next start.
        os.register_at_fork(after_in_child=lock.close)
        return number
    return None


def _named_attributes() -> set[str]:
    """Attributes that the environment sets, parsed as the SDK does."""
    pairs = [
        pair.partition("=") for pair in os.environ.get(OTEL_RESOURCE_ATTRIBUTES, "").split(",")
    ]
    values = {key.strip(): value.strip() for key, _, value in pairs}
    values[service.SERVICE_NAME] = os.environ.get(OTEL_SERVICE_NAME) or values.get(
        service.SERVICE_NAME, ""
    )
    return {key for key, value in values.items() if value}


def _distribution(package: str) -> dict[str, str]:
    found = _installed(package.partition(".")[0])
    if found is None:
        return {}
    return {
        service.SERVICE_NAMESPACE: found.metadata["Name"],
        service.SERVICE_VERSION: found.version,
    }


def _installed(package: str) -> metadata.Distribution | None:
    """The distribution that has the package's name, or else its files.

    `metadata.packages_distributions` would read the list of files of every distribution, which
    takes 2 MB for good.
    """
    try:
        return metadata.distribution(package)
    except (metadata.PackageNotFoundError, ValueError):  # none; or no name
        pass
    module = sys.modules.get(package)
    folders = list(getattr(module, "__path__", None) or [getattr(module, "__file__", None) or ""])
    beside = {str(Path(one).parent) for one in folders if one}
    for found in metadata.distributions(path=list(beside)) if beside else ():
        if any(Path(file).parts[0] in (package, f"{package}.py") for file in found.files or ()):
            return found
    return None
