"""FastStream's Prometheus middleware, without its look-up of labels for every message."""

from collections.abc import Callable
from typing import Any, TypeVar

from faststream.prometheus.middleware import PrometheusMiddleware
from prometheus_client.metrics import MetricWrapperBase

Middleware = TypeVar("Middleware", bound=PrometheusMiddleware[Any, Any])


def cache_labels(middleware: Middleware) -> Middleware:
    """Have each metric of the middleware remember its children, by the values of their labels.

    `labels()` sorts, converts and locks on each call, seven times per message, and always finds
    the same few children.

    Returns:
        The same middleware.
    """
    container = middleware._metrics_container
    for name in container.__slots__:
        metric = getattr(container, name)
        if isinstance(metric, MetricWrapperBase):
            metric.labels = _remembering(metric.labels)  # type: ignore[method-assign]
    return middleware


def _remembering(labels: Callable[..., Any]) -> Callable[..., Any]:
    children: dict[tuple[str, ...], Any] = {}

    def find(**names: str) -> Any:
        key = tuple(names.values())  # each metric has one caller, which names them in one order
        if (child := children.get(key)) is None:
            child = children[key] = labels(**names)
        return child

    return find
