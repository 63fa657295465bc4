"""The `BROKER_*` variables of RabbitMQ: valid combinations, and errors without the password."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import aiormq
import pytest
import trustme
from faststream_otel.rabbitmq import RabbitSettings
from faststream_otel.rabbitmq.security import client_options, why_refused
from faststream_otel.settings import BadSetting

PASSWORD = "a-password/of:nobody@?"
USER = {"BROKER_USERNAME": "orders", "BROKER_PASSWORD": PASSWORD}
TLS = {"BROKER_TLS": "true", "BROKER_CA_FILE": "{files}/ca.pem"}

Variables = dict[str, str]
Read = Callable[[Variables], RabbitSettings]


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Read:
    """Settings from these variables. `{files}` stands for a folder with ca.pem and rubbish.pem."""
    trustme.CA().cert_pem.write_to_path(tmp_path / "ca.pem")
    (tmp_path / "rubbish.pem").write_text("rubbish")

    def settings(variables: Variables) -> RabbitSettings:
        for name, value in variables.items():
            monkeypatch.setenv(name, value.format(files=tmp_path))
        return RabbitSettings()

    return settings


def test_the_default_is_the_servers_own_account(read: Read) -> None:
    found = client_options(read({}))
    assert (found["host"], found["port"], found["ssl"]) == ("localhost", 5672, False)
    assert (found["login"], found["password"], found["virtualhost"]) == ("guest", "guest", "/")


def test_tls_has_its_own_port_and_the_given_authority(read: Read) -> None:
    found = client_options(read(USER | TLS | {"BROKER_URL": "[::1]"}))
    assert (found["host"], found["port"], found["ssl"]) == ("::1", 5671, True)
    assert len(found["ssl_context"].get_ca_certs()) == 1


@pytest.mark.parametrize("virtual_host", ["/", "shop", "/shop/orders", "a b"])
async def test_any_password_and_virtual_host_reaches_the_client(
    read: Read, virtual_host: str
) -> None:
    settings = read(USER | {"BROKER_VIRTUAL_HOST": virtual_host, "BROKER_URL": "rabbit:1"})
    broker = settings.broker()
    broker.build("tested", [], drain_seconds=1, busy=lambda _: 1)
    url = broker.faststream._connection_kwargs["url"]
    made = aiormq.Connection(url)
    assert (made.vhost, made.url.user, made.url.password) == (virtual_host, "orders", PASSWORD)
    assert (made.url.host, made.url.port) == ("rabbit", 1)


@pytest.mark.parametrize(
    ("variables", "text"),
    [
        ({"BROKER_URL": "a:1,b:2"}, "BROKER_URL names 2 servers.*BROKER_URL=a:1"),
        ({"BROKER_URL": "amqps://rabbit:5671"}, "set BROKER_TLS=true and BROKER_URL=rabbit:5671"),
        ({"BROKER_URL": "amqp://rabbit"}, "set BROKER_URL=rabbit:5672"),
        ({"BROKER_URL": f"u:{PASSWORD}@rabbit"}, "BROKER_USERNAME and BROKER_PASSWORD"),
        ({"BROKER_PASSWORD": PASSWORD}, "BROKER_PASSWORD is set without BROKER_USERNAME"),
        ({"BROKER_USERNAME": "orders"}, "BROKER_USERNAME is set without BROKER_PASSWORD"),
        ({"BROKER_CA_FILE": "{files}/ca.pem"}, "BROKER_CA_FILE is set, but BROKER_TLS=false"),
        ({"BROKER_TLS": "true", "BROKER_KEY_FILE": "{files}/ca.pem"}, "without its certificate"),
        ({"BROKER_TLS": "true", "BROKER_CA_FILE": "{files}/none.pem"}, "cannot be read"),
        ({"BROKER_TLS": "true", "BROKER_CA_FILE": "{files}/rubbish.pem"}, "BEGIN CERTIFICATE"),
    ],
)
def test_a_contradiction_is_refused(read: Read, variables: Variables, text: str) -> None:
    settings = read(variables)
    with pytest.raises(BadSetting, match=text) as raised:
        settings.broker()
    assert PASSWORD not in str(raised.value)


async def test_a_server_that_closes_the_connection_at_once_may_want_tls() -> None:
    async def close(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with await asyncio.start_server(close, "127.0.0.1") as server:
        host, port = server.sockets[0].getsockname()
        settings = RabbitSettings(broker_url=f"{host}:{port}")
        assert "BROKER_TLS=false" in await why_refused(settings)
