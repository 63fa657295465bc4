"""Connections of a service's HTTP server: how many, and how long they may wait for their client.

Uvicorn alone closes a connection only after an answer, and answers every request with 503, probes
too, once there are too many connections.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol


class Connection(H11Protocol):
    """For `uvicorn.run(http=Connection)`; holds two of its settings against idle connections.

    Beyond `limit_concurrency` connections, the one that has waited longest for its client is
    closed. One that has waited for `timeout_keep_alive` seconds is closed soon, at the latest after
    as long again. Waiting is: for a request with all its headers, or for an answer to be read.
    """

    _waiting_since = 0.0
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._waiting_since = self.loop.time()
        self._look()
        if self.limit_concurrency and len(self.connections) >= self.limit_concurrency:
            others = [one for one in self.connections if isinstance(one, Connection)]
            waiting = [one for one in others if one._waits]
            min(waiting, key=lambda one: one._waiting_since)._end()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer:
            self._timer.cancel()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        self._waiting_since = self.loop.time()
        super().on_response_complete()

    def pause_writing(self) -> None:
        self._waiting_since = self.loop.time()
        super().pause_writing()

    @property
    def _waits(self) -> bool:
        return self.cycle is None or self.cycle.response_complete or self.flow.write_paused

    def _look(self) -> None:
        waited = self.loop.time() - self._waiting_since if self._waits else 0.0
        if waited < self.timeout_keep_alive:
            self._timer = self.loop.call_later(self.timeout_keep_alive - waited, self._look)
        else:
            self._end()

    def _end(self) -> None:
        self.connections.discard(self)  # counts no more, however long its end takes
        self.transport.abort()
