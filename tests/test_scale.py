"""`make scale`: what its model says, that it fits what was measured, and what the page shows."""

import json
import platform
import re
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from matrix import TEMPLATE

from bench import page as cost_page
from bench.scale import page
from bench.scale.drains import steady_rate
from bench.scale.meters import Reading, between, in_use, samples
from bench.scale.model import (
    CONSUMERS,
    SERVICES,
    Assumptions,
    Costs,
    costs_of,
    drain_rate,
    needs,
    one_process,
    predictions,
    rounded,
)
from bench.scale.site import SCALED, seconds_of, with_wait

FACTOR = 1.5
"""Within which a measured backlog is what the model says."""
BAKED = TEMPLATE / "{{cookiecutter.project_slug}}"

COSTS = Costs(
    cpu={
        "orders": 0.002, "payments": 0.0012, "shipping": 0.0006, "notifications": 0.0003,
        "kafka": 0.0006, "otel-collector": 0.0006, "tempo": 0.0003, "loki": 0.0003,
    },
    layers=(0.0006, 0.0006),
    tail=0.0002,
    disk={"kafka": 1000, "tempo": 1000, "loki": 300},
    spans=8,
    trace_bytes=4000,
    log_bytes=1000,
    unpaired=2,
    waiting_span=2000,
    series={
        "of orders": 200, "of payments": 200, "of shipping": 200, "of notifications": 200,
        "of spans": 100, "of lag": 10, "all": 5000,
    },
    lag_cores=0.01,
    partition_cores=0.0001,
    limits={
        "tempo_bytes": 4e6, "tempo_traces": 1e5, "loki_bytes": 4e6, "graph_edges": 10_000,
        "graph_seconds": 50, "tail_traces": 20_000, "tail_seconds": 40,
    },
)  # fmt: skip
ASSUMED = Assumptions(
    utilisation=0.6, service_cores=1, collector_cores=2, collector_bytes=1e9, broker_cores=4,
    broker_bytes=1e8, store_cores=8, copies=3, growth=2, confirm=0, trace_seconds=10,
    trace_bytes=100e9, prometheus_series=1e6, least=2,
)  # fmt: skip


# --- The model


@pytest.mark.parametrize(
    ("partitions", "replicas", "rate"),
    [(1, 1, 100), (1, 4, 100), (4, 1, 100), (2, 2, 200), (4, 2, 200), (2, 4, 200), (4, 4, 400)],
)
def test_a_partition_has_one_consumer(partitions: int, replicas: int, rate: float) -> None:
    assert drain_rate(partitions, replicas, 0.01) == pytest.approx(rate)


def test_replicas_help_no_further_than_the_machine() -> None:
    assert drain_rate(4, 4, 0.01, machine=250) == 250


def test_replicas_follow_from_cpu_time_and_headroom() -> None:
    found = needs(1000, COSTS, ASSUMED)
    assert found.replicas == {"orders": 4, "payments": 2, "shipping": 2, "notifications": 2}
    assert needs(10_000, COSTS, ASSUMED).replicas["orders"] == 34
    assert needs(1, COSTS, ASSUMED).replicas == dict.fromkeys(SERVICES, 2)


def test_handlers_that_wait_need_replicas_but_no_cores() -> None:
    """But for those of batches."""
    waiting = needs(1000, COSTS, replace(ASSUMED, wait=0.03))
    assert waiting.replicas == {"orders": 4, "payments": 52, "shipping": 51, "notifications": 2}
    assert waiting.cores == needs(1000, COSTS, ASSUMED).cores
    assert waiting.partitions == 128
    assert needs(1000, COSTS, replace(ASSUMED, confirm=0.03)) == waiting


def test_there_are_partitions_for_all_consumers_and_for_growth() -> None:
    for rate in (10, 1000, 7000, 100_000):
        found = needs(rate, COSTS, ASSUMED)
        most = max(found.replicas[one] for one in CONSUMERS)
        assert 2 * most <= found.partitions < 4 * most
        assert found.partitions & (found.partitions - 1) == 0


def test_a_second_collector_makes_two_layers() -> None:
    assert needs(1000, COSTS, ASSUMED).collectors == (0, 1)
    first, second = needs(10_000, COSTS, ASSUMED).collectors
    assert first == 5
    assert second > first  # it samples, and keeps what waits for its choice


def test_waiting_spans_fit_the_memory_of_the_second_layer() -> None:
    _, few = needs(10_000, COSTS, replace(ASSUMED, collector_bytes=10e9)).collectors
    _, many = needs(10_000, COSTS, replace(ASSUMED, collector_bytes=0.5e9)).collectors
    held = 10_000 * 40 * 8 * 2000
    assert (many - 1) * 0.5e9 < held <= many * 0.5e9
    assert few < many


def test_traces_are_sampled_once_they_are_too_many() -> None:
    assert needs(1000, COSTS, ASSUMED).share == 100  # 86.4 GB
    assert needs(1200, COSTS, ASSUMED).share == 50
    assert needs(10_000, COSTS, ASSUMED).share == 10
    assert needs(10_000, COSTS, ASSUMED).disk["Tempo"] <= ASSUMED.trace_bytes
    assert needs(1e6, COSTS, ASSUMED).share == 1


