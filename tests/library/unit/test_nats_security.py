"""The `BROKER_*` variables of NATS: valid combinations, errors, and no password in any output."""

from collections.abc import Callable
from pathlib import Path

import pytest
import trustme
from faststream_otel.nats import NatsSettings
from faststream_otel.nats.security import broker_security, client_options, why
from faststream_otel.settings import BadSetting

PASSWORD = "a-password-of-nobody"
USER = {"BROKER_USERNAME": "orders", "BROKER_PASSWORD": PASSWORD}
TOKEN = {"BROKER_TOKEN": PASSWORD}
CREDENTIALS = {"BROKER_CREDENTIALS_FILE": "{files}/user.creds"}
TLS = {"BROKER_TLS": "true", "BROKER_CA_FILE": "{files}/ca.pem"}

Variables = dict[str, str]
Read = Callable[[Variables], NatsSettings]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with ca.pem, user.creds, and the invalid rubbish.pem."""
    trustme.CA().cert_pem.write_to_path(tmp_path / "ca.pem")
    (tmp_path / "user.creds").write_text("-----BEGIN NATS USER JWT-----\n")
    (tmp_path / "rubbish.pem").write_text("rubbish")
    return tmp_path


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch, files: Path) -> Read:
    """Settings from these variables. `{files}` in a value stands for the folder."""

    def settings(variables: Variables) -> NatsSettings:
        for name, value in variables.items():
            monkeypatch.setenv(name, value.format(files=files))
        return NatsSettings()

    return settings


def test_there_is_no_security_by_default(read: Read) -> None:
    assert broker_security(read({})) is None
    # Compose passes on an empty line of .env as an empty variable.
    assert broker_security(read(dict.fromkeys((*USER, *TOKEN, *CREDENTIALS), ""))) is None


@pytest.mark.parametrize("tls", [{}, TLS], ids=["plain", "tls"])
@pytest.mark.parametrize(
    ("variables", "options"),
    [
        ({}, {}),
        (USER, {"user": "orders", "password": PASSWORD}),
        (TOKEN, {"token": PASSWORD}),
        (CREDENTIALS, {"user_credentials": "{files}/user.creds"}),
    ],
    ids=["none", "password", "token", "credentials"],
)
def test_each_way_to_authenticate(
    read: Read, files: Path, variables: Variables, options: dict[str, str], tls: Variables
) -> None:
    found = client_options(read(variables | tls | {"BROKER_URL": "a,[::1]:1"}))
    assert found["servers"] == ["nats://a:4222", "nats://[::1]:1"]
    assert bool(found.get("tls")) is bool(tls)
    for name, value in options.items():
        assert str(found[name]) == value.format(files=files)


@pytest.mark.parametrize(
    ("variables", "named", "good"),
    [
        ({"BROKER_PASSWORD": PASSWORD}, "BROKER_USERNAME", "BROKER_USERNAME=services"),
        ({"BROKER_USERNAME": "x"}, "BROKER_PASSWORD", "BROKER_PASSWORD=<its password>"),
        (USER | TOKEN, "BROKER_USERNAME", "unset BROKER_USERNAME or BROKER_TOKEN"),
        (TOKEN | CREDENTIALS, "BROKER_TOKEN", "unset BROKER_TOKEN or BROKER_CREDENTIALS_FILE"),
        (
            {"BROKER_CREDENTIALS_FILE": "{files}/absent.creds"},
            "BROKER_CREDENTIALS_FILE",
            "/certificates/services.creds",
        ),
        ({"BROKER_CREDENTIALS_FILE": "{files}/rubbish.pem"}, "rubbish.pem", ".creds"),
        ({"BROKER_CA_FILE": "{files}/ca.pem"}, "BROKER_CA_FILE", "BROKER_TLS=true"),
        (TLS | {"BROKER_CA_FILE": "{files}/rubbish.pem"}, "BROKER_CA_FILE", "BEGIN CERTIFICATE"),
        (TLS | {"BROKER_KEY_FILE": "{files}/ca.pem"}, "BROKER_KEY_FILE", "client.pem"),
        ({"BROKER_URL": "tls://a:1"}, "BROKER_URL", "BROKER_TLS=true and BROKER_URL=a:1"),
        ({"BROKER_URL": f"x:{PASSWORD}@a"}, "BROKER_URL", "BROKER_USERNAME"),
    ],
)  # fmt: skip
def test_an_error_names_the_variable_and_a_good_value(
    read: Read, variables: Variables, named: str, good: str
) -> None:
    with pytest.raises(BadSetting) as raised:
        read(variables).broker()
    assert named in str(raised.value)
    assert good in str(raised.value)
    assert PASSWORD not in str(raised.value)


def test_a_server_that_says_nothing_is_called_so() -> None:
    assert why(NatsSettings(), TimeoutError()) == "it does not answer like a NATS server"
