"""TLS and authentication against a real NATS that requires them."""

import base64
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import nkeys
import pytest
import trustme
from faststream_otel.messages.broker import Unreachable
from faststream_otel.nats import NatsSettings

from .nats_server import nats_server

PASSWORD = "a-password-of-nobody"
USER = f'authorization {{ user: services, password: "{PASSWORD}" }}\n'
TOKEN = f'authorization {{ token: "{PASSWORD}" }}\n'
TLS = 'tls {{ cert_file: "{0}/server.pem", key_file: "{0}/server.pem", ca_file: "{0}/ca.pem" }}\n'
MUTUAL = TLS.replace(" }}", ", verify: true }}")

Serve = Callable[[str], str]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ca.pem, other-ca.pem, server.pem and client.pem."""
    folder = tmp_path_factory.mktemp("certificates")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    trustme.CA().cert_pem.write_to_path(folder / "other-ca.pem")
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(
        folder / "server.pem"
    )
    authority.issue_cert("client.example").private_key_and_cert_chain_pem.write_to_path(
        folder / "client.pem"
    )
    return folder


@pytest.fixture
def serve(files: Path, tmp_path: Path) -> Iterator[Serve]:
    """Start a server with this configuration. `{0}` in it stands for the folder of the files."""
    with ExitStack() as started:
        yield lambda text: started.enter_context(
            nats_server(tmp_path, text.replace("{0}", str(files)))
        )


async def why_refused(**settings: object) -> str:
    """The reason, which a service logs, and the command line prints; empty if it is accepted."""
    broker = NatsSettings.model_validate(settings).broker()
    broker.build("tested", [], drain_seconds=1, busy=lambda _: 1.0)

    @broker.subscriber("events", batch=False)
    async def handle(body: str) -> None: ...

    printed = logged = ""
    try:
        await broker.create_channels(["events"])
    except Unreachable as error:
        printed = str(error)
    try:
        await broker.faststream.start()
    except broker.unreachable as error:
        logged = await broker.why_unreachable(error)
    finally:
        await broker.faststream.stop()
    # The rest is OpenSSL's, and may vary.
    assert printed.partition(":")[0] == logged.partition(":")[0]
    assert PASSWORD not in printed + logged
    return logged


@pytest.mark.parametrize("encrypted", [False, True])
async def test_a_password(serve: Serve, files: Path, encrypted: bool) -> None:
    url = serve(USER + (TLS.format("{0}") if encrypted else ""))
    tls = {"broker_tls": True, "broker_ca_file": files / "ca.pem"} if encrypted else {}
    user = {"broker_url": url, "broker_username": "services", **tls}
    assert await why_refused(**user, broker_password=PASSWORD) == ""
    assert "BROKER_USERNAME or BROKER_PASSWORD" in await why_refused(
        **user, broker_password="wrong"
    )
    assert "without BROKER_USERNAME" in await why_refused(broker_url=url, **tls)


async def test_a_token(serve: Serve) -> None:
    url = serve(TOKEN)
    assert await why_refused(broker_url=url, broker_token=PASSWORD) == ""
    assert "BROKER_TOKEN" in await why_refused(broker_url=url, broker_token="wrong")


async def test_certificates_are_checked(serve: Serve, files: Path) -> None:
    url = serve(TLS.format("{0}"))
    tls = {"broker_url": url, "broker_tls": True}
    assert await why_refused(**tls, broker_ca_file=files / "ca.pem") == ""
    assert "BROKER_CA_FILE" in await why_refused(**tls, broker_ca_file=files / "other-ca.pem")
    assert "host name" in await why_refused(
        broker_url=url.replace("127.0.0.1", "localhost"),
        broker_tls=True,
        broker_ca_file=files / "ca.pem",
    )
    assert "BROKER_TLS=true" in await why_refused(broker_url=url)


async def test_a_server_may_require_a_certificate(serve: Serve, files: Path) -> None:
    url = serve(MUTUAL.format("{0}"))
    tls = {"broker_url": url, "broker_tls": True, "broker_ca_file": files / "ca.pem"}
    assert await why_refused(**tls, broker_certificate_file=files / "client.pem") == ""
    assert "BROKER_CERTIFICATE_FILE" in await why_refused(**tls)


async def test_no_password_is_sent_without_tls(files: Path) -> None:
    """To a server that does not offer it, or to who sits between."""
    received = bytearray()

    def listen(listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                connection.sendall(b'INFO {"server_id":"x","version":"2.11.0","headers":true}\r\n')
                connection.settimeout(1)
                with suppress(OSError):
                    while data := connection.recv(4096):
                        received.extend(data)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=listen, args=(listener,), daemon=True)
        thread.start()
        reason = await why_refused(
            broker_url=f"127.0.0.1:{listener.getsockname()[1]}",
            broker_tls=True,
            broker_ca_file=files / "ca.pem",
            broker_username="services",
            broker_password=PASSWORD,
        )
    assert "does not use TLS" in reason
    assert PASSWORD.encode() not in received


async def test_a_server_without_jetstream(serve: Serve, tmp_path: Path) -> None:
    url = serve("accounts { A: { users: [{ user: services, password: x }] } }\n")
    assert "JetStream" in await why_refused(
        broker_url=url, broker_username="services", broker_password="x"
    )


async def test_credentials(serve: Serve, tmp_path: Path) -> None:
    operator, system, account, user = (
        nkeys.from_seed(nkeys.encode_seed(os.urandom(32), prefix))
        for prefix in (
            nkeys.PREFIX_BYTE_OPERATOR,
            nkeys.PREFIX_BYTE_ACCOUNT,
            nkeys.PREFIX_BYTE_ACCOUNT,
            nkeys.PREFIX_BYTE_USER,
        )
    )
    free = dict.fromkeys(("subs", "data", "payload"), -1)
    unlimited = free | dict.fromkeys(("conn", "leaf", "imports", "exports"), -1)
    unlimited["wildcards"] = True
    stored = unlimited | dict.fromkeys(("mem_storage", "disk_storage", "streams", "consumer"), -1)
    url = serve(
        f"operator: {jwt(operator, operator, {'type': 'operator'})}\n"
        f"resolver: MEMORY\nsystem_account: {public(system)}\nresolver_preload {{\n"
        f"{public(system)}: {jwt(system, operator, {'type': 'account', 'limits': unlimited})}\n"
        f"{public(account)}: {jwt(account, operator, {'type': 'account', 'limits': stored})}\n}}\n"
    )
    of_user = jwt(user, account, {"type": "user", **free})
    good, other = tmp_path / "good.creds", tmp_path / "other.creds"
    for path, pair in ((good, user), (other, account)):
        seed = pair.seed.decode()
        path.write_text(
            f"-----BEGIN NATS USER JWT-----\n{of_user}\n------END NATS USER JWT------\n\n"
            f"-----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
        )
    assert await why_refused(broker_url=url, broker_credentials_file=good) == ""
    assert "BROKER_CREDENTIALS_FILE" in await why_refused(
        broker_url=url, broker_credentials_file=other
    )


def public(pair: nkeys.KeyPair) -> str:
    return bytes(pair.public_key).decode()


def jwt(of: nkeys.KeyPair, by: nkeys.KeyPair, claims: dict[str, object]) -> str:
    """A JSON web token as NATS signs it."""
    whole = {
        "jti": "x",
        "iat": int(time.time()),
        "iss": public(by),
        "sub": public(of),
        "name": "tested",
        "nats": claims | {"version": 2},
    }
    header = {"typ": "JWT", "alg": "ed25519-nkey"}
    text = ".".join(encoded(json.dumps(part).encode()) for part in (header, whole))
    return f"{text}.{encoded(by.sign(text.encode()))}"


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
