"""Who sends the telemetry: the OpenTelemetry resource of this process."""

import os
import uuid
from functools import cached_property
from importlib import metadata

from opentelemetry.sdk.environment_variables import OTEL_SERVICE_NAME
from opentelemetry.sdk.resources import Resource
from opentelemetry.semconv._incubating.attributes import service_attributes as service


def make_resource(service_name: str) -> Resource:
    """Describe this process (semantic conventions 1.44, "Service").

    Args:
        service_name: `service.name`, unless OTEL_SERVICE_NAME or OTEL_RESOURCE_ATTRIBUTES has one.

    `service.namespace` and `service.version` are the distribution that this package was installed
    from, where there is one; `service.instance.id` is a random UUID of this process. Whatever
    OTEL_RESOURCE_ATTRIBUTES names wins over all of these, and it is where
    `deployment.environment.name` comes from.
    """
    defaults = {
        service.SERVICE_NAME: service_name,
        service.SERVICE_INSTANCE_ID: str(uuid.uuid4()),
        **_distribution(),
    }
    # `Resource.create` holds what the environment says, over its own defaults.
    from_environment = Resource.create().attributes
    named = {key: value for key, value in from_environment.items() if value != "unknown_service"}
    if not (os.environ.get(OTEL_SERVICE_NAME) or _names_service()):
        named.pop(service.SERVICE_NAME, None)
    if f"{service.SERVICE_INSTANCE_ID}=" not in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", ""):
        named.pop(service.SERVICE_INSTANCE_ID, None)
    return _Resource({**defaults, **named})


class _Resource(Resource):
    """A resource that is hashed once: the exporters do so for every span, by way of its JSON."""

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return super().__hash__()


def _names_service() -> bool:
    return f"{service.SERVICE_NAME}=" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")


def _distribution() -> dict[str, str]:
    package = __name__.partition(".")[0]
    try:
        found = metadata.distribution(package.replace("_", "-"))
    except metadata.PackageNotFoundError:
        return {}
    return {
        service.SERVICE_NAMESPACE: found.metadata["Name"],
        service.SERVICE_VERSION: found.version,
    }
