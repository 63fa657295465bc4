"""Connections of a service's HTTP server: how many, and how long they may wait for their client.

Uvicorn alone closes a connection only after an answer, and answers every request with 503, probes
too, once there are too many connections.

uvicorn has no place for this but a subclass of its `H11Protocol`, which has a public name and no
documentation. Where one of the parts below is missing, the log says so once, and uvicorn's own
limits hold.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from .telemetry.missing import warn_missing

# Beside these: `cycle.response_complete` and `flow.write_paused`.
_ATTRIBUTES = ("connections", "cycle", "flow", "limit_concurrency", "timeout_keep_alive")
_METHODS = ("on_response_complete", "pause_writing")


class Connection(H11Protocol):
    """For `uvicorn.run(http=Connection)`; holds two of its settings against idle connections.

    Beyond `limit_concurrency` connections, the one that has waited longest for its client is
    closed. One that has waited for `timeout_keep_alive` seconds is closed soon, at the latest after
    as long again. Waiting is: for a request with all its headers, or for an answer to be read.
    """

    waiting_since = 0.0
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        missing = [name for name in _ATTRIBUTES if not hasattr(self, name)]
        missing += [name for name in _METHODS if not hasattr(H11Protocol, name)]
        if missing:
            _warn_missing(missing[0])
            return
        self._transport = transport
        self._wait_from_now()
        self._look()
        if self.limit_concurrency and len(self.connections) >= self.limit_concurrency:
            others = [one for one in self.connections if isinstance(one, Connection)]
            waiting = [one for one in others if one.waits]
            if waiting:
                min(waiting, key=lambda one: one.waiting_since).end()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer:
            self._timer.cancel()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        self._wait_from_now()
        super().on_response_complete()

    def pause_writing(self) -> None:
        self._wait_from_now()
        super().pause_writing()

    def _wait_from_now(self) -> None:
        self.waiting_since = asyncio.get_running_loop().time()

    @property
    def waits(self) -> bool:
        """Whether it is the client's turn."""
        try:
            return self.cycle is None or self.cycle.response_complete or self.flow.write_paused
        except AttributeError as error:
            _warn_missing(error.name)
            return False

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        waited = loop.time() - self.waiting_since if self.waits else 0.0
        if waited < self.timeout_keep_alive:
            self._timer = loop.call_later(self.timeout_keep_alive - waited, self._look)
        else:
            self.end()

    def end(self) -> None:
        """Close it at once."""
        self.connections.discard(self)  # counts no more, however long its end takes
        self._transport.abort()


def _warn_missing(name: str | None) -> None:
    warn_missing(
        "uvicorn",
        f"`{name}` in its H11Protocol",
        "idle connections are not closed early, and too many of them answer every request with 503",
    )