def test_a_broker_holds_all_copies() -> None:
    found = needs(1000, COSTS, ASSUMED)
    assert found.disk["Kafka"] == 1000 * 86_400 * 1000 * 3
    assert found.brokers == 3
    assert needs(100_000, COSTS, ASSUMED).brokers == 75  # by CPU time
    assert needs(100_000, COSTS, replace(ASSUMED, broker_cores=100)).brokers == 5  # by disk


def test_the_next_wall_is_the_lowest_above_the_rate() -> None:
    walls = {one.what: one.rate for one in one_process(COSTS, ASSUMED)}
    assert walls["one replica of orders"] == pytest.approx(300)
    assert walls["one partition, and so one key"] == pytest.approx(500)
    assert walls["one Collector"] == pytest.approx(2000)
    assert walls["the service graph's `max_items` of one Collector"] == pytest.approx(100)
    assert walls["tail sampling's `num_traces` of one Collector"] == pytest.approx(500)
    assert walls["Loki's `ingestion_rate_mb`"] == pytest.approx(4000)
    assert walls["Tempo's `max_traces_per_user`"] == pytest.approx(10_000)
    found = needs(600, COSTS, ASSUMED)
    assert [one.rate for one in found.passed] == pytest.approx([100, 300, 500, 500])
    assert found.wall
    assert found.wall.rate == min(rate for rate in walls.values() if rate >= 600)


def test_sampling_moves_the_walls_of_the_trace_store() -> None:
    whole, tenth = (
        {one.what: one.rate for one in one_process(COSTS, ASSUMED, share)} for share in (1, 0.1)
    )
    assert tenth["one Tempo"] == pytest.approx(10 * whole["one Tempo"])
    assert tenth["one Loki"] == whole["one Loki"]


def test_series_grow_with_replicas_not_with_orders() -> None:
    assert needs(1, COSTS, ASSUMED).series == needs(2, COSTS, ASSUMED).series
    walls = {one.what: one.rate for one in one_process(COSTS, ASSUMED)}
    at_wall = needs(walls["one Prometheus"], COSTS, ASSUMED).series
    assert at_wall == pytest.approx(ASSUMED.prometheus_series, rel=0.05)


def test_the_lag_exporter_ends_with_the_partitions() -> None:
    walls = {one.what: one.rate for one in one_process(COSTS, ASSUMED)}
    partitions = needs(walls["one lag exporter"], COSTS, ASSUMED).partitions
    assert 0.01 + partitions * 0.0001 > 0.6
    never = replace(COSTS, partition_cores=0.0)
    assert "one lag exporter" not in {one.what for one in one_process(never, ASSUMED)}


@pytest.mark.parametrize(("number", "text"), [(1234, 1200), (99.9, 99), (0.0567, 0.056), (5, 5)])
def test_a_figure_of_the_model_has_two_digits(number: float, text: float) -> None:
    assert rounded(number) == pytest.approx(text)


# --- Meters


def test_what_is_used_is_the_difference_of_two_readings() -> None:
    before = Reading(10, {"kafka": 5.0}, {"kafka": 1}, 100.0)
    after = Reading(14, {"kafka": 7.0, "router": 1.0}, {"kafka": 3}, 107.0)
    used = between(before, after)
    assert used.seconds == 4
    assert used.cpu == {"kafka": 2.0, "router": 1.0}
    assert used.elsewhere == 1.0
    assert between(replace(before, machine=None), after).elsewhere is None


@pytest.mark.parametrize("name", ["total_inactive_file", "inactive_file"])
def test_memory_is_counted_without_idle_files(name: str) -> None:
    assert in_use({"usage": 100, "stats": {name: 30}}) == 70
    assert in_use({"usage": 100}) == 100


def test_samples_of_a_metric_are_summed_up() -> None:
    page = '# TYPE a counter\na{x="1"} 2\na{x="} 3"} 4\nb 1.5e+06\n'
    assert samples(page) == {"a": 6, "b": 1.5e6}


def test_a_backlog_is_timed_without_its_start_and_its_end() -> None:
    points = [(0.0, 0), (5.0, 0), (6.0, 10), (7.0, 50), (8.0, 90), (20.0, 100)]
    assert steady_rate(points, 100) == pytest.approx(40)
    with pytest.raises(AssertionError, match="too fast to be timed"):
        steady_rate([(0.0, 0), (1.0, 100)], 100)


@pytest.mark.parametrize("service", SCALED)
def test_the_handlers_can_be_made_to_wait(service: str) -> None:
    path = BAKED / f"src/{{{{cookiecutter.package_name}}}}/services/{service}.py"
    changed = with_wait(path.read_text("utf-8"))
    compile(changed, service, "exec")
    _, _, handler = changed.partition("@service.subscriber")
    assert handler.index("await asyncio.sleep(") < handler.index("span.set_attribute")
    with pytest.raises(AssertionError, match="no handler to change"):
        with_wait("import logging\n")


