"""Hooks of an orderly shutdown, as FastStream has them."""

import threading
from typing import Any

from faststream import Context
from faststream_otel import Service
from faststream_otel.kafka import KafkaSettings


async def test_each_hook_runs_in_its_turn_with_what_it_asks_for() -> None:
    app = Service("hooked", KafkaSettings()).faststream
    app.context.set_global("limit", 5)
    ran: list[Any] = []

    @app.after_shutdown
    async def late(limit: int = Context()) -> None:
        ran.append(("late", limit))

    @app.on_shutdown
    def plain(limit: int = Context()) -> None:
        ran.append(("plain", limit, threading.current_thread() is threading.main_thread()))

    class Callable:
        async def __call__(self) -> None:
            ran.append("callable")

    hook = Callable()
    assert app.on_shutdown(hook) is hook
    await app.stop()
    assert ran == [("plain", 5, False), "callable", ("late", 5)]
    assert not app.shutdown.failed
