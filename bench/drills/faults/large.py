"""Bodies and messages around the limits: one byte too long over HTTP, too long for the broker, a
dead letter of the maximum size, and two that would be larger."""

import http.client
import json

from ..flow import DEAD_LETTERS
from ..promises import Figures
from ..samples import BODIES, body, message, traceparent
from ..site import Run

HTTP_LIMIT = 1_048_576
MESSAGE_LIMIT = 2 * 1_048_576
ROOM = 512  # bytes that the broker counts besides the body: batch header, key and headers


def drill(run: Run) -> Figures:
    run.mark()
    order = {name: one for name, one in BODIES["orders.placed"].items() if name != "version"}
    port = run.stack.ports["ORDERS_PORT"]
    ports = range(port, port + run.site.replicas)
    refused = traceparent()
    just, over = (
        post(ports, json.dumps(order).encode().ljust(size), trace)
        for size, trace in ((HTTP_LIMIT, traceparent()), (HTTP_LIMIT + 1, refused))
    )
    run.must(just == 202, f"a body of the limit was answered {just}")
    run.must(over == 413, f"a body over the limit was answered {over}")

    longest = message("orders.placed", b"{" + b"x" * (MESSAGE_LIMIT - ROOM))
    result = message("trial.given", body("trial.given", act="large", bytes=MESSAGE_LIMIT))
    # As text, each byte takes several.
    noted = message("orders.placed", b"no order", {"x-note": b"\xff" * (MESSAGE_LIMIT * 2 // 5)})
    unpacks = message("orders.placed", b"x" * (MESSAGE_LIMIT * 3 // 2))
    positions = run.inject([longest, result, noted])
    positions += run.inject([unpacks], compression="gzip")
    figures = run.reckon()

    dead_letters = [record for record in run.records if record.channel == DEAD_LETTERS]
    origins = [one.origin for one in dead_letters]
    run.must(origins.count(positions[0]) == 1, "no dead letter for the longest message")
    run.must(origins.count(positions[1]) == 1, "no dead letter for a result that is too long")
    for position, part in ((positions[2], "headers"), (positions[3], "body")):
        cut = [
            one.headers.get("dead-letter.truncated")
            for one in dead_letters
            if one.origin == position
        ]
        run.must(cut == [part], f"dead letters without {part} for {position}: {cut}")
    placed = [record for record in run.records if record.channel == "orders.placed"]
    run.must(len(placed) == 4, f"{len(placed)} messages in orders.placed instead of 4")
    spans = run.store.server(refused.split("-")[1])
    codes = [str(span.attributes.get("http.response.status_code")) for span in spans]
    run.must(codes == ["413"], f"the refused order's spans tell {codes}")
    (given,) = (record for record in run.records if record.channel == "trial.given")
    sends = [
        one
        for process in run.store.processes(given)
        for one in run.store.below(process)
        if one.name == "send trial.done"
    ]
    failed = [one.status for one in sends]
    run.must(failed and set(failed) == {"ERROR"}, f"spans of the too long result: {failed}")
    return figures


def post(ports: range, data: bytes, trace: str) -> int:
    """Return the status of an order, sent to the first port that accepts a connection."""
    for port in ports:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        headers = {"Content-Type": "application/json", "traceparent": trace}
        try:
            connection.connect()
        except OSError:
            continue
        connection.request("POST", "/orders", data, headers)
        return connection.getresponse().status
    raise OSError(f"nobody listens at {ports}")
