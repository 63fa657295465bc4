"""The generated inputs are what they claim: each is checked against the contracts of a bake."""

import json
import sys
from collections import Counter
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from bench.drills.inputs import EVENTS, Input, inputs

CONTRACTS = {
    "orders.placed": "OrderPlaced",
    "payments.authorized": "PaymentAuthorized",
    "payments.declined": "PaymentDeclined",
    "shipments.dispatched": "OrderDispatched",
}
COUNT = 3000


@pytest.fixture(scope="module")
def contracts() -> Iterator[Any]:
    folder = Path(__file__).parents[1] / "{{cookiecutter.project_slug}}" / "src"
    sys.path.insert(0, str(folder / "{{cookiecutter.package_name}}"))
    try:
        yield import_module("contracts")
    finally:
        sys.path.pop(0)
        sys.modules.pop("contracts", None)


@pytest.fixture(scope="module")
def drawn() -> list[Input]:
    return [*inputs(COUNT, seed=1)]


def test_a_third_each_is_valid_wrong_in_one_place_and_rubbish(drawn: list[Input]) -> None:
    kinds = Counter(one.name.split()[0] for one in drawn)
    assert kinds["valid"] == COUNT // 3
    assert kinds["field"] + kinds["header"] == COUNT // 3
    assert {one.channel for one in drawn} == set(EVENTS)


def test_headers_are_of_any_kind(drawn: list[Input]) -> None:
    for fate in ("handled", "dead letter"):
        each = [one.headers for one in drawn if one.fate == fate]
        values = {value for headers in each for _, value in headers}
        assert values > {None, b"", b"application/json"}
        assert any(not value.isascii() for value in values if value)
        assert any(len(headers) > len(dict(headers)) for headers in each)


def test_a_seed_draws_the_same_again(drawn: list[Input]) -> None:
    assert [*inputs(COUNT, seed=1)] == drawn
    assert [*inputs(COUNT, seed=2)] != drawn


def test_each_has_the_fate_that_its_contract_gives_it(drawn: list[Input], contracts: Any) -> None:
    for one in drawn:
        try:
            event = json.loads(one.value or b"")
            getattr(contracts, CONTRACTS[one.channel]).model_validate(event)
        except (ValueError, ValidationError, RecursionError):
            assert one.fate in {"dead letter", "either"}, one
        else:
            assert one.fate in {"handled", "either"}, one
            assert event["order_id"] == one.order_id
