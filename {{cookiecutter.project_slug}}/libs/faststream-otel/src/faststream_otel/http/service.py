"""A service with HTTP routes of its own, by FastAPI."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from starlette.routing import Route

from ..service import Service
from ..settings import Settings
from ..http_limits import RequestLimits


class HttpService(Service):
    """A service whose routes are FastAPI's: `@service.http.post("/orders")`.

    FastAPI is outside, FastStream's application inside its lifespan. Health, metrics and the
    AsyncAPI document stay FastStream's.
    """

    def __init__(self, name: str, settings: Settings) -> None:
        super().__init__(name, settings)
        self.http = FastAPI(title=f"{name} service", lifespan=self._lifespan)
        for path, app in self.faststream.routes:
            self.http.router.routes.append(Route(path, endpoint=app, include_in_schema=False))
        self.http.add_middleware(
            RequestLimits,
            max_body_bytes=settings.max_body_bytes,
            body_timeout_seconds=settings.body_timeout_seconds,
            max_requests=settings.max_requests,
        )
        FastAPIInstrumentor.instrument_app(
            self.http,
            tracer_provider=self.telemetry.tracer_provider,
            meter_provider=self.telemetry.meter_provider,
            excluded_urls="/health/,/metrics,/asyncapi",
            exclude_spans=["receive", "send"],
        )
        self.app = self.http

    @asynccontextmanager
    async def _lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        async with self.faststream.start_lifespan_context():
            yield
