"""A bad variable is an error that names it, what is wrong, and a good value."""

from pathlib import Path
from typing import Literal

import pytest
from faststream_otel.cli.errors import exit_code
from faststream_otel.kafka import KafkaSettings
from faststream_otel.nats import NatsSettings
from faststream_otel.rabbitmq import RabbitSettings
from faststream_otel.settings import BadSetting, Settings
from pydantic import Field, field_validator
from pydantic_settings import SettingsConfigDict


class Own(Settings):
    """A project's settings."""

    region: str
    colours: list[str] = Field(default_factory=list)
    currency: Literal["EUR", "USD"] | None = None
    share: float = Field(default=0.5, gt=0, lt=1)
    folder: Path = Path("/data")

    @field_validator("folder")
    @classmethod
    def _absolute(cls, folder: Path) -> Path:
        if not folder.is_absolute():
            raise ValueError("it is not absolute: set for example FOLDER=/data")
        return folder


class Required(Settings):
    """Fields without a default that an error could name."""

    shard: int
    tier: Literal["basic", "premium"]
    limit: int = Field(default_factory=lambda: 3)


class Prefixed(Settings):
    model_config = SettingsConfigDict(env_prefix="shop_")


@pytest.mark.parametrize(
    ("settings", "variable", "value", "text"),
    [
        (RabbitSettings, "BROKER_TLS", "maybe",
         "BROKER_TLS=maybe is neither true nor false: set for example BROKER_TLS=false"),
        (NatsSettings, "BROKER_TLS", "2",
         "BROKER_TLS=2 is neither true nor false: set for example BROKER_TLS=false"),
        (KafkaSettings, "BROKER_SASL_MECHANISM", "PLAN",
         ("BROKER_SASL_MECHANISM=PLAN is not one of 'PLAIN', 'SCRAM-SHA-256' or 'SCRAM-SHA-512':"
         " set for example BROKER_SASL_MECHANISM=PLAIN")),
        (Own, "LOG_LEVEL", "TRACE",
         ("LOG_LEVEL=TRACE is not one of 'DEBUG', 'INFO', 'WARNING' or 'ERROR': set for example"
         " LOG_LEVEL=INFO")),
        (Own, "PORT", "http", "PORT=http is not a whole number: set for example PORT=8000"),
        (Own, "PORT", "1.5", "PORT=1.5 is not a whole number: set for example PORT=8000"),
        (Own, "PORT", "0", "PORT=0 is less than 1: set for example PORT=8000"),
        (Own, "PORT", "70000", "PORT=70000 is more than 65535: set for example PORT=8000"),
        (Own, "HANDLER_TIMEOUT_SECONDS", "10s",
         "HANDLER_TIMEOUT_SECONDS=10s is not a number: set for example HANDLER_TIMEOUT_SECONDS=10"),
        (Own, "HANDLER_TIMEOUT_SECONDS", "0",
         ("HANDLER_TIMEOUT_SECONDS=0 is not more than 0: set for example"
         " HANDLER_TIMEOUT_SECONDS=10")),
        (Own, "SHARE", "1", "SHARE=1 is not less than 1: set for example SHARE=0.5"),
        (Own, "CURRENCY", "CHF",
         "CURRENCY=CHF is not one of 'EUR' or 'USD': set for example CURRENCY=EUR"),
        (Own, "FOLDER", "data",
         "FOLDER is wrong: it is not absolute: set for example FOLDER=/data"),
        (Own, "REGION", "", "REGION is not set"),
        (Prefixed, "SHOP_PORT", "x",
         "SHOP_PORT=x is not a whole number: set for example SHOP_PORT=8000"),
    ],
)  # fmt: skip
def test_a_bad_variable_is_a_line_with_a_good_value(
    settings: type[Settings],
    variable: str,
    value: str,
    text: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("REGION", "north")
    monkeypatch.setenv("BROKER_PASSWORD", "secret")
    monkeypatch.setenv(variable, value)

    def run() -> int:
        settings()
        return 0

    assert exit_code(run) == 2
    assert capsys.readouterr().err == f"{text}\n"


def test_each_bad_variable_has_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PORT", "MAX_REQUESTS", "API_PAGES"):
        monkeypatch.setenv(name, "bad")
    with pytest.raises(BadSetting) as raised:
        Settings()
    assert len(str(raised.value).splitlines()) == 3


def test_a_variable_that_cannot_be_parsed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGION", "north")
    monkeypatch.setenv("COLOURS", "red")
    with pytest.raises(BadSetting, match=r"^COLOURS is not JSON: .* COLOURS=\[") as raised:
        Own()  # type: ignore[call-arg]
    assert "red" not in str(raised.value)


def test_an_error_without_a_default_names_no_good_value(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SHARD", "TIER", "LIMIT"):
        monkeypatch.setenv(name, "bad")
    with pytest.raises(BadSetting) as raised:
        Required()  # type: ignore[call-arg]
    assert str(raised.value).splitlines() == [
        "SHARD=bad is not a whole number",
        "TIER=bad is not one of 'basic' or 'premium': set for example TIER=basic",
        "LIMIT=bad is not a whole number",
    ]


def test_settings_of_the_code_are_checked_alike() -> None:
    with pytest.raises(BadSetting, match=r"^PORT=0 is less than 1"):
        Settings(port=0)
