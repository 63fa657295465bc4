"""Generates inputs for consumers: valid messages, messages with one fault, and rubbish.

Each has its expected result. They are drawn from a seed, so that a run can be repeated.
"""

import copy
import json
import random
import string
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from .accounting import Header, Headers

Fate = Literal["handled", "dead letter", "either"]
"""The expected result of an input. `either`: it depends on how lenient a parser is."""

Event = dict[str, Any]


@dataclass(frozen=True)
class Input:
    """A message for a channel.

    Attributes:
        name: Its fault, or `valid`.
        order_id: Set if handling the message publishes another one with this id.
    """

    channel: str
    name: str
    fate: Fate
    value: bytes | None
    headers: Headers = ()
    order_id: str = ""


def inputs(count: int, seed: int) -> Iterator[Input]:
    """Draw `count` inputs: of every three, one is valid, one has one fault, one is rubbish."""
    draw = random.Random(seed)
    channels = [*EVENTS]
    for number in range(count):
        channel = channels[number // 3 % len(channels)]
        match number % 3:
            case 0:
                yield _valid(draw, channel)
            case 1:
                yield (
                    _wrong_header(draw, channel)
                    if draw.random() < 0.5
                    else _wrong_field(draw, channel)
                )
            case _ if draw.random() < 0.05:
                yield _other_encoding(draw, channel)
            case _:
                yield _rubbish(draw, channel)


def _order(draw: random.Random) -> Event:
    return {
        "order_id": str(uuid.UUID(int=draw.getrandbits(128), version=4)),
        "sku": _text(draw, 1, 64),
        "quantity": draw.randint(1, 1000),
        "amount_cents": draw.choice([1, 100_000, 100_001, 100_000_000, draw.randint(1, 200_000)]),
        "currency": "".join(draw.choices(string.ascii_uppercase, k=3)),
        "country": draw.choice(["FI", "DE", "AX", "ZZ"]),
        "version": 1,
    }


def _part(*names: str, **more: Callable[[random.Random], Any]) -> Callable[[random.Random], Event]:
    """Make events from some fields of an order, and further fields."""

    def make(draw: random.Random) -> Event:
        order = _order(draw)
        own = {name: value(draw) for name, value in more.items()}
        return {name: order[name] for name in ("order_id", "version", *names)} | own

    return make


def _text(draw: random.Random, least: int = 1, most: int = 40) -> str:
    alphabet = string.printable + "äß€日本🜁\u202e\u0000"
    return "".join(draw.choices(alphabet, k=draw.randint(least, most)))


EVENTS: dict[str, Callable[[random.Random], Event]] = {
    "orders.placed": _order,
    "payments.authorized": _part("sku", "quantity", "country", authorization_id=_text),
    "payments.declined": _part(reason=lambda draw: "limit_exceeded"),
    "shipments.dispatched": _part(carrier=_text, tracking_id=_text),
}
"""A valid event of each channel that the example consumes."""

_WRONG_ORDER: dict[str, list[Any]] = {
    "amount_cents": [0, -1, 100_000_001, 1.5, 10**40],
    "currency": ["eur", "EURO", ""],
    "country": ["fi", "FIN", "F1"],
}
_WRONG_EVENT: dict[str, list[Any]] = {
    "version": [0, 2, 99, "1.0", "one"],
    "reason": ["", "none", "LIMIT_EXCEEDED"],
}
_NEVER: list[Any] = [None, [], {}, [1], {"a": 1}]
"""Values that are invalid in every field."""

_ZEROS = "0" * 32
_TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
_HEADERS: dict[str, list[bytes]] = {
    "traceparent": [
        b"", b"rubbish", b"\xff\xfe\xfd",
        f"00-{_ZEROS}-00f067aa0ba902b7-01".encode(),
        f"00-{_TRACE}-0000000000000000-01".encode(),
        f"ff-{_TRACE}-00f067aa0ba902b7-01".encode(),
        f"00-{_TRACE.upper()}-00F067AA0BA902B7-01".encode(),
        f"00-{_TRACE}-00f067aa0ba902b7".encode(),
        f"00-{_TRACE}-00f067aa0ba902b7-01-more".encode(),
        b"00-" + b"a" * 100_000,
    ],
    "tracestate": [b"=", b"\x80", b"a=b," * 100, b"congo=\x00t61"],
    "baggage": [b"=", b"\xff", b"a" * 10_000, b"a=b;;;=,,,", b"%zz=%00"],
    "correlation_id": [b"", b"\xc3\x28", b"x" * 10_000],
    "reply_to": [b"dead-letters", b"orders.placed", b"nowhere", b""],
    "flow-started": [b"", b"-1", b"soon", b"1e400", b"9" * 400],
    "dead-letter.channel": [b"elsewhere"],
    "message-id": [b"\xf0\x28\x8c\xbc"],
    "\U0001f600": [b"\x00\x01"],
}  # fmt: skip
"""Headers that must not affect handling; neither if null, nor if repeated."""

_JSON: Header = ("content-type", b"application/json")


def _valid(draw: random.Random, channel: str) -> Input:
    event = EVENTS[channel](draw)
    trace, span = f"{draw.getrandbits(128) or 1:032x}", f"{draw.getrandbits(64) or 1:016x}"
    headers = [_JSON]
    if draw.random() < 0.8:
        headers.append(("traceparent", f"00-{trace}-{span}-01".encode()))
    if draw.random() < 0.1:
        event["unheard_of"] = _text(draw)  # as from a later minor version: ignored
    return Input(channel, "valid", "handled", _json(draw, event), headers, event["order_id"])


def _wrong_header(draw: random.Random, channel: str) -> Input:
    event = EVENTS[channel](draw)
    fate: Fate
    if draw.random() < 0.1:
        name, fate = "content-type", "either"
        values = [b"", b"text/plain", b"\xff", b"application/xml"]
        headers = []
    else:
        name, fate = draw.choice([*_HEADERS]), "handled"
        values = _HEADERS[name]
        headers = [_JSON]
    for _ in range(draw.choice([1, 1, 2])):
        headers.insert(draw.randint(0, len(headers)), (name, draw.choice([*values, None])))
    return Input(channel, f"header {name}", fate, _json(draw, event), headers, event["order_id"])


def _wrong_field(draw: random.Random, channel: str) -> Input:
    event = EVENTS[channel](draw)
    # Without a version, an event has the first one.
    name = draw.choice([one for one in event if one != "version" or draw.random() < 0.5])
    wrong = copy.copy(_NEVER)
    wrong += _WRONG_EVENT.get(name, [])
    if channel == "orders.placed":
        wrong += _WRONG_ORDER.get(name, [])
    if name != "version" and draw.random() < 0.2:
        del event[name]
    else:
        event[name] = draw.choice(wrong)
    return Input(channel, f"field {name}", "dead letter", _json(draw, event), [_JSON])


def _rubbish(draw: random.Random, channel: str) -> Input:
    event = _json(draw, EVENTS[channel](draw))
    value = draw.choice(
        [
            b"",
            None,
            draw.randbytes(draw.randint(1, 2000)),
            event[: draw.randrange(1, len(event) - 1)],
            event + b"}",
            b"\xef\xbb\xbf" + event + b"\x00",
            b"[" * 5_000,
            b'{"a":' * 2_000 + b"1" + b"}" * 2_000,
            json.dumps([1, 2, {"order_id": 1}]).encode(),
            b"null", b"true", b"NaN", b'"text"', b"-0", b"1e999",
        ]
    )  # fmt: skip
    headers = [
        (
            draw.choice(["content-type", "traceparent", "x", "correlation_id", "baggage"]),
            draw.choice([b"application/json", draw.randbytes(draw.randint(0, 200)), None]),
        )
        for _ in range(draw.randint(0, 4))
    ]
    return Input(channel, "rubbish", "dead letter", value, headers)


def _other_encoding(draw: random.Random, channel: str) -> Input:
    event = EVENTS[channel](draw)
    value = json.dumps(event).encode(draw.choice(["utf-16", "utf-32", "utf-8-sig"]))
    return Input(channel, "other encoding", "either", value, [_JSON], event["order_id"])


def _json(draw: random.Random, event: Event) -> bytes:
    names = [*event]
    draw.shuffle(names)
    text = json.dumps({name: event[name] for name in names}, ensure_ascii=draw.random() < 0.5)
    return text.encode()
