"""The commands say in one sentence what is wrong, and give links that lead to the trace."""

import json
import re
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from .conftest import Keep
from .spans import TRACE, span
from faststream_otel.dev import backend, project
from faststream_otel.dev.__main__ import main
from faststream_otel.dev.model import Link
from faststream_otel.dev.project import ENTRANCE_PORT, UserError
from faststream_otel.dev.trace import explore_link, links


def test_link_names_the_data_source_and_the_trace() -> None:
    link = urlsplit(explore_link("http://127.0.0.1:3000", TRACE))
    assert (link.netloc, link.path) == ("127.0.0.1:3000", "/explore")
    query = parse_qs(link.query)
    assert query["schemaVersion"] == ["1"]
    (pane,) = json.loads(query["panes"][0]).values()
    assert pane["datasource"] == "traces"
    assert pane["queries"][0]["datasource"]["uid"] == "traces"
    assert pane["queries"][0]["query"] == TRACE


def test_trace_is_drawn_below_its_link(keep: Keep, capsys: pytest.CaptureFixture[str]) -> None:
    keep(span("root", 1), span("child", 2, 1))
    keep(span("batch", 3, trace_id="b" * 32, links=(Link(TRACE, f"{2:016x}"),)))
    assert main(["trace", TRACE]) == 0
    lines = capsys.readouterr().out.splitlines()
    there = links(TRACE)
    assert lines[: len(there)] == there
    assert there[0] == explore_link("http://127.0.0.1:3001", TRACE)
    assert [one for one in there[1:] if TRACE not in one] == []
    assert re.search(r"root.*child.*Linked trace.*batch", "".join(lines[len(there) :]))


def test_what_follows_from_what_follows_is_drawn_too(
    keep: Keep, capsys: pytest.CaptureFixture[str]
) -> None:
    replay, batch = "b" * 32, "c" * 32
    keep(span("failed", 1))
    keep(span("replayed", 2, trace_id=replay, links=(Link(TRACE, f"{1:016x}"),)))
    keep(span("batch", 3, trace_id=batch, links=(Link(replay, f"{2:016x}"),)))
    assert main(["trace", TRACE]) == 0
    drawn = capsys.readouterr().out
    assert re.search("failed.*Linked trace b+.*replayed.*Linked trace c+.*batch", drawn, re.DOTALL)


def test_trace_that_is_not_there_is_told(
    keep: Keep, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("devtools.trace.WAIT_SECONDS", 0.1)
    assert main(["trace", TRACE]) == 1
    assert capsys.readouterr().err == f"{backend.NAME} has no trace {TRACE}.\n"


@pytest.mark.parametrize(
    ("trace_id", "said"),
    [
        (TRACE, f"No {backend.NAME} answers at http://127.0.0.1:1: "),
        ("x", "x is no t"),
        ("", "Which trace?"),
    ],
)
def test_trace_that_cannot_be_asked_for_says_why(
    trace_id: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(backend.PORT_VARIABLE, "1")
    assert main(["trace", trace_id]) == 1
    assert capsys.readouterr().err.startswith(said)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["sink", "--grpc-port", "70000"], "argument --grpc-port: 70000 is no port"),
        (["dance"], "argument command: invalid choice: 'dance'"),
        (["service", "--size=3", "--", "x"], "--size=3 (see python -m devtools service --help)"),
        ([], "the following arguments are required: command"),
    ],
)
def test_bad_arguments_are_named(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def test_bad_port_variable_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(ENTRANCE_PORT, "http")
    assert main(["urls"]) == 1
    assert capsys.readouterr().err == (
        f"{ENTRANCE_PORT}=http is no port: use a number from 1 to 65535, for example"
        f" {ENTRANCE_PORT}=8000.\n"
    )


def test_ports_come_from_dotenv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GRAFANA_PORT", raising=False)
    (tmp_path / ".env").write_text("# ports\n#GRAFANA_PORT=1\nGRAFANA_PORT='3333' # moved\n")
    assert project.port("GRAFANA_PORT", tmp_path) == 3333
    assert project.port("LOKI_PORT", tmp_path) == 3100
    monkeypatch.setenv("GRAFANA_PORT", "4444")
    assert project.port("GRAFANA_PORT", tmp_path) == 4444


def test_service_where_work_comes_in_is_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    services = tmp_path / "src" / "package" / "services"
    services.mkdir(parents=True)
    for name in ("__init__", "a", "b", "c_d"):
        (services / f"{name}.py").touch()
    monkeypatch.setattr(project, "ENTRANCE", "b")
    assert project.services(tmp_path) == ["b", "a", "c-d"]
    monkeypatch.setattr(project, "ENTRANCE", "gone")
    with pytest.raises(UserError, match=r"no service gone .*/project.py .* of a, b, c-d\.$"):
        project.services(tmp_path)
