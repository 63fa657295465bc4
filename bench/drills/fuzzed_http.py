"""Fuzzes the HTTP API with requests that schemathesis generates from its OpenAPI document."""

import gzip
import json
import random
import socket
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from .accounting import Placed

Must = Callable[[object, str], None]

CARD_LIMIT_CENTS = 100_000
JSON = {"Content-Type": "application/json"}
MAX_KEY_CHARACTERS = 255


def fuzz(url: str, requests: int, seed: int, must: Must) -> tuple[list[Placed], int]:
    """Send requests: of every three, one is valid, one is wrong in one place, one is rubbish.

    Status, headers and body of each response must match the document, and none may be a 5xx.

    Args:
        url: The service's URL.
        requests: About how many.
        seed: Seed of the generated requests.
        must: Called with each condition, and a text for when it is false.

    Returns:
        The orders that were acknowledged, and how many requests were made.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # libraries warn about each other
        import schemathesis
        from hypothesis import HealthCheck, Phase, given, settings
        from hypothesis import seed as seeded

    operation = schemathesis.openapi.from_url(f"{url}/openapi.json")["/orders"]["POST"]
    placed: list[Placed] = []
    made = 0
    draw = random.Random(seed)

    def check(mode: Any) -> None:
        @seeded(seed)
        @settings(
            max_examples=requests // 3, deadline=None, database=None,
            suppress_health_check=[*HealthCheck], phases=[Phase.generate],
        )  # fmt: skip
        @given(case=operation.as_strategy(generation_mode=mode))
        def one(case: Any) -> None:
            nonlocal made
            made += 1
            _give_own_key(case, made)
            response = case.call(base_url=url, timeout=15)
            case.validate_response(response)
            if response.status_code == 202:
                placed.append(_placed(response.json(), case.body))

        one()

    for mode in (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE):
        try:
            check(mode)
        except (Exception, BaseExceptionGroup) as error:  # schemathesis raises a group
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            must(False, f"HTTP, {mode.value}: {' '.join(lines)[:500] or repr(error)}")
    for _ in range(requests // 3):
        made += 1
        status = _send_rubbish(url, draw)
        must(400 <= status < 500, f"HTTP: rubbish was answered with {status}")
    repeated, sent = _repeat_with_a_key(url, draw, must)
    _hide_a_request(url, must)
    return placed + repeated, made + sent + 1


def _give_own_key(case: Any, number: int) -> None:
    """Make each valid key unique, and keep invalid keys invalid."""
    for name, key in (case.headers or {}).items():
        if name.lower() != "idempotency-key" or not 0 < len(key) <= MAX_KEY_CHARACTERS:
            continue
        if not key.startswith('"'):
            case.headers[name] = f"{number}-{key}"[:MAX_KEY_CHARACTERS]
        elif len(own := f'"{number}-{key[1:]}') <= MAX_KEY_CHARACTERS:
            case.headers[name] = own
        else:
            case.headers[name] = f'"{number}-"'


def _placed(answer: Any, body: Any) -> Placed:
    kind = "good"
    if body.get("country") == "AQ":
        kind = "failing"
    if body.get("amount_cents", 0) > CARD_LIMIT_CENTS:
        kind = "declined"
    return Placed(answer["order_id"], answer["trace_id"], kind, time.time())


def _repeat_with_a_key(url: str, draw: random.Random, must: Must) -> tuple[list[Placed], int]:
    """Repeat an order, and send others with its key; return it, and the number of requests."""
    order = {"sku": "again", "amount_cents": 100, "country": "FI"}
    key = {"Idempotency-Key": str(uuid.UUID(int=draw.getrandbits(128), version=4))}
    requests = [
        (order, {}, 202),
        (dict(reversed(order.items())), {}, 202),
        (order | {"quantity": 1}, {"Idempotency-Key": f'"{key["Idempotency-Key"]}"'}, 202),
        (order | {"amount_cents": 200}, {}, 422),
        (order | {"sku": ""}, {}, 422),
        (order, {"Content-Encoding": "gzip"}, 415),
    ]
    answers = []
    for body, headers, expected in requests:
        content = json.dumps(body).encode()
        if "Content-Encoding" in headers:
            content = gzip.compress(content)
        status, answer = _post(url, content, JSON | key | headers)
        must(status == expected, f"HTTP: {body} with {headers} was answered with {status}")
        if status == 202:
            answers.append(answer)
    must(answers == answers[:1] * 3, f"HTTP: one order of one key had the answers {answers}")
    return [_placed(json.loads(answer), order) for answer in answers[:1]], len(requests)


def _hide_a_request(url: str, must: Must) -> None:
    """Try request smuggling: by the shorter of two lengths, a body's rest is a second request."""
    rest = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"
    head = (
        b"POST /orders HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Transfer-Encoding: chunked\r\nContent-Length: %d\r\n\r\n" % (len(rest) + 5)
    )
    address = urllib.parse.urlsplit(url)
    with socket.create_connection((address.hostname, address.port), timeout=15) as connection:
        connection.sendall(head + b"0\r\n\r\n" + rest)
        answer = b""
        with suppress(OSError):
            while chunk := connection.recv(65536):
                answer += chunk
    refused = answer.startswith(b"HTTP/1.1 400 ") and answer.count(b"HTTP/1.1 ") == 1
    must(refused, f"HTTP: a body with two lengths was answered with {answer[:200]!r}")


def _send_rubbish(url: str, draw: random.Random) -> int:
    """Send a body that is no order; return the status of the answer."""
    body = draw.choice(
        [b"", b"null", b"[]", b"\xff\xfe", b"{" * 10_000, draw.randbytes(draw.randint(1, 4000))]
    )
    headers = {
        "Content-Type": draw.choice(["application/json", "text/plain", "\xfc/\xfc", ""]),
        "traceparent": draw.choice(["", "00-0-0-00", "\xff" * 100]),
        "Idempotency-Key": draw.choice(["", "k", "\xe4" * 200, "k" * 5000]),
    }
    return _post(url, body, headers)[0]


def _post(url: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, bytes]:
    request = urllib.request.Request(f"{url}/orders", body, dict(headers))
    try:
        with urllib.request.urlopen(request, timeout=15) as answer:
            return int(answer.status), answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()
