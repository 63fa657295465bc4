"""A service: a broker, telemetry, health checks, metrics, orderly startup and shutdown."""

import asyncio
import functools
import gc
import inspect
import json
import logging
import math
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, ParamSpec, TypeVar

import anyio
import uvicorn
from faststream import apply_types
from faststream.asgi import AsgiFastStream, AsgiResponse, AsyncAPIRoute, Request, get
from faststream.asgi.response import JSONResponse
from faststream.specification import AsyncAPI
from opentelemetry.trace import Tracer
from prometheus_client import make_asgi_app

from .connections import Connection
from .logs import configure_logging
from .messages._faststream import start_brokers_with
from .messages.broker import Publisher
from .messages.consumers import Consumers
from .messages.prometheus import MessagingMetrics
from .messages.retry import RetryMiddleware, RetryPolicy
from .settings import Settings
from .shutdown import Shutdown, Step
from .telemetry import Telemetry
from .telemetry.prometheus import ServiceRegistry
from .watchdog import EXIT_CODE, Watchdog

# Limit of a request's headers; larger ones get a 400.
MAX_HEADER_BYTES = 32_768
# Open connections, idle ones included; beyond it the longest idle one is closed. Many systems allow
# a process 1024 open files.
MAX_CONNECTIONS = 500
# How long a connection may wait for a request with all its headers, or for the client to read.
IDLE_SECONDS = 10
# For HTTP requests in flight, at the start of an orderly shutdown.
HTTP_DRAIN_SECONDS = 5
# Messages create many short-lived objects and few cycles. At Python's own thresholds, garbage
# collection would run thousands of times a second.
GC_THRESHOLDS = (50_000, 20, 20)

P = ParamSpec("P")
T = TypeVar("T")

logger = logging.getLogger(__name__)


