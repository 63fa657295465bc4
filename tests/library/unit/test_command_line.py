"""`faststream-otel`: which project it works with, and what it says when that does not fit."""

import gc
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from faststream_otel import service as service_module
from faststream_otel.cli import development, run
from faststream_otel.cli.__main__ import main
from faststream_otel.kafka.broker import Kafka
from faststream_otel.kafka.settings import KafkaSettings
from faststream_otel.messages.broker import Unreachable

APP = ("--app", "order_flow")


@pytest.fixture(autouse=True)
def no_app(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FASTSTREAM_OTEL_APP", raising=False)


def line(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on stderr; there is nothing on stdout."""
    said = capsys.readouterr()
    assert said.out == ""
    (only,) = said.err.splitlines()
    return only


# --- The project


@pytest.mark.parametrize(
    ("app", "reason"),
    [
        ("", "No project is given"),
        ("order-flow", "is not the name of a Python package"),
        ("order_flow.py/", "is not the name of a Python package"),
        ("ordre_flow", "there is no package ordre_flow here"),
        ("json", "there is no module json.settings here"),
    ],
)
@pytest.mark.parametrize("command", ["channels", "dead-letters", "lag", "lag-exporter"])
def test_a_bad_app_is_a_line_with_a_good_value(
    capsys: pytest.CaptureFixture[str], app: str, reason: str, command: str
) -> None:
    assert main(["--app", app, command]) == 2
    said = line(capsys)
    assert reason in said
    assert "--app order_flow" in said


def test_the_missing_part_of_a_project_is_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "lacking"
    package.mkdir()
    (package / "settings.py").write_text("from faststream_otel.kafka import KafkaSettings\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert main(["--app", "lacking", "channels"]) == 2
    assert "lacking.settings has no Settings" in line(capsys)


@pytest.mark.parametrize(
    ("command", "needed"),
    [("channels", "channels.py"), ("lag", "services/"), ("lag-exporter", "services/")],
)
def test_what_a_command_needs_of_the_project_is_named(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    needed: str,
) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")  # as `lag` does, and here only
    package = tmp_path / "adopted"
    package.mkdir()
    (package / "settings.py").write_text(
        "from faststream_otel.kafka import KafkaSettings as Settings\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert main(["--app", "adopted", command]) == 2
    said = line(capsys)
    assert f"the folder with {needed} in it" in said
    assert ("--group orders.placed=billing" in said) == (needed == "services/")


def test_a_module_that_the_project_misses_is_not_hidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "missing"
    package.mkdir()
    (package / "settings.py").write_text("import module_of_nobody\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="module_of_nobody"):
        main(["--app", "missing", "channels"])


@pytest.mark.parametrize("program", [lambda: main([*APP, "channels"]),
                                     lambda: run.main("order_flow", ["payments"])])  # fmt: skip
@pytest.mark.parametrize(
    ("variable", "value", "reason"),
    [
        ("PORT", "none", "PORT=none is not a whole number: set for example PORT=8000"),
        ("API_PAGES", "maybe", "API_PAGES=maybe is neither true nor false"),
        ("BROKER_URL", "kafka:nine", "BROKER_URL cannot be read"),
        ("OTEL_TRACES_EXPORTER", "jeager", "OTEL_TRACES_EXPORTER"),
    ],
)
def test_a_bad_setting_is_a_line(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    program: Any,
    variable: str,
    value: str,
    reason: str,
) -> None:
    monkeypatch.setenv(variable, value)
    monkeypatch.delitem(sys.modules, "order_flow.services.payments", raising=False)
    assert program() == 2
    assert line(capsys).startswith(reason)


# --- Channels


def test_channels_are_those_of_the_project_and_the_dead_letters(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    created: list[str] = []

    async def create(self: Kafka, channels: Collection[str], groups: object) -> None:
        created.extend(channels)

    monkeypatch.setattr(Kafka, "create_channels", create)
    monkeypatch.setenv("BROKER_URL", "kafka-1, kafka-2:9093")
    monkeypatch.setenv("FASTSTREAM_OTEL_APP", "order_flow")
    assert main(["channels"]) == 0
    assert created[0] == "orders.placed"
    assert created[-1] == "dead-letters"
    said = f"kafka at kafka-1:9092,kafka-2:9093 has {', '.join(created)}\n"
    assert capsys.readouterr().out == said


def test_why_the_broker_cannot_be_reached_is_a_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def create(self: Kafka, channels: Collection[str], groups: object) -> None:
        raise Unreachable("it is on fire")

    monkeypatch.setattr(Kafka, "create_channels", create)
    assert main([*APP, "channels"]) == 1
    assert line(capsys) == "The broker at localhost:9092 (BROKER_URL): it is on fire"


# --- Commands for development


@pytest.fixture
def developing(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str | None, list[str]]]:
    """What the commands for development are called with; they end with exit code 7."""
    calls: list[tuple[str | None, list[str]]] = []

    def called(app: str | None, arguments: list[str]) -> int:
        calls.append((app, arguments))
        return 7

    monkeypatch.setattr(development, "main", called)
    monkeypatch.setattr(development, "COMMANDS", {"trace": "show a trace", "dev": "run it all"})
    return calls


@pytest.mark.parametrize(
    "arguments",
    [[], ["--help"], ["-h"], ["0af7", "--app", "x", "--limit=3", "y"], ["-n", "3", "channels"]],
)
def test_commands_for_development_get_their_arguments_as_they_are(
    developing: list[tuple[str | None, list[str]]], arguments: list[str]
) -> None:
    assert main(["trace", *arguments]) == 7
    assert main([*APP, "trace", *arguments]) == 7
    assert developing == [(None, ["trace", *arguments]), ("order_flow", ["trace", *arguments])]


@pytest.mark.usefixtures("developing")
def test_help_lists_all_commands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    listed = capsys.readouterr().out
    for command in (
        "channels",
        "dead-letters",
        "replay",
        "discard",
        "lag",
        "lag-exporter",
        "trace",
        "dev",
    ):
        assert f"\n    {command}" in listed


def test_the_current_folder_is_searched_for_the_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "lying_here").mkdir()
    (tmp_path / "lying_here" / "settings.py").write_text("")
    monkeypatch.setattr(sys, "path", [one for one in sys.path if one])
    monkeypatch.chdir(tmp_path)
    assert main(["--app", "lying_here", "channels"]) == 2
    assert "lying_here.settings has no Settings" in line(capsys)


@pytest.mark.parametrize(("command", "extra"), [("otlp-receiver", "cli"), ("dev", "dev")])
def test_a_missing_package_is_a_line_with_the_extra_that_the_command_needs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: str, extra: str
) -> None:
    monkeypatch.delitem(sys.modules, "faststream_otel.dev.commands", raising=False)
    monkeypatch.setitem(sys.modules, "typer", None)
    assert main([command]) == 1
    said = line(capsys)
    assert said.startswith("The package typer is missing: install faststream-otel with the extra ")
    assert f"the extra `{extra}`" in said


def test_only_commands_for_development_need_an_extra() -> None:
    """An image has none: what all commands share imports no more than the base dependencies."""
    code = (
        "import sys; extras = ('typer', 'rich', 'httpx', 'watchfiles', 'confluent_kafka');"
        "sys.modules.update(dict.fromkeys(extras));"
        "from faststream_otel.cli.__main__ import main; main(['--help'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "trace" in done.stdout


# --- Services


def test_a_service_is_run_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    module = SimpleNamespace(service=SimpleNamespace(run=lambda: ran.append("payments")))
    monkeypatch.setitem(sys.modules, "order_flow.services.payments", module)
    assert run.main("order_flow", ["payments"]) == 0
    assert ran == ["payments"]


def test_a_service_that_runs_collects_garbage_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    then: list[tuple[int, int, int]] = []
    before = gc.get_threshold()
    monkeypatch.setattr(service_module, "serve", lambda *_: then.append(gc.get_threshold()))
    try:
        service_module.Service("payments", KafkaSettings()).run()
    finally:
        gc.set_threshold(*before)
    assert then[0][0] > before[0]


def test_a_service_that_does_not_exist_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run.main("order_flow", ["paymints"])
    assert ended.value.code == 2
    assert "payments" in capsys.readouterr().err
