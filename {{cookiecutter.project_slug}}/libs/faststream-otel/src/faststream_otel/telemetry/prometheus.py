"""Prometheus metrics that say whose they are."""

import copy
import os
from collections.abc import Iterable

from opentelemetry.sdk.resources import Resource, ServiceInstanceIdResourceDetector
from opentelemetry.semconv.attributes import deployment_attributes as deployment
from opentelemetry.semconv.attributes import service_attributes as service
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric

from .values import text

_RESOURCE_LABELS = (
    service.SERVICE_NAME,
    service.SERVICE_NAMESPACE,
    service.SERVICE_INSTANCE_ID,
    deployment.DEPLOYMENT_ENVIRONMENT_NAME,
)


class ServiceRegistry(CollectorRegistry):
    """A registry whose every series says whose it is, by the names that OTLP metrics have.

    Labels that are the same in all series of a process are added when it is scraped, and cost
    nothing per message. `target_info`, always 1, shows that the process is there. A fork has an
    instance of its own, the one that its OTLP metrics have.

    Args:
        resource: Has `service.name` and its like, which become `service_name` and so on.
    """

    def __init__(self, resource: Resource) -> None:
        super().__init__()
        self._describe(resource)

    def _describe(self, resource: Resource) -> None:
        self._resource, self._process = resource, os.getpid()
        self._labels = {
            label(name): text(resource.attributes[name])
            for name in _RESOURCE_LABELS
            if name in resource.attributes
        }
        self.set_target_info(self._labels)

    def collect(self) -> Iterable[Metric]:
        if self._process != os.getpid():  # a fork: as the SDK's providers do in one
            instance = ServiceInstanceIdResourceDetector().detect()
            self._describe(self._resource.merge(instance))
        for metric in super().collect():
            labelled = copy.copy(metric)
            # One label that UTF-8 cannot hold, such as a topic that a message named, would fail
            # every scrape from then on.
            labelled.samples = [
                sample._replace(
                    labels=self._labels | {name: text(of) for name, of in sample.labels.items()}
                )
                for sample in metric.samples
            ]
            yield labelled


def label(name: str) -> str:
    """An attribute's name as Prometheus has it."""
    return name.replace(".", "_")
