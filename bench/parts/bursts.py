"""Spans that are lost when many end at once, and the memory that it takes."""

import json
import subprocess
import sys
from functools import partial
from typing import Any

from faststream_otel.telemetry.environment import queue_size

from ..figures import MB, Spread, table
from ..run import Load, inherited, measure
from ..variants import ROOT, VARIANTS, Variant, as_users_run, baked_variables, environment
from . import Bench, Round

BURST = 50_000
ROUNDS = 3


def run(bench: Bench) -> Any:
    recipe, ours, service = (as_users_run(VARIANTS[x]) for x in ("recipe", "ours", "service"))
    number = bench.number(BURST)
    runs = {
        "spans recipe": partial(of_spans, bench, recipe, number),
        "spans ours": partial(of_spans, bench, ours, number),
    }
    rounds = bench.interleaved(runs)
    load = Load(number, warm_up=bench.number(500), hops=1)
    messages = {
        "messages recipe": partial(of_messages, bench, recipe, load),
        "messages service": partial(of_messages, bench, service, load),
    }
    once = bench.interleaved(messages, 1)
    queue = queue_size("OTEL_BSP")
    return {"number": number, "queue": queue, "spans": rounds, "messages": once}


def of_spans(bench: Bench, variant: Variant, number: int) -> Round:
    """The library as a bake runs it; the recipe as it stands."""
    before = bench.sink.counts()
    (middleware,) = variant.middlewares
    baked = baked_variables() if middleware == "ours" else {}
    done = subprocess.run(
        [sys.executable, "-m", "bench.measured.burst", middleware, str(number)],
        cwd=ROOT,
        env={**inherited(), **environment(variant, bench.sink.grpc, bench.sink.http), **baked},
        stdout=subprocess.PIPE,
        check=True,
    )
    told = json.loads(done.stdout)
    arrived = bench.sink.counts()["spans"] - before["spans"]
    return _figures(told["ended"], arrived, told["before_rss"], told["peak_rss"])


def of_messages(bench: Bench, variant: Variant, load: Load) -> Round:
    sample = measure(variant, bench.site, bench.sink, load, count_spans=True, may_lose=True)
    told = sample.told
    first = told["progress"][0][2]
    return _figures(told["spans"], sample.arrived["spans"], first, told["peak_rss"])


def _figures(ended: int, arrived: int, before: int, peak: int) -> Round:
    return {"ended": ended, "lost": max(0, ended - arrived), "memory": peak - before}


TITLES = {
    "spans recipe": "FastStream's docs recipe",
    "spans ours": "the library, with the variables of a bake",
    "messages recipe": "FastStream's docs recipe",
    "messages service": "the whole service",
}


def tables(result: Any) -> dict[str, str]:
    rows = []
    for kind, text in (("spans", "spans ended in a loop"), ("messages", "messages, all waiting")):
        rounds = result[kind]
        for name in rounds[0]:
            found = [one[name] for one in rounds]
            lost = Spread.of(100 * one["lost"] / one["ended"] for one in found)
            rows.append(
                [
                    f"{result['number']:,} {text}",
                    TITLES[name],
                    Spread.of(one["ended"] for one in found).text(0),
                    Spread.of(one["lost"] for one in found).text(0),
                    f"{lost.text(1)} %",
                    Spread.of(one["memory"] / MB for one in found).text(0),
                ]
            )
    head = ["A burst of", "", "spans", "lost", "share", "memory at most above the start, MB"]
    bound = f"The queue of a bake holds {result['queue']:,} spans at most."
    return {"bursts": f"{table(head, rows)}\n\n{bound}"}