def test_durations_are_read() -> None:
    assert seconds_of("45s") == 45


# --- The command line


def scale(*arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "bench.scale", *arguments],
        cwd=TEMPLATE,
        env={"PYTHONPATH": "tests", "PATH": "", **variables},
        capture_output=True,
        text=True,
    )


def test_a_rate_is_answered_without_measuring() -> None:
    done = scale("--for", "2500")
    assert done.returncode == 0, done.stderr
    assert "2,500 orders/s" in done.stdout
    assert "partitions of each channel" in done.stdout
    assert "| one Collector | " in done.stdout  # which ends before


def test_what_is_no_rate_is_refused_with_a_good_one() -> None:
    for bad in ("many", "0", "-5"):
        assert "such as 2500" in scale(f"--for={bad}").stderr


# --- The figures and the page


@pytest.fixture(scope="module")
def figures() -> dict[str, Any]:
    return page.read()


def test_the_model_fits_what_was_measured(figures: dict[str, Any]) -> None:
    text = page.PAGE.read_text("utf-8")
    assert f"within a factor of {FACTOR}" in " ".join(text.split())
    checked = predictions(figures)
    every = {(partitions, replicas) for partitions in (1, 2, 4) for replicas in (1, 2, 4)}
    waiting = [(one["partitions"], one["replicas"]) for one, _ in checked if one["wait"]]
    assert {*waiting} == every - {(1, 1)}
    for one, rate in checked:
        assert 1 / FACTOR < one["rate"] / rate < FACTOR, one


def test_a_replica_without_a_partition_adds_nothing(figures: dict[str, Any]) -> None:
    rates = {
        (one["partitions"], one["replicas"]): one["rate"]
        for one in figures["drains"]
        if one["wait"]
    }
    assert rates[1, 4] < 1.5 * rates[1, 1]
    assert rates[4, 4] > 2 * rates[1, 4]


def test_every_order_was_counted_as_the_example_makes_it(figures: dict[str, Any]) -> None:
    for one in figures["cost"]["windows"]:
        assert 7 < one["counted"]["spans"] <= 9  # seven, and one for each batch
        assert one["counted"]["stored_spans"] == pytest.approx(one["counted"]["spans"], rel=0.05)
        assert set(page.NAMES) <= set(one["cpu_ms"])
    # Those that took more than a second are stored, and on a busy machine these are many.
    assert figures["tail"]["counted"]["stored_spans"] < 0.8 * figures["tail"]["counted"]["spans"]
    assert not figures["quick"]


def test_the_page_shows_the_figures_that_were_measured(figures: dict[str, Any]) -> None:
    """`make scale ARGS=--page` writes them."""
    text = page.PAGE.read_text("utf-8")
    assert page.filled(text, figures) == text


def test_the_page_has_a_place_for_every_table(figures: dict[str, Any]) -> None:
    marks = {found[2] for found in cost_page.BLOCK.finditer(page.PAGE.read_text("utf-8"))}
    assert marks == set(page.blocks(figures))


def test_changed_figures_change_the_page(figures: dict[str, Any]) -> None:
    changed = json.loads(json.dumps(figures))
    for one in changed["cost"]["windows"]:
        one["cpu_ms"]["payments"] *= 7
    text = page.PAGE.read_text("utf-8")
    assert page.filled(text, changed) != text


def test_the_charts_show_the_figures_that_were_measured(figures: dict[str, Any]) -> None:
    made = page.charts(figures)
    text = page.PAGE.read_text("utf-8")
    for name, svg in made.items():
        assert (cost_page.IMAGES / name).read_text("utf-8") == svg
        assert f"(images/{name})" in text
        ElementTree.fromstring(svg)


def test_the_page_names_limits_as_they_are_baked(figures: dict[str, Any]) -> None:
    collector = BAKED / "observability/otel-collector/config"
    limits = figures["limits"]
    (edges,) = re.findall(r"max_items: (\d+)", (collector / "collector.yaml").read_text("utf-8"))
    (traces,) = re.findall(
        r"num_traces: (\d+)", (collector / "sampling/tail.yaml").read_text("utf-8")
    )
    assert (limits["graph_edges"], limits["tail_traces"]) == (int(edges), int(traces))


def test_all_rates_of_the_page_have_an_answer(figures: dict[str, Any]) -> None:
    costs = costs_of(figures)
    found = [needs(rate, costs) for rate in page.RATES]
    for few, many in pairwise(found):
        assert few.partitions < many.partitions
        assert sum(few.replicas.values()) < sum(many.replicas.values())
        assert few.share >= many.share
    assert all(cores > 0 for one in found for cores in one.cores.values())
    assert all(size > 0 for one in found for size in one.disk.values())


def test_the_figures_name_the_kind_of_machine_but_not_which() -> None:
    text = page.FIGURES.read_text("utf-8")
    assert set(json.loads(text)["machine"]) == {"cores", "cpu", "system", "python"}
    for secret in (platform.node(), str(TEMPLATE), str(Path.home())):
        assert secret not in text
