"""Dead letters that version 0.1 and earlier wrote are read like current ones."""

import json
from types import SimpleNamespace
from typing import Any

import pytest
from faststream_otel.kafka.dead_letters import KafkaDeadLetters, _record
from faststream_otel.kafka.settings import KafkaSettings
from faststream_otel.messages.dead_letters.dead_letter import DeadLetter, Record
from faststream_otel.messages.dead_letters.headers import encoded_headers
from faststream_otel.messages.dead_letters.states import State, StateChange

ORDER = KafkaDeadLetters(KafkaSettings()).order


def read(headers: dict[str, str], body: bytes | None = b"{}") -> Record:
    record: Any = SimpleNamespace(
        partition=2,
        offset=12,
        timestamp=1,
        key=None,
        value=body,
        headers=tuple(encoded_headers(headers)),
    )
    return _record(record)


def test_the_origin_of_an_old_dead_letter() -> None:
    old = {"dead-letter.topic": "events", "dead-letter.partition": "2", "dead-letter.offset": "41"}
    found = DeadLetter(read(old | {"tenant": "acme"}))
    assert (found.id, found.channel, found.message_id) == ("2/12", "events", "2/41")
    assert found.headers == [("tenant", b"acme")]


@pytest.mark.parametrize("offset", ["", "-1", "\u0661", "1/2", "9" * 99])
def test_a_malformed_old_offset_is_unknown(offset: str) -> None:
    old = {"dead-letter.topic": "t", "dead-letter.partition": "2", "dead-letter.offset": offset}
    found = DeadLetter(read(old))
    assert (found.channel, found.message_id) == ("t", "")


def test_a_current_dead_letter_stays_unchanged() -> None:
    headers = {"dead-letter.channel": "events", "dead-letter.message-id": "0/1"}
    assert read(headers).headers == tuple(encoded_headers(headers))
    assert DeadLetter(read(headers | {"dead-letter.topic": "other"})).channel == "events"


def test_an_old_change_of_state() -> None:
    change = StateChange.read(read({"dead-letter.mark": "begun"}, b'{"offsets": [3, 11]}'), ORDER)
    assert change == StateChange(State.BEGUN, ["2/3", "2/11"])


@pytest.mark.parametrize(
    "body",
    [None, b"", b"[]", b"{}", b"\xff", b'{"offsets": 1}', b'{"offsets": ""}', b'{"offsets": {}}',
     b'{"offsets": [true]}', b'{"offsets": ["1"]}', b'{"offsets": [1.0]}', b'{"offsets": [-1]}',
     b'{"offsets": [12]}', b'{"offsets": [' + b"9" * 4000 + b"]}", b"[" * 100_000,
     json.dumps({"offsets": [1] * 1001}).encode()],
)  # fmt: skip
def test_a_malformed_old_change_of_state_is_a_dead_letter(body: bytes | None) -> None:
    record = read({"dead-letter.mark": "replayed"}, body)
    assert StateChange.read(record, ORDER) is None
    assert DeadLetter(record).channel == ""


@pytest.mark.parametrize(
    "text", ["", "0", "0/", "/1", "0/-1", "0/1/2", " 0/1", "a/b", "1/" + "9" * 30, "00/1", "0/01"]
)
def test_a_malformed_id_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="such as 0/12"):
        ORDER(text)
