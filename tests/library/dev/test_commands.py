"""The commands report errors in one sentence, and print links to the trace."""

import json
import re
import subprocess
import sys
from urllib.parse import parse_qs, urlsplit

import pytest
from faststream_otel.cli.development import main
from faststream_otel.dev import trace
from faststream_otel.dev.otlp import Link
from faststream_otel.dev.project import Project, UserError
from faststream_otel.dev.stores import store_of
from faststream_otel.dev.trace import explore_link

from .conftest import Keep, MemoryStore
from .spans import TRACE, span


def test_link_names_the_data_source_and_the_trace() -> None:
    link = urlsplit(explore_link("http://127.0.0.1:3000", MemoryStore(), TRACE))
    assert (link.netloc, link.path) == ("127.0.0.1:3000", "/explore")
    query = parse_qs(link.query)
    assert query["schemaVersion"] == ["1"]
    (pane,) = json.loads(query["panes"][0]).values()
    assert pane["datasource"] == "faststream-traces"
    assert pane["queries"][0]["datasource"] == {"type": "memory", "uid": "faststream-traces"}
    assert pane["queries"][0]["query"] == TRACE


def test_trace_is_drawn_below_its_links(
    keep: Keep, project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    keep(span("root", 1), span("child", 2, 1))
    keep(span("batch", 3, trace_id="b" * 32, links=(Link(TRACE, f"{2:016x}"),)))
    assert main("shop", ["trace", TRACE]) == 0
    grafana, page, *lines = capsys.readouterr().out.splitlines()
    assert grafana == explore_link("http://127.0.0.1:3000", MemoryStore(), TRACE)
    assert page == f"http://127.0.0.1:1/page/{TRACE}"
    assert re.search(r"root.*child.*Linked trace.*batch", "".join(lines))


def test_traces_that_link_to_linked_ones_are_drawn_too(
    keep: Keep, project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    replay, batch = "b" * 32, "c" * 32
    keep(span("failed", 1))
    keep(span("replayed", 2, trace_id=replay, links=(Link(TRACE, f"{1:016x}"),)))
    keep(span("batch", 3, trace_id=batch, links=(Link(replay, f"{2:016x}"),)))
    assert main(None, ["trace", TRACE]) == 0
    drawn = capsys.readouterr().out
    assert re.search("failed.*Linked trace b+.*replayed.*Linked trace c+.*batch", drawn, re.DOTALL)


def test_trace_that_is_not_there_is_an_error(
    keep: Keep,
    project: Project,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(trace, "WAIT_SECONDS", 0.1)
    assert main(None, ["trace", TRACE]) == 1
    assert capsys.readouterr().err == f"Memory has no trace {TRACE}.\n"


@pytest.mark.parametrize(
    ("trace_id", "variables", "error"),
    [
        (TRACE, {"JAEGER_PORT": "1"}, "Jaeger does not answer at http://127.0.0.1:1: "),
        (TRACE, {"TRACE_BACKEND": "tempo", "TEMPO_PORT": "1"}, "Tempo does not answer at "),
        (TRACE, {"TRACE_BACKEND": "influx"},
         "TRACE_BACKEND=influx is not a trace store: use tempo, jaeger, zipkin.\n"),
        (TRACE, {"JAEGER_PORT": "http"},
         "JAEGER_PORT=http is not a port: use a number from 1 to 65535, for example JAEGER_PORT="),
        ("x", {}, "x is not a trace id"),
    ],
)  # fmt: skip
def test_trace_that_cannot_be_read_says_why(
    trace_id: str,
    variables: dict[str, str],
    error: str,
    project: Project,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert main(None, ["trace", trace_id]) == 1
    (line,) = capsys.readouterr().err.splitlines(keepends=True)
    assert line.startswith(error)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["otlp-receiver", "--grpc-port", "70000"], "70000 is not in the range"),
        (["dance"], "No such command 'dance'"),
        (["service", "--size=3", "--", "x"], "No such option: --size"),
        (["trace"], "Missing argument 'trace_id'"),
    ],
)
def test_bad_arguments_are_named(
    arguments: list[str], error: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(None, arguments) == 2
    assert error in capsys.readouterr().err.splitlines()[-1]


def test_taken_port_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    from faststream_otel.dev.receiver import OtlpReceiver

    with OtlpReceiver() as receiver:
        port = receiver.grpc_endpoint.rpartition(":")[2]
        ports = ["--grpc-port", port, "--http-port", "0", "--query-port", "0"]
        assert main(None, ["otlp-receiver", *ports]) == 1
    assert capsys.readouterr().err.startswith(f"Cannot listen on 127.0.0.1:{port}: another program")


def test_receiver_without_a_project_shows_what_it_gets() -> None:
    program = (
        "import sys; from faststream_otel.cli.development import main; sys.exit(main(None, {}))"
    )
    arguments = ["otlp-receiver", "--grpc-port=0", "--http-port=0", "--query-port=0"]
    command = [sys.executable, "-c", program.format(arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout
        lines = [running.stdout.readline() for _ in range(3)]
        running.terminate()
    assert running.returncode == 0
    assert [line.split()[0] for line in lines] == ["OTLP/gRPC", "OTLP/HTTP", "traces"]


def test_urls_are_those_of_the_ports_in_the_example(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GRAFANA_PORT", "3001")
    assert main(None, ["urls"]) == 0
    assert capsys.readouterr().out == (
        "  Orders        http://127.0.0.1:8000\n"
        "  Grafana       http://127.0.0.1:3001   user admin; password: see .env\n"
        "  OTLP/gRPC     http://127.0.0.1:4317\n"
        "  Kafka         127.0.0.1:9092\n"
        "\nmake order\n"
    )


def test_ports_come_from_the_environment_then_dotenv_then_its_example(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert project.port("GRAFANA_PORT", 3000) == 3000
    env = project.root / ".env"
    env.write_text("# ports\n#GRAFANA_PORT=1\nGRAFANA_PORT='3333' # moved\nORDERS_PORT=8000-8009\n")
    again = Project(project.root, "shop")
    assert again.port("GRAFANA_PORT", 3000) == 3333
    assert again.port(again.entrance_port, 1) == 8000
    assert store_of(again).NAME == "Jaeger"
    monkeypatch.setenv("GRAFANA_PORT", "4444")
    assert again.port("GRAFANA_PORT", 3000) == 4444


def test_the_entrance_is_the_first_service(project: Project) -> None:
    assert project.services == ["orders", "billing", "stock-taking"]
    settings = project.root / "pyproject.toml"
    settings.write_text('[tool.faststream-otel]\nentrance = "gone"\n')
    with pytest.raises(UserError, match=r"gone does not exist: .* one of billing, orders, stock"):
        _ = Project(project.root, "shop").services
    settings.write_text("")
    assert Project(project.root, "shop").services == ["billing", "orders", "stock-taking"]
    assert Project(project.root, "shop").entrance_port == "BILLING_PORT"


def test_a_missing_project_is_an_error(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main("store", ["urls"]) == 1
    assert "FASTSTREAM_OTEL_APP is store: set it to a package" in capsys.readouterr().err
    monkeypatch.delenv("FASTSTREAM_OTEL_APP")
    assert Project.here().package == "shop"
    (project.root / "src/other/services").mkdir(parents=True)
    assert main(None, ["urls"]) == 1
    assert f"services in {project.root / 'src'} (there: other, shop)." in capsys.readouterr().err


def test_project_is_found_from_a_folder_in_it(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project.source)
    assert Project.here() == project
