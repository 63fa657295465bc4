"""Services connected in memory, and the messages that they publish."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias
from weakref import WeakKeyDictionary

from faststream import BaseMiddleware, ContextRepo, PublishCommand

from ..messages.broker import Broker
from ..messages.dead_letters import DEAD_LETTERS
from ..messages.dead_letters.headers import ATTEMPTS, CHANNEL, ERROR_TYPE, REASON
from ..service import Service
from .recording import Trace

if TYPE_CHECKING:
    from httpx import AsyncClient

Client: TypeAlias = "Callable[[Service], AsyncClient]"
"""Type of the fixture `http_client`."""


class Publish(Protocol):
    """Type of the fixture `publish`."""

    async def __call__(
        self, channel: str, event: Any, *, headers: Mapping[str, str] | None = None
    ) -> None: ...


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that every attempt failed to handle.

    Attributes:
        channel: The channel that it was consumed from.
        attempts: Number of attempts.
        error_type: Class of the error, with its module.
        reason: Text of the error.
        body: The message's body, byte for byte.
        headers: As text, those of the dead letter included.
    """

    channel: str
    attempts: int
    error_type: str
    reason: str
    body: bytes
    headers: Mapping[str, str]


class ServiceFlow:
    """Services connected in memory."""

    def __init__(self, services: Sequence[Service], stack: AsyncExitStack) -> None:
        self.services = services
        self.dead_letters: list[DeadLetter] = []
        """The dead letters so far."""
        self._published: dict[str, list[Any]] = {}
        self._clients: dict[str, AsyncClient] = {}
        self._stack = stack

    async def publish(
        self, channel: str, event: Any, *, headers: Mapping[str, str] | None = None
    ) -> None:
        """Publish, and return when all handlers are done.

        The first service's broker publishes it, so the `send` span is that service's.

        Args:
            channel: Where to publish.
            event: Anything that FastStream can publish: a model, JSON's types, or bytes.
            headers: The message's headers.
        """
        broker = self.services[0].broker
        await broker.publish(broker.publisher(channel, None), event, key=None, headers=headers)

    def published(self, channel: str) -> list[Any]:
        """What was published to a channel, in order, before encoding."""
        return self._published.get(channel, []).copy()

    def client(self, service: Service) -> "AsyncClient":
        """An httpx client of a service, open while the services are connected."""
        from httpx import ASGITransport, AsyncClient

        if service.name not in self._clients:
            client = AsyncClient(
                transport=ASGITransport(app=service.app), base_url=f"http://{service.name}"
            )
            self._stack.push_async_callback(client.aclose)
            self._clients[service.name] = client
        return self._clients[service.name]

    def record(self, cmd: PublishCommand) -> None:
        """Record a publication."""
        channel = self.services[0].broker.sent_to(cmd)
        self._published.setdefault(channel, []).extend(cmd.batch_bodies)
        if channel == DEAD_LETTERS:
            headers = {name: str(value) for name, value in cmd.headers.items()}
            self.dead_letters.append(
                DeadLetter(
                    channel=headers.get(CHANNEL, ""),
                    attempts=int(headers.get(ATTEMPTS, 0)),
                    error_type=headers.get(ERROR_TYPE, ""),
                    reason=headers.get(REASON, ""),
                    body=cmd.body,
                    headers=headers,
                )
            )


class _Observer:
    """A FastStream middleware that records each publication in a flow."""

    flow: ServiceFlow | None = None

    def __call__(self, msg: Any | None, /, *, context: ContextRepo) -> BaseMiddleware[Any]:
        return _Publications(msg, context=context, flow=self.flow)


class _Publications(BaseMiddleware[PublishCommand]):
    def __init__(
        self, msg: Any | None, /, *, context: ContextRepo, flow: ServiceFlow | None
    ) -> None:
        super().__init__(msg, context=context)
        self._flow = flow

    async def publish_scope(
        self, call_next: Callable[[PublishCommand], Awaitable[Any]], cmd: PublishCommand
    ) -> Any:
        if self._flow is not None:
            self._flow.record(cmd)
        return await call_next(cmd)


_observers: "WeakKeyDictionary[Any, _Observer]" = WeakKeyDictionary()


def _observer(broker: Any) -> _Observer:
    """The observer of a FastStream broker. One for all tests, since it cannot be removed."""
    if broker not in _observers:
        _observers[broker] = _Observer()
        broker.add_middleware(_observers[broker])
    return _observers[broker]


@asynccontextmanager
async def connected(services: Sequence[Service], trace: Trace) -> AsyncIterator[ServiceFlow]:
    """Connect services in memory, and record their spans and publications."""
    if not services:
        raise ValueError("no services to connect: pass at least one, such as [orders.service]")
    async with AsyncExitStack() as stack:
        flow = ServiceFlow(services, stack)
        kinds: dict[type, list[Broker]] = {}
        for service in services:
            trace.record(service.telemetry.tracer_provider)
            observer = _observer(service.broker.faststream)
            observer.flow = flow
            stack.callback(setattr, observer, "flow", None)
            kinds.setdefault(type(service.broker), []).append(service.broker)
        for first, *others in kinds.values():
            await stack.enter_async_context(first.in_memory(*others))
        yield flow
