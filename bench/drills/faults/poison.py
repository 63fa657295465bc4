"""Poison messages between good ones, for a single handler and for a batch handler."""

from collections import defaultdict
from typing import Any

from ..accounting import Position, Record, changed
from ..channels import Message
from ..flow import DEAD_LETTERS
from ..promises import Figures
from ..samples import BODIES, body, message
from ..site import Run

CHANNELS = ("orders.placed", "shipments.dispatched")
PARTITIONS = 3
ODD = (("x-note", None), ("x-note", b"\xff\xfe"), ("", b""), ("x-note", b"\xff\xfe"))
"""Headers that are not text, null, or repeated."""
REASONS = ("dead-letter.reason", "dead-letter.error.type", "dead-letter.attempts")


def poison(channel: str, partition: int) -> dict[str, Message]:
    """One of each kind."""
    bodies = BODIES[channel]
    some = next(name for name, value in bodies.items() if isinstance(value, str))
    values: dict[str, bytes | dict[str, Any] | None] = {
        "invalid JSON": b"{not json",
        "not UTF-8": b'{"order_id": "\xff\xfe"}',
        "wrong schema": {"what": "is this"},
        "wrong type": body(channel, **{some: ["no", "text"]}),
        "empty": b"",
        "no value": None,
        "future contract": body(channel, version=2),
    }
    made = {
        f"{kind} in {channel}": message(channel, value, partition=partition)
        for kind, value in values.items()
    }
    made[f"invalid JSON beside odd headers in {channel}"] = message(
        channel, b"{not json", None, *ODD, partition=partition
    )
    for kind, headers in {"not UTF-8": ODD[1:2], "null": ODD[:1], "repeated": ODD}.items():
        made[f"header {kind} in {channel}"] = message(
            channel, body(channel), None, *headers, partition=partition
        )
    return made


def drill(run: Run) -> Figures:
    with run.load() as intake:
        sent: list[tuple[str, Position]] = []
        for channel in CHANNELS:
            for partition in range(PARTITIONS):
                made = {
                    kind: one
                    for kind, one in poison(channel, partition).items()
                    if run.site.channels.carries(one)
                }
                sent += zip(made, run.inject([*made.values()]), strict=True)
    figures = run.reckon(intake)
    judge(run, sent)
    return figures


def judge(run: Run, sent: list[tuple[str, Position]]) -> None:
    """Compare each message with its dead letter and its spans."""
    dead_letters: dict[Position, list[Record]] = defaultdict(list)
    for record in run.records:
        if record.channel == DEAD_LETTERS:
            dead_letters[record.origin].append(record)
    records = {record.position: record for record in run.records}
    tolerated = set()
    for kind, position in sent:
        found = dead_letters.get(position, [])
        if not found and kind.startswith("header"):
            tolerated.add(kind)  # it was handled, or is reported as lost
            continue
        run.must(len(found) == 1, f"{kind}: {len(found)} dead letters")
        for dead_letter in found:
            lacking = [name for name in REASONS if not dead_letter.headers.get(name)]
            run.must(not lacking, f"{kind}: the dead letter lacks {', '.join(lacking)}")
            differs = changed(dead_letter, records[position])
            run.must(not differs, f"{kind}: the dead letter has another {' and '.join(differs)}")
            tombstone = dead_letter.headers.get("dead-letter.tombstone") == "true"
            run.must(tombstone == kind.startswith("no value"), f"{kind}: tombstone is {tombstone}")
            spans = [one for one in run.store.processes(records[position]) if one.status == "ERROR"]
            run.must(spans, f"{kind}: no error span")
            traces = {one.trace_id for one in spans}
            trace = dead_letter.sender[0] if dead_letter.sender else "none"
            run.must(trace in traces, f"{kind}: the dead letter's trace is {trace}, not {traces}")
    run.note(f"{len(sent)} poison messages")
    for kind in sorted(tolerated):
        run.note(f"{kind}: handled")
