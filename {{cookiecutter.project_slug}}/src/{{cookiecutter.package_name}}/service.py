"""A service: one broker, its telemetry, its health and metrics, and an orderly start and end."""

import asyncio
import functools
import inspect
import json
import logging
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Any, ParamSpec, TypeVar

import anyio
import uvicorn
from faststream import apply_types
from faststream.asgi import AsgiFastStream, AsgiResponse, Request, get
from faststream.asgi.response import JSONResponse
from faststream.specification import AsyncAPI
from opentelemetry.trace import Tracer
from prometheus_client import make_asgi_app

from . import messaging
from .channels import Publisher
from .connections import Connection
from .contracts import Event
from .http_limits import RequestLimits
from .logs import configure_logging
from .settings import Settings
from .shutdown import Shutdown, Step
from .telemetry import Telemetry
from .telemetry._faststream import start_brokers_with
from .telemetry.http import serve_traced
from .telemetry.prometheus import ServiceRegistry
from .watchdog import EXIT_CODE, Watchdog

# Of a request whose headers have not all come; more gets a 400.
MAX_HEADER_BYTES = 32_768
# Open at once, idle ones too; beyond them the one that has waited longest is closed. Many machines
# let a process open 1024 files.
MAX_CONNECTIONS = 500
# How long a connection may wait for a request with all its headers, or for its answer to be read.
IDLE_SECONDS = 10
# For requests that are being answered, the first part of an orderly shutdown.
HTTP_DRAIN_SECONDS = 5

P = ParamSpec("P")
T = TypeVar("T")

logger = logging.getLogger(__name__)


