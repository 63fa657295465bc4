"""What is done once is done once, though its message comes again."""

import uuid

from faststream_otel.idempotency import Done, derived_id


def test_what_is_derived_is_the_same_each_time_and_differs_by_kind_and_key() -> None:
    first = derived_id("payment", "42")
    assert first == derived_id("payment", "42")
    assert uuid.UUID(first).version == 5
    assert len({first, derived_id("payment", "43"), derived_id("order", "42")}) == 3


def test_only_so_much_is_remembered_the_oldest_forgotten_first() -> None:
    done = Done(most=2)
    for key in ("a", "b", "a", "c"):
        done.add(key)
    assert "a" in done
    assert "c" in done
    assert "b" not in done
