"""A service with its own HTTP routes, using FastAPI."""

import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

# Not from `fastapi`: `opentelemetry-instrument` replaces `fastapi.FastAPI` with its own subclass.
from fastapi.applications import FastAPI
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from starlette.types import ASGIApp, Receive, Scope, Send

from ..service import Application, Service
from ..settings import Settings
from ..telemetry._opentelemetry import use_stable_http_names
from . import errors
from .json_body import JsonRoute
from .limits import RequestLimits
from .tracing import OriginalHeaders, RequestTracerProvider, readable


class HttpService(Service):
    """A service whose routes are FastAPI's: `@service.http.post("/orders")`.

    FastAPI is outside, and runs FastStream's application in its lifespan. FastStream serves health,
    metrics and the AsyncAPI document, without spans. `faststream_otel.http.errors` describes the
    one shape of error responses.

    Attributes:
        http: FastAPI's application.
    """

    def __init__(self, name: str, settings: Settings) -> None:
        super().__init__(name, settings)
        limits: dict[str, Any] = {
            "max_body_bytes": settings.max_body_bytes,
            "body_timeout_seconds": settings.body_timeout_seconds,
            "max_requests": settings.max_requests,
        }
        self.app = self.http = _Api(
            self.faststream,
            RequestLimits(self.faststream, **limits),
            title=f"{name} service",
            version="1",
            docs_url="/docs" if settings.api_pages else None,
            redoc_url=None,
            responses=errors.RESPONSES,
            # Generated clients name their methods after it.
            generate_unique_id_function=lambda route: route.name,
        )
        self.http.router.route_class = JsonRoute
        errors.install(self.http)
        self.http.add_middleware(RequestLimits, **limits)
        self.http.add_middleware(OriginalHeaders)
        use_stable_http_names()
        FastAPIInstrumentor.instrument_app(
            self.http,
            tracer_provider=RequestTracerProvider(self.telemetry.tracer_provider),
            meter_provider=self.telemetry.meter_provider,
            excluded_urls=_excluded_urls(),
            exclude_spans=["receive", "send"],
        )


class _Api(FastAPI):
    """Passes requests for FastStream's own routes on to FastStream's application."""

    def __init__(self, faststream: Application, limited: ASGIApp, **options: Any) -> None:
        @asynccontextmanager
        async def lifespan(app: FastAPI) -> AsyncIterator[None]:
            async with faststream.start_lifespan_context():
                yield

        # Newer versions of FastAPI have their own telemetry, which records the texts of exceptions.
        off: Any = {"tracing": False, "metrics": False, "logs": False}
        super().__init__(lifespan=lifespan, telemetry=off, **options)
        self._faststream, self._limited = faststream, limited

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await super().__call__(scope, receive, send)
        elif any(scope["path"] == path for path, _ in self._faststream.routes):
            await self._limited(scope, receive, send)
        else:
            await super().__call__(readable(scope), receive, send)


def _excluded_urls() -> str:
    """Patterns of URLs without spans: the documents, and those that the user's variables name."""
    documents = "|".join(map(re.escape, ("/openapi.json", "/docs", "/docs/oauth2-redirect")))
    chosen = os.environ.get("OTEL_PYTHON_FASTAPI_EXCLUDED_URLS") or os.environ.get(
        "OTEL_PYTHON_EXCLUDED_URLS"
    )
    return ",".join(filter(None, (f"^[^/]*//[^/]*({documents})$", chosen)))
