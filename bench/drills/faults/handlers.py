"""A handler that always raises, one that raises twice and then succeeds, and one that hangs."""

import itertools
from contextlib import suppress

from e2e.poll import poll_until

from ..accounting import Record
from ..flow import DEAD_LETTERS
from ..promises import Figures
from ..samples import body, message
from ..site import Run

CHANNEL = "trial.given"
ATTEMPTS = 3
BACKOFF_SECONDS = (
    0.2,
    0.4,
)  # before the second and the third attempt; with jitter from half to whole
TIMEOUT_SECONDS = 10.0
# A hanging handler blocks all partitions of its consumer for this long: attempts and pauses.
STALL_SECONDS = ATTEMPTS * TIMEOUT_SECONDS + sum(BACKOFF_SECONDS)
SLACK_SECONDS = 3.0
TASKS = {"raise": 6, "raise twice": 6, "hang": 1, "succeed": 12}


def drill(run: Run) -> Figures:
    run.mark()
    acts = {}
    for act, count in TASKS.items():
        for _ in range(count):
            task = body(CHANNEL, act=act)
            acts[task["order_id"]] = act
            run.inject([message(CHANNEL, task, partition=len(acts) % 3)])
    figures = run.reckon()

    given = {one.order_id: one for one in run.records if one.channel == CHANNEL}
    done = {one.order_id: one for one in run.records if one.channel == "trial.done"}
    dead = {one.order_id: one for one in run.records if one.channel == DEAD_LETTERS}
    for order, act in acts.items():
        run.must((order in dead) == (act in {"raise", "hang"}), f"{act}: dead {order in dead}")
        run.must((order in done) == (act not in {"raise", "hang"}), f"{act}: done {order in done}")
    for order, dead_letter in dead.items():
        attempts = int(dead_letter.headers["dead-letter.attempts"])
        run.must(attempts == ATTEMPTS, f"{acts[order]}: {attempts} attempts")
    for order, record in done.items():
        wanted = ATTEMPTS if acts[order] == "raise twice" else 1
        run.must(record.body["attempt"] == wanted, f"{acts[order]}: {record.body['attempt']}")
    judge_pauses(run, [given[one] for one, act in acts.items() if act.startswith("raise")])

    began = given[next(one for one, act in acts.items() if act == "hang")].at
    last = max(record.at for record in [*done.values(), *dead.values()])
    run.note(f"one that hangs blocked all others for {last - began:.0f} s")
    allowed = STALL_SECONDS + SLACK_SECONDS + TASKS["raise"] * 2 * sum(BACKOFF_SECONDS)
    run.must(last - began <= allowed, f"that is longer than {allowed:.0f} s")
    return figures


def read_retries(run: Run, records: list[Record]) -> bool:
    """Read traces that lack the span of an attempt; return whether all are complete.

    A search may return a part of a trace, and the comparison does not expect these spans.
    """
    lacking = [
        process.trace_id
        for record in records
        for process in run.store.processes(record)
        if len(run.store.children(process, f"retry {CHANNEL}")) < ATTEMPTS - 1
    ]
    run.read_traces(run.store, lacking)
    return not lacking


def judge_pauses(run: Run, records: list[Record]) -> None:
    """Check that each further attempt has its span, after a pause with jitter."""
    with suppress(AssertionError):  # reported below
        poll_until(lambda: read_retries(run, records), "the spans of further attempts", 60)
    pauses: list[list[float]] = [[], []]
    for record in records:
        (process,) = run.store.processes(record)
        retries = sorted(
            run.store.children(process, f"retry {CHANNEL}"), key=lambda one: one.start_ns
        )
        run.must(len(retries) == ATTEMPTS - 1, f"{len(retries)} spans of further attempts")
        starts = [process.start_ns, *(one.start_ns for one in retries)]
        for number, (before, after) in enumerate(itertools.pairwise(starts)):
            pauses[number].append((after - before) / 1e9)
    for wanted, seen in zip(BACKOFF_SECONDS, pauses, strict=True):
        within = all(wanted / 2 <= pause <= wanted + 0.2 for pause in seen)
        run.must(within, f"pauses of {min(seen):.2f} to {max(seen):.2f} s instead of {wanted} s")
        run.must(max(seen) - min(seen) > 0.01, "the pauses have no jitter")
    run.note("; ".join(f"pauses of {min(one):.2f} to {max(one):.2f} s" for one in pauses))