class Service:
    """A service. Decorators add its handlers.

    Attributes:
        app: The ASGI application, for a server of your own. `run` starts uvicorn with it.
        broker: The library's broker adapter; `broker.faststream` is FastStream's broker.

    Args:
        name: The service's name, and the prefix of its consumer groups.
        settings: A broker's settings, such as `faststream_otel.kafka.KafkaSettings`.

    Raises:
        BadSetting: A `BROKER_*` variable is wrong, or contradicts another one.
    """

    def __init__(self, name: str, settings: Settings) -> None:
        self.name = name
        self.settings = settings
        self.broker = settings.broker()  # may raise: before telemetry, whose shutdown takes seconds
        configure_logging(settings.log_level, self.broker.noisy_loggers)
        by_prometheus = settings.messaging_metrics == "prometheus"
        self.telemetry = Telemetry(
            name, message_metrics=not by_prometheus, package=type(settings).__module__
        )
        self.registry = ServiceRegistry(self.telemetry.resource)
        self.consumers = Consumers(self.broker)
        metrics = MessagingMetrics(self.registry)
        policy = RetryPolicy(
            settings.retry_attempts,
            settings.retry_backoff_seconds,
            settings.handler_timeout_seconds,
        )
        self.broker.build(
            name,
            [  # telemetry first: the others run inside its spans
                self.broker.telemetry(self.telemetry.providers),
                *([self.broker.prometheus(self.registry, metrics, name)] if by_prometheus else []),
                RetryMiddleware(
                    policy,
                    self.broker,
                    tracer_provider=self.telemetry.tracer_provider,
                    metrics=metrics,
                    consumers=self.consumers,
                ),
            ],
            drain_seconds=settings.drain_timeout_seconds,
            busy=policy.longest,
        )
        self.watchdog = Watchdog(
            settings.watchdog_timeout_seconds,
            self.consumers.stalled,
            flush=lambda: self.telemetry.close(settings.flush_timeout_seconds),
            shutdown_timeout=settings.shutdown_timeout_seconds - HTTP_DRAIN_SECONDS,
        )
        self.faststream = Application(self)
        self.app: Any = self.faststream

    @functools.cached_property
    def tracer(self) -> Tracer:
        """Tracer for the service's own spans."""
        return self.telemetry.tracer_provider.get_tracer(self.name)

    def subscriber(self, channel: str, *, batch: bool = False) -> Callable[..., Any]:
        """Decorate a handler of the channel's messages; with `batch`, of lists of messages.

        Raises:
            BatchPublisherError: A batch handler also has a publisher decorator.
        """
        return self.broker.subscriber(channel, batch=batch)

    def publisher(self, channel: str, schema: Any | None = None) -> Publisher:
        """Declare a channel to publish to, as a handler's decorator or for `send`.

        Raises:
            BatchPublisherError: It decorates a batch handler.
        """
        return self.broker.publisher(channel, schema)

    async def send(self, publisher: Publisher, event: Any, *, key: str | None = None) -> None:
        """Publish an event now. Events with the same key keep their order.

        Raises:
            Unavailable: The broker did not confirm the event.
            TooLarge: The event is larger than the broker accepts.
        """
        await self.broker.publish(publisher, event, key=key)

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT; see docs/layout.md, "The process".

        Raises:
            SystemExit: It ended for another reason, which is logged.
        """
        self.watchdog.ends_with_process = True
        gc.set_threshold(*GC_THRESHOLDS)
        serve(self.app, self.settings)
        if self.faststream.failed or self.faststream.shutdown.failed or self.watchdog.reason:
            sys.exit(EXIT_CODE)


def serve(app: Any, settings: Settings) -> None:
    """Serve an ASGI application at HOST and PORT until SIGTERM or SIGINT."""
    # After an orderly shutdown uvicorn raises the signal again, for the previous handler. This one
    # ignores it: the exit code is 0, instead of death by SIGTERM.
    signal.signal(signal.SIGTERM, lambda *_: None)
    uvicorn.run(
        app,
        host=settings.host,
        port=settings.port,
        http=Connection,  # enforces the limits below
        h11_max_incomplete_event_size=MAX_HEADER_BYTES,
        limit_concurrency=MAX_CONNECTIONS,
        timeout_keep_alive=IDLE_SECONDS,
        server_header=False,
        log_config=None,
        access_log=False,  # every request has a span
        timeout_graceful_shutdown=HTTP_DRAIN_SECONDS,
    )


class Application(AsgiFastStream):
    """A service's FastStream application: health and metrics over HTTP, startup and shutdown."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.failed = False
        self.shutdown = Shutdown()
        self._starting: anyio.CancelScope | None = None
        self.early_hooks: list[Step] = []
        self.late_hooks: list[Step] = []
        super().__init__(
            service.broker.faststream,
            logger=logging.getLogger("faststream"),
            specification=AsyncAPI(title=f"{service.name} service", version="1"),
            asgi_routes=[
                ("/health/live", get(self._alive, include_in_schema=False)),
                ("/health/ready", get(self._ready, include_in_schema=False)),
                ("/metrics", make_asgi_app(service.registry)),
                ("/asyncapi.json", get(self._asyncapi, include_in_schema=False)),
            ],
            # Without the page's form that publishes messages: anybody could use it.
            asyncapi_path=AsyncAPIRoute("/asyncapi", asyncapi_json_path=None, try_it_out_path=None)
            if service.settings.api_pages
            else None,
            lifespan=self._flushed,
            on_startup=[service.telemetry.watch_event_loop, service.watchdog.start],
        )
        start_brokers_with(self, self._start_consumers)

    async def _start_consumers(self) -> None:
        """Start the consumers once the broker is reachable; the service is not ready until then.

        It runs beside the HTTP server. FastStream alone would keep running without consumers.
        """
        broker, seconds = self.service.broker, self.service.settings.broker_start_timeout_seconds
        ends = anyio.current_time() + seconds if seconds else math.inf
        try:
            with anyio.CancelScope(deadline=ends) as self._starting:
                await self._start_when_reachable()
                return
        except Exception:
            logger.critical("The consumers could not be started", exc_info=True)
            self._fail()
            raise
        if anyio.current_time() >= ends:
            logger.critical(
                "No broker at %s (BROKER_URL) for %g s (BROKER_START_TIMEOUT_SECONDS): exiting, so"
                " that the process is restarted", broker.url, seconds,
            )  # fmt: skip
            self._fail()
        # Stopped meanwhile: a normal return would make FastStream run the `after_startup` hooks.
        raise asyncio.CancelledError

    async def _start_when_reachable(self) -> None:
        broker, pause = self.service.broker, 0.5
        while True:
            try:
                broker.check()
                for one in self.brokers:
                    await one.start()
            except broker.unreachable as error:
                logger.warning(
                    "No broker at %s (BROKER_URL), next attempt in %.1f s: %s",
                    broker.url, pause, await broker.why_unreachable(error),
                )  # fmt: skip
                await broker.faststream.stop()  # undo a partial start
                await asyncio.sleep(pause)
                pause = min(pause * 2, 5.0)
            else:
                return

    def _fail(self) -> None:
        self.failed = True
        signal.raise_signal(signal.SIGTERM)

    def on_shutdown(self, func: Callable[P, T]) -> Callable[P, T]:
        """Like FastStream's, but the hook also runs if another hook fails."""
        self.early_hooks.append(self._hook(func))
        return func

    def after_shutdown(self, func: Callable[P, T]) -> Callable[P, T]:
        """Like FastStream's, but the hook also runs if another hook or the broker fails."""
        self.late_hooks.append(self._hook(func))
        return func

    def _hook(self, func: Callable[..., Any]) -> Step:
        """Inject dependencies, and run a plain function in a thread, as FastStream does."""
        if not any(map(inspect.iscoroutinefunction, (func, type(func).__call__))):
            func = functools.wraps(func)(functools.partial(asyncio.to_thread, func))
        hook: Step = apply_types(func, context__=self.context)
        return hook

    async def stop(self) -> None:
        """Run every step of the shutdown; FastStream alone stops at the first error.

        It takes at most the drain timeout plus four seconds for the hooks and the broker.
        """
        if self._starting:
            self._starting.cancel()
        steps = (
            self.service.watchdog.stop,
            *self.early_hooks,
            *(broker.stop for broker in self.brokers),
            *self.late_hooks,
        )
        # After a failed start, anyio cancels every further await without the shield.
        with anyio.CancelScope(shield=True):
            await self.shutdown.run(steps, self.service.settings.drain_timeout_seconds + 4)

    @asynccontextmanager
    async def _flushed(self) -> AsyncIterator[None]:
        """Flush telemetry at the very end, even after an error."""
        try:
            yield
        finally:
            await self.shutdown.run([self._flush], self.service.settings.flush_timeout_seconds + 1)
            if not self.shutdown.hung:  # otherwise the watchdog ends the process at the deadline
                await self.service.watchdog.done()

    async def _flush(self) -> None:
        await self.service.telemetry.shutdown(self.service.settings.flush_timeout_seconds)

    async def _alive(self, request: Request) -> AsgiResponse:
        """204, or 503 with a reason when a stall will soon make the watchdog end the process."""
        suspicion = self.service.watchdog.suspicion
        return AsgiResponse(suspicion.encode(), 503 if suspicion else 204)

    async def _ready(self, request: Request) -> AsgiResponse:
        """204 if messages are consumed and can be published, else 503."""
        ready = not self.service.watchdog.suspicion and await self.service.consumers.ready()
        return AsgiResponse(b"", 204 if ready else 503)

    async def _asyncapi(self, request: Request) -> AsgiResponse:
        return JSONResponse(json.dumps(self.schema.to_specification().to_jsonable()).encode())
