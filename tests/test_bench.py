"""`make bench` measures what it says that it measures, and the pages show what it measured."""

import ast
import json
import os
import platform
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from collector import baked_arguments
from matrix import OPTIONS, TEMPLATE

from bench import page
from bench.chart import Bar, bars
from bench.figures import Spread, ratios
from bench.measured.brokers import BROKERS
from bench.run import Load, Sample, Wrong, check, measure
from bench.sink import Sink
from bench.sites import SITES, Site, served
from bench.variants import MEMORY, VARIANTS, Variant, as_users_run, environment

LOAD = Load(15, warm_up=5)
BAKED = TEMPLATE / "{{cookiecutter.project_slug}}"


def bench(*arguments: str, **variables: str) -> str:
    """The error of a run that measures nothing."""
    inherited = {name: value for name, value in os.environ.items() if name != "BROKER_URL"}
    done = subprocess.run(
        [sys.executable, "-m", "bench", *arguments],
        cwd=TEMPLATE,
        env=inherited | {"PYTHONPATH": "tests"} | variables,
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    return " ".join(done.stderr.split())


# --- The command line


def test_a_kafka_that_cannot_be_started_is_asked_for_with_an_example(tmp_path: Path) -> None:
    assert "for example --broker kafka=127.0.0.1:9092" in bench(STACK_HOME=str(tmp_path))


def test_a_rabbitmq_that_is_not_installed_is_asked_for() -> None:
    error = bench("--broker", "rabbitmq", PATH="")
    assert "for example --broker rabbitmq=127.0.0.1:5672" in error


def test_an_address_in_place_of_a_broker_is_refused_with_the_choices() -> None:
    error = bench("--broker", "127.0.0.1:9092")
    assert all(broker in error for broker in BROKERS)


def test_an_unknown_part_is_refused_with_the_choices() -> None:
    assert "there is no part cost; use variants, memory" in bench("--parts", "variants,cost")


# --- What is measured, on a real server


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with served("nats", "") as found:
        yield found


@pytest.fixture(scope="module")
def sink() -> Iterator[Sink]:
    with Sink() as found:
        yield found


def test_the_whole_service_is_what_is_baked(site: Site, sink: Sink) -> None:
    """All signals arrive, each message is counted, and acknowledged after its handler."""
    sample = measure(VARIANTS["service"], site, sink, LOAD)
    messages = LOAD.published * LOAD.hops
    assert sample.arrived["spans"] == 2 * messages
    assert sample.arrived["logs"] >= messages
    assert sample.arrived["metrics"] > 0
    assert sample.told["counted"] == messages
    assert sample.told["acknowledges"] != ["ACK_FIRST"]
    assert sample.handled == LOAD.messages * LOAD.hops
    assert sample.cpu_us > 0


def test_without_telemetry_nothing_is_sent(site: Site, sink: Sink) -> None:
    sample = measure(VARIANTS["bare"], site, sink, LOAD)
    assert not any(sample.arrived.values())
    assert sample.told["counted"] == 0


def test_the_recipe_sends_spans_and_counts(site: Site, sink: Sink) -> None:
    sample = measure(VARIANTS["recipe-prometheus"], site, sink, LOAD)
    assert sample.arrived["spans"] >= 2 * LOAD.published * LOAD.hops
    assert sample.arrived["spans bytes"] > 0
    assert sample.told["counted"] == LOAD.published * LOAD.hops


def test_a_service_that_does_less_is_not_measured(site: Site, sink: Sink) -> None:
    less = {
        "OTEL_TRACES_EXPORTER": "none",
        "OTEL_LOGS_EXPORTER": "none",
        "MESSAGING_METRICS": "otlp",
    }
    with pytest.raises(Wrong) as refused:
        measure(replace(VARIANTS["service"], variables=less), site, sink, LOAD)
    for fault in ("0 spans arrived", "0 logs arrived", "Prometheus metrics count 0 of"):
        assert fault in str(refused.value)


def told(variant: Variant, arrived: dict[str, int], **fields: Any) -> None:
    about = {"counted": 0, "acknowledges": ["NACK_ON_ERROR"], **fields}
    check(variant, Sample(about, Counter(arrived), handled=10), 10)


def test_a_run_that_sends_what_its_variant_does_not_is_refused() -> None:
    told(VARIANTS["bare"], {})
    with pytest.raises(Wrong, match="20 spans arrived, not 0 to 0"):
        told(VARIANTS["bare"], {"spans": 20})
    with pytest.raises(Wrong, match="30 logs arrived"):
        told(VARIANTS["ours"], {"spans": 20, "logs": 30})


def test_a_run_that_acknowledges_before_the_handler_is_refused() -> None:
    arrived = {"spans": 20, "logs": 10, "metrics": 1}
    told(VARIANTS["service"], arrived, counted=10)
    with pytest.raises(Wrong, match="acknowledged before they are handled"):
        told(VARIANTS["service"], arrived, counted=10, acknowledges=["ACK_FIRST"])


def test_a_sampled_run_has_a_tenth_of_the_spans() -> None:
    arrived = {"spans": 20, "logs": 10, "metrics": 1}
    with pytest.raises(Wrong, match="20 spans arrived, not 1 to 4"):
        told(VARIANTS["service-sampled"], arrived, counted=10)


def test_the_service_starts_as_a_baked_one() -> None:
    ours = (TEMPLATE / "bench/measured/bake/__main__.py").read_text("utf-8")
    baked = (BAKED / "src/{{cookiecutter.package_name}}/__main__.py").read_text("utf-8")
    bodies = [ast.dump(ast.Module(ast.parse(text).body[1:], [])) for text in (ours, baked)]
    assert bodies[0] == bodies[1]


def test_a_service_has_the_variables_of_a_bake() -> None:
    compose = (BAKED / "compose.yaml").read_text("utf-8")
    variables = environment(VARIANTS["service"], "grpc", "http")
    queue = variables["OTEL_BLRP_MAX_QUEUE_SIZE"]
    assert f"OTEL_BLRP_MAX_QUEUE_SIZE: ${{OTEL_BLRP_MAX_QUEUE_SIZE:-{queue}}}" in compose
    assert "OTEL_BSP_MAX_QUEUE_SIZE" not in variables  # the library's default
    assert variables["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http"
    assert variables["OTEL_EXPORTER_OTLP_PROTOCOL"] == "http/protobuf"


def test_the_collector_that_is_measured_has_all_files_of_a_bake() -> None:
    config = BAKED / "observability/otel-collector/config"
    files = [Path(one.removeprefix("--config=")) for one in baked_arguments(config)]
    missing = [one.name for one in files if not one.is_file()]
    assert missing == ["trace-backend.yaml"]  # of an overlay
    assert {one.parent.name for one in files} >= {"sampling", "redaction", "forward"}


def test_no_variant_wins_by_dropping_spans() -> None:
    """But in a burst each has the queue that its users have."""
    recipe = VARIANTS["recipe"]
    assert "OTEL_BSP_MAX_QUEUE_SIZE" in environment(recipe, "", "")
    assert "OTEL_BSP_MAX_QUEUE_SIZE" not in environment(as_users_run(recipe), "", "")


def test_each_broker_of_a_bake_can_be_measured() -> None:
    assert set(OPTIONS["broker"]) <= set(SITES)
    assert set(SITES) == set(BROKERS)


# --- Figures, charts and pages


def test_ratios_are_within_a_round() -> None:
    rounds = [
        {"a": {"x": 10.0}, "b": {"x": 5.0}},
        {"a": {"x": 300.0}, "b": {"x": 100.0}},
        {"a": {"x": 8.0}, "b": {"x": 8.0}},
    ]
    assert ratios(rounds, "x", "a", "b") == Spread(2.0, 1.0, 3.0)
    assert ratios(rounds, "x", "a", "b").text() == "2.00 (1.00 to 3.00)"


def test_a_chart_shows_each_figure() -> None:
    rows = [Bar("<plain>", Spread(1, 1, 1), "plain"), Bar("ours", Spread(1.5, 1.4, 1.7), "ours")]
    drawn = ElementTree.fromstring(bars("CPU time", rows))
    texts = [one.text for one in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert {"CPU time", "<plain>", "ours", "1.00", "1.50"} <= set(texts)
    widths = [float(one.attrib["width"]) for one in drawn.iter("{http://www.w3.org/2000/svg}rect")]
    assert widths[1] / widths[0] == pytest.approx(1.5, abs=0.02)


def test_each_variant_has_a_name_on_the_chart() -> None:
    assert set(page.SHORT) == set(VARIANTS)
    assert set(MEMORY) >= {"bare", "service"}


@pytest.mark.parametrize("path", page.PAGES, ids=lambda path: path.name)
def test_a_page_shows_the_figures_that_were_measured(path: Path) -> None:
    """`make bench ARGS=--page` writes them."""
    text = path.read_text("utf-8")
    assert page.BLOCK.search(text)
    assert page.filled(text, page.read()) == text


def test_the_page_has_a_place_for_every_table() -> None:
    marks = {found[2] for path in page.PAGES for found in page.BLOCK.finditer(path.read_text())}
    assert set(page.blocks(page.read())) <= marks


def test_the_charts_show_the_figures_that_were_measured() -> None:
    for name, svg in page.charts(page.read()).items():
        assert (page.IMAGES / name).read_text("utf-8") == svg


def test_changed_figures_change_the_page() -> None:
    figures = json.loads(json.dumps(page.read()))
    for one in figures["variants"]["result"]["rounds"]:
        one["service"]["cpu_us"] *= 7
    text = page.PAGES[0].read_text("utf-8")
    assert page.filled(text, figures) != text


def test_the_figures_name_versions_and_the_kind_of_machine_but_not_which() -> None:
    text = page.FIGURES.read_text("utf-8")
    for part in json.loads(text).values():
        assert {"faststream", "opentelemetry-sdk"} <= set(part["versions"])
        assert set(part["machine"]) == {"cores", "cpu", "system", "python"}
    assert platform.node() not in text
    assert str(TEMPLATE) not in text
    assert str(Path.home()) not in text
