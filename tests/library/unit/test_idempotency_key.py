"""A request that is sent again under its Idempotency-Key is answered as the first time."""

import asyncio
import re

import pytest
from faststream_otel.http.idempotency_key import (
    KEY_PATTERN,
    BadKey,
    KeyInUse,
    KeyReused,
    MemoryKeyStore,
    fingerprint,
    once,
    parse_key,
)
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

UUID = "8e03978e-40d5-43e8-bc93-6894a57f9324"


@pytest.mark.parametrize(
    ("value", "key"),
    [
        (UUID, UUID),
        (f'"{UUID}"', UUID),
        (f' "{UUID}" ', UUID),
        ('"a \\"b\\" \\\\ c, d"', 'a "b" \\ c, d'),
        ("k\\k", "k\\k"),
        ("a" * 255, "a" * 255),
    ],
)
def test_keys(value: str, key: str) -> None:
    assert parse_key([value]) == key


@pytest.mark.parametrize(
    "value",
    ["", " ", '""', '"', '"a', 'a"', '"a"b"', '"a";b=c', '"\\a"', "a b", "a, b", "\xe4", "\x00"],
)
def test_what_is_no_key_is_refused_with_an_example(value: str) -> None:
    with pytest.raises(BadKey, match=UUID):
        parse_key([value])


def test_a_request_has_one_key_or_none() -> None:
    assert parse_key([]) is None
    with pytest.raises(BadKey, match="more than once"):
        parse_key(["a", "a"])
    with pytest.raises(BadKey, match="255 characters"):
        parse_key(["a" * 256])


@given(st.text())
def test_any_text_is_a_key_or_is_refused(value: str) -> None:
    try:
        assert parse_key([value])
    except BadKey:
        assert not re.fullmatch(KEY_PATTERN, value.strip())


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=100))
def test_any_printable_ascii_text_can_be_quoted(text: str) -> None:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    assert parse_key([f'"{escaped}"']) == text


class Order(BaseModel):
    sku: str
    quantity: int = 1


class LaterOrder(BaseModel):
    gift: bool = False
    quantity: int = 1
    sku: str


def test_a_fingerprint_is_of_what_is_meant() -> None:
    plain = fingerprint(Order(sku="a"))
    same = [
        Order(sku="a", quantity=1),
        Order.model_validate_json(b' {"quantity": 1, "sku": "\\u0061"}'),
        LaterOrder(sku="a"),
    ]
    assert {fingerprint(order) for order in same} == {plain}
    assert fingerprint(Order(sku="b")) != plain
    assert fingerprint(Order(sku="a", quantity=2)) != plain


class Shop:
    """Takes orders, which may fail or take their time; counts them."""

    def __init__(self) -> None:
        self.taken = 0
        self.open = asyncio.Event()
        self.open.set()
        self.broken = False

    async def take(self) -> str:
        self.taken += 1
        await self.open.wait()
        if self.broken:
            raise ConnectionError
        return f"order {self.taken}"


async def test_the_same_request_gets_the_same_answer() -> None:
    shop, store = Shop(), MemoryKeyStore()
    assert [await once(store, "k", "a", shop.take) for _ in range(3)] == ["order 1"] * 3
    assert await once(store, "other", "a", shop.take) == "order 2"


async def test_another_request_with_the_key_is_an_error() -> None:
    shop, store = Shop(), MemoryKeyStore()
    await once(store, "k", "a", shop.take)
    with pytest.raises(KeyReused):
        await once(store, "k", "b", shop.take)
    assert shop.taken == 1


async def test_a_request_that_is_repeated_too_early_is_an_error() -> None:
    shop, store = Shop(), MemoryKeyStore()
    shop.open.clear()
    first = asyncio.create_task(once(store, "k", "a", shop.take))
    await asyncio.sleep(0)
    with pytest.raises(KeyInUse):
        await once(store, "k", "a", shop.take)
    with pytest.raises(KeyReused):
        await once(store, "k", "b", shop.take)
    shop.open.set()
    assert await first == await once(store, "k", "a", shop.take) == "order 1"


@pytest.mark.parametrize("cancelled", [False, True])
async def test_after_a_failure_the_same_request_may_try_again(cancelled: bool) -> None:
    shop, store = Shop(), MemoryKeyStore()
    shop.broken = True
    shop.open.clear()
    first = asyncio.create_task(once(store, "k", "a", shop.take))
    await asyncio.sleep(0)
    if cancelled:
        first.cancel()
    shop.open.set()
    with pytest.raises((ConnectionError, asyncio.CancelledError)):
        await first

    shop.broken = False
    with pytest.raises(KeyReused):  # the first may have been taken after all
        await once(store, "k", "b", shop.take)
    assert await once(store, "k", "a", shop.take) == "order 2"


async def test_only_so_many_keys_are_remembered_the_first_forgotten_first() -> None:
    shop, store = Shop(), MemoryKeyStore(most=2)
    for key in ("a", "b", "c", "b", "a"):
        await once(store, key, "", shop.take)
    assert shop.taken == 4


async def test_a_key_that_was_forgotten_meanwhile_takes_no_answer_of_another_request() -> None:
    shop, store = Shop(), MemoryKeyStore(most=1)
    shop.open.clear()
    slow = asyncio.create_task(once(store, "k", "a", shop.take))
    await asyncio.sleep(0)
    await store.claim("another", "b")
    await store.claim("k", "c")  # forgotten, and so free
    shop.open.set()
    await slow
    with pytest.raises(KeyInUse):
        await store.claim("k", "c")
