"""The broker of `make dev`: what is said when its server is missing."""

import shutil
from pathlib import Path

import pytest
from faststream_otel.dev.local import NoEmbeddedBroker, credentials, embedded_broker
from faststream_otel.dev.project import Project, UserError


def project_with(folder: Path, broker: str) -> Project:
    (folder / "pyproject.toml").write_text(f'[tool.faststream-otel]\nbroker = "{broker}"\n')
    return Project(folder, "no_such_package")


def test_a_missing_server_is_named_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda *args, **options: None)
    with (
        pytest.raises(NoEmbeddedBroker, match=r"^nats-server is missing: install [^\n]*$"),
        embedded_broker(project_with(tmp_path, "nats")),
    ):
        pass


def test_an_error_of_what_runs_with_the_broker_is_not_its_own(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), embedded_broker(project_with(tmp_path, "kafka")):
        raise FileNotFoundError


def test_an_unknown_broker_is_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(UserError, match="no embedded broker pigeons"),
        embedded_broker(project_with(tmp_path, "pigeons")),
    ):
        pass


@pytest.mark.parametrize("url", ["localhost", "localhost:5672", " localhost:5672,"])
def test_services_and_commands_get_the_credentials_of_the_users_own_broker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("BROKER_URL", url)
    monkeypatch.setenv("BROKER_USERNAME", "me")
    monkeypatch.setenv("BROKER_PASSWORD", "secret")
    with embedded_broker(project_with(tmp_path, "rabbitmq")) as (address, own):
        assert address == "localhost:5672"
        assert credentials(own)["BROKER_PASSWORD"] == "secret"


def test_an_embedded_broker_gets_no_credentials_of_another_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BROKER_URL", "localhost")
    monkeypatch.setenv("BROKER_PASSWORD", "secret")
    with embedded_broker(project_with(tmp_path, "nats")) as (address, own):
        assert not address.startswith("localhost")
        assert credentials(own) == {}