class Service:
    """What every service of this project is made of; its handlers are added with decorators.

    Args:
        name: Of the service; also the prefix of its consumer groups.
        settings: Default: read from the environment.

    Raises:
        BadSetting: A `BROKER_*` variable is wrong, or does not fit the others.
    """

    def __init__(self, name: str, settings: Settings | None = None) -> None:
        self.name = name
        self.settings = settings or Settings()
        messaging.check(self.settings)  # before there is telemetry, whose end would take its time
        configure_logging(self.settings.log_level)
        self.telemetry = Telemetry(name, message_metrics=self.settings.messaging_metrics == "otlp")
        self.registry = ServiceRegistry(self.telemetry.resource)
        self.consumers = messaging.Consumers(self.settings)
        self.broker = messaging.make_broker(
            self.settings, self.telemetry, self.registry, name, self.consumers
        )
        self.watchdog = Watchdog(
            self.settings.watchdog_timeout_seconds,
            lambda: self.consumers.stalled(self.broker),
            flush=lambda: self.telemetry.close(self.settings.flush_timeout_seconds),
            shutdown_timeout=self.settings.shutdown_timeout_seconds - HTTP_DRAIN_SECONDS,
        )
        self.app = _Application(self)

    @property
    def tracer(self) -> Tracer:
        """For spans of the service's own work."""
        return self.telemetry.tracer_provider.get_tracer(self.name)

    def subscriber(self, channel: str, *, batch: bool = False) -> Callable[..., Any]:
        """Decorate a handler of the channel's messages, or of lists of them.

        Raises:
            messaging.BatchPublisherError: The handler takes lists, and has a publisher.
        """
        return messaging.subscriber(
            self.broker, channel, service=self.name, consumers=self.consumers, batch=batch
        )

    def publisher(self, channel: str, schema: type[Event] | None = None) -> Publisher:
        """Declare a channel to publish to: as a decorator of a handler, or with `send`.

        As a decorator it raises `messaging.BatchPublisherError` over a handler of lists.
        """
        return messaging.publisher(self.broker, channel, schema)

    async def send(self, publisher: Publisher, event: Event) -> None:
        """Publish an event now. Raises `messaging.Unavailable` or `messaging.TooLarge`."""
        await messaging.send(publisher, event)

    def route(self, path: str, handler: Any) -> None:
        """Serve HTTP at this path, each request in a SERVER span."""
        self.app.mount(path, handler)
        self.app.traced.add(path)

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT.

        Raises:
            SystemExit: It ended for another reason, which is in the log.
        """
        # Uvicorn hands the signal on to the handler that was there before: having stopped in good
        # order is exit code 0, not a death by SIGTERM.
        signal.signal(signal.SIGTERM, lambda *_: None)
        self.watchdog.ends_with_process = True
        uvicorn.run(
            self.app,
            host=self.settings.host,
            port=self.settings.port,
            http=Connection,  # the limits below are its
            h11_max_incomplete_event_size=MAX_HEADER_BYTES,
            limit_concurrency=MAX_CONNECTIONS,
            timeout_keep_alive=IDLE_SECONDS,
            server_header=False,
            log_config=None,
            access_log=False,  # every request has a span
            timeout_graceful_shutdown=HTTP_DRAIN_SECONDS,
        )
        if self.app.failed or self.app.shutdown.failed or self.watchdog.reason:
            sys.exit(EXIT_CODE)


class _Application(AsgiFastStream):
    def __init__(self, service: Service) -> None:
        self.service = service
        self.traced: set[str] = set()
        self._limited = RequestLimits(
            super().__call__,
            max_body_bytes=service.settings.max_body_bytes,
            body_timeout_seconds=service.settings.body_timeout_seconds,
            max_requests=service.settings.max_requests,
        )
        self.failed = False
        self.shutdown = Shutdown()
        self._starting: anyio.CancelScope | None = None
        self.early_hooks: list[Step] = []
        self.late_hooks: list[Step] = []
        super().__init__(
            service.broker,
            logger=logging.getLogger("faststream"),
            specification=AsyncAPI(title=f"{service.name} service", version="1"),
            asgi_routes=[
                ("/", get(_to_its_page, include_in_schema=False)),
                ("/health/live", get(self._alive, include_in_schema=False)),
                ("/health/ready", get(self._ready, include_in_schema=False)),
                ("/metrics", make_asgi_app(service.registry)),
                ("/asyncapi", get(_page("asyncapi.html", "text/html"), include_in_schema=False)),
                ("/asyncapi.js",
                 get(_page("asyncapi.js", "text/javascript"), include_in_schema=False)),
                ("/asyncapi.json", get(self._asyncapi, include_in_schema=False)),
            ],
            lifespan=self._flushed,
            on_startup=[service.telemetry.watch_event_loop, service.watchdog.start],
        )  # fmt: skip
        start_brokers_with(self, self._start_consumers)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"] in self.traced:
            path = scope["path"]
            provider = self.service.telemetry.tracer_provider
            await serve_traced(self._limited, scope, receive, send, route=path, provider=provider)
        else:
            await self._limited(scope, receive, send)

    async def _start_consumers(self) -> None:
        """Start the consumers as soon as the broker answers; until then HTTP answers with a 503.

        It runs beside the server. Without it FastStream would live on without any consumer.
        """
        pause = 0.5
        with anyio.CancelScope() as self._starting:
            while True:
                try:
                    messaging.refuse_batch_publishers(self.service.broker)
                    for broker in self.brokers:
                        await broker.start()
                except messaging.Unreachable as error:
                    settings = self.service.settings
                    logger.warning(
                        "No broker at %s (BROKER_URL), next attempt in %.1f s: %s",
                        settings.broker_url, pause, await messaging.obstacle(settings, error),
                    )  # fmt: skip
                    await self.service.broker.stop()  # whatever was started before it failed
                    await asyncio.sleep(pause)
                    pause = min(pause * 2, 5.0)
                except Exception:
                    self.failed = True
                    logger.critical("The consumers could not be started", exc_info=True)
                    signal.raise_signal(signal.SIGTERM)
                    raise
                else:
                    return
        # Stopped meanwhile. To return would say that it has started, and run its `after_startup`.
        raise asyncio.CancelledError

    def on_shutdown(self, func: Callable[P, T]) -> Callable[P, T]:
        """As FastStream's; the hook runs whatever becomes of the others."""
        self.early_hooks.append(self._hook(func))
        return func

    def after_shutdown(self, func: Callable[P, T]) -> Callable[P, T]:
        """As FastStream's; the hook runs whatever becomes of the others, and of the broker."""
        self.late_hooks.append(self._hook(func))
        return func

    def _hook(self, func: Callable[..., Any]) -> Step:
        """With what its parameters ask for, a plain function in a thread, as FastStream does."""
        if not any(map(inspect.iscoroutinefunction, (func, type(func).__call__))):
            func = functools.wraps(func)(functools.partial(asyncio.to_thread, func))
        hook: Step = apply_types(func, context__=self.context)
        return hook

    async def stop(self) -> None:
        """Run each step of the shutdown, also where FastStream would leave it at the first error.

        It takes the drain time-out and four seconds at most, for the hooks and the broker.
        """
        if self._starting:
            self._starting.cancel()
        steps = (
            self.service.watchdog.stop,
            *self.early_hooks,
            *(broker.stop for broker in self.brokers),
            *self.late_hooks,
        )
        # A start that failed cancels whoever waits for it, at every turn.
        with anyio.CancelScope(shield=True):
            await self.shutdown.run(steps, self.service.settings.drain_timeout_seconds + 4)

    @asynccontextmanager
    async def _flushed(self) -> AsyncIterator[None]:
        """Export telemetry at the very end, whatever happened before."""
        try:
            yield
        finally:
            await self.shutdown.run([self._flush], self.service.settings.flush_timeout_seconds + 1)
            if not self.shutdown.hung:  # else the watchdog ends the process at the deadline
                await self.service.watchdog.done()

    async def _flush(self) -> None:
        await self.service.telemetry.shutdown(self.service.settings.flush_timeout_seconds)

    async def _alive(self, request: Request) -> AsgiResponse:
        """Whether the service gets on; if not, it will soon end by itself."""
        suspicion = self.service.watchdog.suspicion
        return AsgiResponse(suspicion.encode(), 503 if suspicion else 204)

    async def _ready(self, request: Request) -> AsgiResponse:
        """Whether messages are consumed and can be published."""
        service = self.service
        ready = (
            service.broker.running
            and service.consumers.joined(service.broker)
            and not service.watchdog.suspicion
            and await service.consumers.answers(service.broker)
        )
        return AsgiResponse(b"", 204 if ready else 503)

    async def _asyncapi(self, request: Request) -> AsgiResponse:
        return JSONResponse(json.dumps(self.schema.to_specification().to_jsonable()).encode())


async def _to_its_page(request: Request) -> AsgiResponse:
    return AsgiResponse(b"", 307, {"Location": "/asyncapi"})


def _page(name: str, media_type: str) -> Callable[[Request], Any]:
    async def page(request: Request) -> AsgiResponse:
        body = files(__package__).joinpath("pages", name).read_bytes()
        return AsgiResponse(body, headers={"Content-Type": f"{media_type}; charset=utf-8"})

    return page
