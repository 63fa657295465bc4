"""The `BROKER_*` variables: valid combinations, errors, and no password in any output."""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme
from faststream.security import SASLPlaintext, SASLScram256, SASLScram512
from faststream_otel import Service
from faststream_otel.cli.__main__ import main
from faststream_otel.kafka import KafkaSettings
from faststream_otel.kafka.security import broker_security, client_options, why_refused
from faststream_otel.settings import BadSetting

PASSWORD = "a-password-of-nobody"
SASL = {
    "BROKER_SECURITY_PROTOCOL": "SASL_SSL",
    "BROKER_SASL_MECHANISM": "SCRAM-SHA-512",
    "BROKER_USERNAME": "orders",
    "BROKER_PASSWORD": PASSWORD,
}

Variables = dict[str, str]
Read = Callable[[Variables], KafkaSettings]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with ca.pem, client.pem, client.key, other.key, and the invalid rubbish.pem."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    own, other = (authority.issue_cert(name) for name in ("client.example", "other.example"))
    own.cert_chain_pems[0].write_to_path(tmp_path / "client.pem")
    own.private_key_pem.write_to_path(tmp_path / "client.key")
    other.private_key_pem.write_to_path(tmp_path / "other.key")
    (tmp_path / "rubbish.pem").write_text("rubbish")
    return tmp_path


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch, files: Path) -> Read:
    """Settings from these variables. `{files}` in a value stands for the folder."""

    def settings(variables: Variables) -> KafkaSettings:
        for name, value in variables.items():
            monkeypatch.setenv(name, value.format(files=files))
        return KafkaSettings()

    return settings


def test_there_is_no_security_by_default(read: Read) -> None:
    assert broker_security(read({})) is None
    # Compose passes on an empty line of .env as an empty variable.
    assert broker_security(read(dict.fromkeys(SASL, "") | {"BROKER_CA_FILE": ""})) is None


@pytest.mark.parametrize(
    ("mechanism", "kind"),
    [("PLAIN", SASLPlaintext), ("SCRAM-SHA-256", SASLScram256), ("SCRAM-SHA-512", SASLScram512)],
)
@pytest.mark.parametrize("protocol", ["SASL_PLAINTEXT", "SASL_SSL"])
def test_passwords(read: Read, mechanism: str, kind: type, protocol: str) -> None:
    settings = read(
        SASL | {"BROKER_SASL_MECHANISM": mechanism, "BROKER_SECURITY_PROTOCOL": protocol}
    )
    made = broker_security(settings)
    assert made
    assert isinstance(made, kind)
    assert made.use_ssl == (protocol == "SASL_SSL")
    options = client_options(settings)
    assert options["security_protocol"] == protocol
    assert options["sasl_mechanism"] == mechanism
    assert options["sasl_plain_password"] == PASSWORD


def test_certificates(read: Read) -> None:
    made = broker_security(
        read(
            {
                "BROKER_SECURITY_PROTOCOL": "SSL",
                "BROKER_CA_FILE": "{files}/ca.pem",
                "BROKER_CERTIFICATE_FILE": "{files}/client.pem",
                "BROKER_KEY_FILE": "{files}/client.key",
            }
        )
    )
    assert made
    assert made.ssl_context
    assert made.ssl_context.check_hostname
    assert len(made.ssl_context.get_ca_certs()) == 1  # only this authority is trusted


@pytest.mark.parametrize(
    ("variables", "named", "good"),
    [
        ({"BROKER_PASSWORD": PASSWORD}, "BROKER_PASSWORD", "BROKER_SECURITY_PROTOCOL=SASL_SSL"),
        ({"BROKER_CA_FILE": "{files}/ca.pem"}, "BROKER_CA_FILE", "BROKER_SECURITY_PROTOCOL=SSL"),
        (SASL | {"BROKER_SECURITY_PROTOCOL": "SSL"}, "BROKER_SASL_MECHANISM", "SASL_SSL"),
        (
            SASL
            | {
                "BROKER_SECURITY_PROTOCOL": "SASL_PLAINTEXT",
                "BROKER_CA_FILE": "{files}/ca.pem",
            },
            "BROKER_CA_FILE",
            "BROKER_SECURITY_PROTOCOL=SASL_SSL",
        ),
        (SASL | {"BROKER_SASL_MECHANISM": ""}, "BROKER_SASL_MECHANISM", "SCRAM-SHA-512"),
        (SASL | {"BROKER_USERNAME": ""}, "BROKER_USERNAME", "BROKER_USERNAME=services"),
        (SASL | {"BROKER_PASSWORD": ""}, "BROKER_PASSWORD", "BROKER_PASSWORD=<its password>"),
        (SASL | {"BROKER_CA_FILE": "{files}/absent.pem"}, "BROKER_CA_FILE", "broker-ca.pem"),
        (SASL | {"BROKER_CA_FILE": "{files}/rubbish.pem"}, "BROKER_CA_FILE", "BEGIN CERTIFICATE"),
        (
            SASL | {"BROKER_KEY_FILE": "{files}/client.key"},
            "BROKER_KEY_FILE",
            "BROKER_CERTIFICATE_FILE=/certificates/client.pem",
        ),
        (
            SASL
            | {
                "BROKER_CERTIFICATE_FILE": "{files}/client.pem",
                "BROKER_KEY_FILE": "{files}/other.key",
            },
            "BROKER_KEY_FILE",
            "PEM",
        ),
    ],
)  # fmt: skip
def test_an_error_names_the_variable_and_a_good_value(
    read: Read, variables: Variables, named: str, good: str
) -> None:
    with pytest.raises(BadSetting) as raised:
        broker_security(read(variables))
    assert named in str(raised.value)
    assert good in str(raised.value)
    assert PASSWORD not in str(raised.value)


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        (SASL | {"BROKER_USERNAME": ""}, "BROKER_USERNAME is missing"),
        (
            SASL | {"BROKER_SECURITY_PROTOCOL": "TLS"},
            "BROKER_SECURITY_PROTOCOL=TLS is not",
        ),
    ],
)
def test_the_command_line_reports_it_in_one_line(
    read: Read,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    variables: Variables,
    said: str,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert main(["--app", "order_flow", "channels"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(said)
    assert PASSWORD not in line


def test_the_password_appears_nowhere(
    read: Read, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG)
    settings = read(SASL)
    service = Service("guarded", settings)
    shown = [
        repr(settings),
        str(settings),
        settings.model_dump_json(),
        repr(service.broker),
        str(service.faststream.schema.to_specification().to_jsonable()),
        caplog.text,
    ]
    assert "scramSha512" in shown[4]
    assert not [text for text in shown if PASSWORD in text]

    monkeypatch.setenv("RETRY_ATTEMPTS", "none")
    with pytest.raises(BadSetting) as raised:
        KafkaSettings()
    assert PASSWORD not in str(raised.value)


async def test_an_unreachable_broker_gives_no_reason(read: Read, unused_tcp_port: int) -> None:
    settings = read(SASL | {"BROKER_URL": f"127.0.0.1:{unused_tcp_port}"})
    assert await why_refused(settings) == ""


async def test_a_broker_without_tls_gives_the_variable_to_check(read: Read) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.close()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        said = await why_refused(read(SASL | {"BROKER_URL": f"127.0.0.1:{port}"}))
    assert "BROKER_SECURITY_PROTOCOL=SASL_SSL" in said
