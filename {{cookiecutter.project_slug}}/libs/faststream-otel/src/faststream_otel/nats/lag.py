"""The lag of durable consumers, and the replicas of streams."""

from collections.abc import Collection

from nats.js import JetStreamContext
from nats.js.errors import NotFoundError

from ..messages.broker import Group, Lag, Replicas
from .messages import stream_of
from .security import connected
from .settings import NatsSettings

CLIENT = "lag"


async def lag(settings: NatsSettings, groups: Collection[Group]) -> list[Lag]:
    """See `Broker.lag`. The name of a group is that of its durable consumer.

    Raises:
        Unreachable: The text says why.
    """
    async with connected(settings, CLIENT) as stream:
        found = [await _of_consumer(stream, channel, group) for channel, group in groups]
    return [one for one in found if one]


async def _of_consumer(stream: JetStreamContext, channel: str, durable: str) -> Lag | None:
    name = stream_of(channel)
    try:
        state = (await stream.stream_info(name)).state
    except NotFoundError:
        return None
    try:
        info = await stream.consumer_info(name, durable)
    except NotFoundError:  # its service creates it at its first start, and then gets all messages
        return Lag(channel, durable, ready=state.messages, in_flight=0, position=0)
    return Lag(
        channel,
        durable,
        ready=info.num_pending or 0,
        in_flight=info.num_ack_pending or 0,
        position=info.ack_floor.stream_seq if info.ack_floor else 0,
    )


async def replicas(settings: NatsSettings, channels: Collection[str]) -> list[Replicas]:
    """See `Broker.replicas`.

    Raises:
        Unreachable: The text says why.
    """
    async with connected(settings, CLIENT) as stream:
        found = [await _of_stream(stream, channel) for channel in channels]
    return [one for one in found if one]


async def _of_stream(stream: JetStreamContext, channel: str) -> Replicas | None:
    try:
        info = await stream.stream_info(stream_of(channel))
    except NotFoundError:
        return None
    configured = info.config.num_replicas or 1
    if not info.cluster:  # a single server
        return Replicas(channel, configured, in_sync=configured)
    others = [peer for peer in info.cluster.replicas or () if peer.current and not peer.offline]
    return Replicas(channel, configured, in_sync=1 + len(others) if info.cluster.leader else 0)
