"""A Prometheus registry that labels each series with its service."""

import copy
import os
import time
from collections.abc import Iterable

from opentelemetry.sdk.resources import Resource, ServiceInstanceIdResourceDetector
from opentelemetry.semconv.attributes import deployment_attributes as deployment
from opentelemetry.semconv.attributes import service_attributes as service
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import GaugeMetricFamily, Metric

from .values import text

STARTED = "process_start_time_seconds"
"""As in Prometheus's client libraries, whose `ProcessCollector` may be registered too."""

_RESOURCE_LABELS = (
    service.SERVICE_NAME,
    service.SERVICE_NAMESPACE,
    service.SERVICE_INSTANCE_ID,
    deployment.DEPLOYMENT_ENVIRONMENT_NAME,
)


class ServiceRegistry(CollectorRegistry):
    """A registry that labels each series with its service, under the same names as OTLP metrics.

    It adds the labels when it is scraped, so they cost nothing per message. `target_info`, always
    1, shows that the process exists. `process_start_time_seconds` changes when the process is
    restarted. A forked process has its own `service_instance_id`, the same
    as in its OTLP metrics.

    Args:
        resource: `service.name` becomes the label `service_name`; likewise `service.namespace`,
            `service.instance.id` and `deployment.environment.name`.
    """

    def __init__(self, resource: Resource) -> None:
        super().__init__()
        self._describe(resource)

    def _describe(self, resource: Resource) -> None:
        self._resource, self._process, self._started = resource, os.getpid(), time.time()
        self._labels = {
            label(name): text(resource.attributes[name])
            for name in _RESOURCE_LABELS
            if name in resource.attributes
        }
        self.set_target_info(self._labels)

    def collect(self) -> Iterable[Metric]:
        if self._process != os.getpid():  # forked: do as the SDK's providers do
            instance = ServiceInstanceIdResourceDetector().detect()
            self._describe(self._resource.merge(instance))
        found = list(super().collect())
        if STARTED not in {metric.name for metric in found}:
            about = "Start time of the process, in Unix seconds."
            found.append(GaugeMetricFamily(STARTED, about, self._started))
        for metric in found:
            labelled = copy.copy(metric)
            # A label that UTF-8 cannot hold would fail every later scrape. A message may choose
            # one, such as a topic's name.
            labelled.samples = [
                sample._replace(
                    labels=self._labels | {name: text(of) for name, of in sample.labels.items()}
                )
                for sample in metric.samples
            ]
            yield labelled


def label(name: str) -> str:
    """The Prometheus label for an attribute's name."""
    return name.replace(".", "_")
