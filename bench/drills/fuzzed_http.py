"""The HTTP side under requests that schemathesis makes up from the OpenAPI document of it."""

import random
import time
import urllib.error
import urllib.request
import warnings
from collections.abc import Callable
from typing import Any

from .accounting import Placed

Must = Callable[[object, str], None]

CARD_LIMIT_CENTS = 100_000
MAX_KEY_CHARACTERS = 255


def fuzz(url: str, requests: int, seed: int, must: Must) -> tuple[list[Placed], int]:
    """Make requests: of every three one is valid, one wrong in some place, one rubbish.

    Each answer is held against the document: its status, its headers, its body; and none is a 5xx.

    Args:
        url: Of the service.
        requests: How many, about.
        seed: Of what is made up.
        must: Told of what was broken.

    Returns:
        The orders that were acknowledged, and how many requests were made.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of libraries below, about each other
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
        except (Exception, BaseExceptionGroup) as error:  # a group is how it tells of failures
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            must(False, f"HTTP, {mode.value}: {' '.join(lines)[:500] or repr(error)}")
    for _ in range(requests // 3):
        made += 1
        status = _send_rubbish(url, draw)
        must(400 <= status < 500, f"HTTP: rubbish was answered with {status}")
    return placed, made


def _give_own_key(case: Any, number: int) -> None:
    """Make a key that may be taken unlike all others: two orders of one key would be one order."""
    for name, key in (case.headers or {}).items():
        if name.lower() == "idempotency-key" and 0 < len(key) <= MAX_KEY_CHARACTERS:
            case.headers[name] = f"{number} {key}"[:MAX_KEY_CHARACTERS]


def _placed(answer: Any, body: Any) -> Placed:
    kind = "good"
    if body.get("country") == "AQ":
        kind = "failing"
    if body.get("amount_cents", 0) > CARD_LIMIT_CENTS:
        kind = "declined"
    return Placed(answer["order_id"], answer["trace_id"], kind, time.time())


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
    request = urllib.request.Request(f"{url}/orders", body, headers)
    try:
        with urllib.request.urlopen(request, timeout=15) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
