"""Messages with a malformed or missing trace context, without headers, or of 1 MiB."""

import secrets

from ..promises import Figures
from ..samples import body, message, traceparent
from ..site import Run

CHANNEL = "orders.placed"
IDS = f"{secrets.token_hex(16)}-{secrets.token_hex(8)}"
LOST = {
    "garbage": b"not a traceparent",
    "empty": b"",
    "all zeros": b"00-" + b"0" * 32 + b"-" + b"0" * 16 + b"-01",
    "forbidden version": f"ff-{IDS}-01".encode(),
    "upper case": f"00-{IDS.upper()}-01".encode(),
    "too short": f"00-{IDS[:-2]}-01".encode(),
    "too long for its version": f"00-{IDS}-01-more".encode(),
    "not UTF-8": b"00-\xff\xfe-01",
    "missing": None,
}
"""Values of traceparent that a receiver must ignore by W3C Trace Context: a new trace."""
KEPT: dict[str, dict[str, bytes | None]] = {
    "future version": {"traceparent": traceparent().replace("00-", "cc-", 1).encode()},
    "malformed tracestate": {"tracestate": b"=,,;a=b=c, ,"},
    "long tracestate": {"tracestate": ",".join(f"k{n}=v" for n in range(99)).encode()},
    "malformed baggage": {"baggage": b"=;,%%%\xff"},
    "no content type": {"content-type": None},
}
"""Headers that continue the trace."""


def drill(run: Run) -> Figures:
    run.mark()
    # At least one hex letter, or upper case would be the same as lower case.
    assert LOST["upper case"] != f"00-{IDS}-01".encode()
    new = {
        kind: message(CHANNEL, body(CHANNEL), {"traceparent": one}) for kind, one in LOST.items()
    }
    new["no header at all"] = message(
        CHANNEL, body(CHANNEL), {"traceparent": None, "content-type": None}
    )
    same = {kind: message(CHANNEL, body(CHANNEL), headers) for kind, headers in KEPT.items()}
    same["1 MiB"] = message(CHANNEL, body(CHANNEL, sku="x" * (1 << 20)))
    positions = run.inject([*new.values(), *same.values()])
    figures = run.reckon()

    records = {record.position: record for record in run.records}
    for kind, position in zip([*new, *same], positions, strict=True):
        record = records[position]
        ends = {one.channel for one in run.records if one.order_id == record.order_id}
        run.must("shipments.dispatched" in ends, f"{kind}: it was not dispatched, but in {ends}")
        spans = run.store.processes(record)
        roots = [not span.parent_id for span in spans]
        run.must(roots == [kind in new], f"{kind}: {len(spans)} spans, of them {sum(roots)} roots")
    run.note(f"{len(new)} new traces, {len(same)} went on")
    return figures
