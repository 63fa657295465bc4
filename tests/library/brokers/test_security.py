"""A broker with TLS and a password: services connect, and an error names the wrong variable."""

from collections.abc import Iterator

import pytest
from faststream_otel.messages.broker import Broker, Unreachable

from . import servers
from .features import Features, Row
from .served import Served, dead_letters

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.fixture(scope="module")
def secured(row: Row) -> Iterator[servers.Secured]:
    if row.secured is None:
        pytest.skip("this broker has no server with TLS and a password")
    try:
        with row.secured() as server:
            yield server
    except servers.Missing as error:
        pytest.skip(str(error))


async def test_a_service_uses_a_broker_with_tls_and_a_password(
    row: Row, secured: servers.Secured
) -> None:
    served = Served(row, **secured.settings)
    channel = served.named("secured")
    handled: list[str] = []

    @served.service.subscriber(channel)
    async def handle(body: str) -> None:
        handled.append(body)
        raise LookupError("no use for it")

    async with served.running(Features.CHANNELS, [channel]):
        await served.service.send(served.service.publisher(channel), "secret")
        assert await served.dead_letters(channel, 1)
        assert await served.broker.answers_new_client()
        assert {one.channel for one in await served.broker.lag(served.broker.groups())} == {channel}
    assert "secret" in handled


async def test_an_error_names_the_wrong_variable(row: Row, secured: servers.Secured) -> None:
    for variable, wrong in secured.wrong:
        served = Served(row, **{**secured.settings, **wrong})
        served.service.subscriber("any")(print)
        await assert_refused(served.broker, variable)


async def assert_refused(broker: Broker, variable: str) -> None:
    for attempt in (
        lambda: broker.create_channels(["any"]),
        lambda: broker.lag(broker.groups()),
        lambda: dead_letters(broker, "any"),
    ):
        with pytest.raises(Unreachable, match=variable):
            await attempt()
    with pytest.raises(broker.unreachable) as raised:
        await broker.faststream.start()
    await broker.faststream.stop()
    assert variable in await broker.why_unreachable(raised.value)
    assert not await broker.answers_new_client()
